"""Numbers and pictures of a run: `metrics.jsonl` (the record), TensorBoard (a view of it), `metrics.json` (the result).

One line of `metrics.jsonl` is `{"step": 120, "loss": 0.0312, ...}`. Numbers are written with the shortest decimal that
reads back to the same float64, so equal lines mean bit-equal numbers. JSON has no NaN or infinity: such a value is
written as `null` next to a key `<name>_nonfinite` holding "nan", "inf" or "-inf"; `read_metrics` puts it back.

Every line is one `write` call at the end of the file: a killed program leaves whole lines and at most one torn last
line, which the next start removes.
"""

import itertools
import json
import math
import numbers
import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from experiments import errors, media
from experiments import workdir as workdirs

_NONFINITE = "_nonfinite"
_SECONDS_BETWEEN_FLUSHES = 10.0


class MetricWriter:
    """Appends a run's numbers to `metrics.jsonl` and mirrors them to TensorBoard. Use it in a `with` statement.

    Args:
        workdir: the run's folder.
        restored_step: step of the restored checkpoint: later lines are cut off, they will be computed again. None:
            the run starts at its beginning, and lines of an earlier attempt move to `metrics.<n>.jsonl`.
        process_index: rank of this process; only process 0 writes, the others check and drop.
        tensorboard: whether to write event files below `workdir/tensorboard`.

    Raises:
        NoRoomError: the disk is full; what was written before stays valid.
        InputError: the folder cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        restored_step: int | None = None,
        process_index: int = 0,
        tensorboard: bool = True,
    ) -> None:
        self._workdir = pathlib.Path(workdir)
        self._path = self._workdir / "metrics.jsonl"
        self._descriptor: int | None = None
        self._events: _EventFile | None = None
        if process_index != 0:
            return
        with errors.writing(self._path):
            if restored_step is None:
                _move_aside(self._path)
            else:
                _cut_back(self._path, restored_step)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if tensorboard:
            self._events = _EventFile(self._workdir / "tensorboard", restored_step)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line; the operating system has it when this returns, so a kill -9 right after loses nothing.

        Args:
            step: training step that the numbers belong to.
            values: name to number (Python number, or an array with one element).

        Raises:
            ValueError: a name is "step", ends in "_nonfinite" or is not a string; a value is not a real number.
            NoRoomError: the disk is full; the file is left without a torn line.
        """
        numbers_of_step = {name: _number(name, value) for name, value in values.items()}
        line = _encode(int(step), numbers_of_step)
        if self._descriptor is None:
            return
        with errors.writing(self._path):
            size = os.fstat(self._descriptor).st_size
            try:
                _write_all(self._descriptor, line)
            except OSError:
                os.ftruncate(self._descriptor, size)
                raise
        if self._events is not None:
            self._events.scalars(int(step), numbers_of_step)

    def image(self, step: int, name: str, image: Any) -> None:
        """Writes a picture to `images/<name>/<step>.png` and to TensorBoard.

        Args:
            step: training step that shows this.
            name: words of letters, digits, `_`, `-` and `.`, joined by `/`.
            image: uint8 array (height, width, 3), or (height, width, 1 or 4), or (height, width).

        Raises:
            ValueError: the name could leave the folder, or the array is not a uint8 picture.
        """
        if not re.fullmatch(r"[\w\-][\w.\-]*(/[\w\-][\w.\-]*)*", name):
            raise ValueError(f"a picture's name is made of letters, digits, _ - . and /, got {name!r}")
        pixels = media.as_uint8(image)
        if self._descriptor is None:
            return
        path = self._workdir / "images" / name / f"{int(step):08d}.png"
        with errors.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        media.write_png(path, pixels)
        if self._events is not None:
            self._events.image(int(step), name, pixels)

    def close(self) -> None:
        """Closes the files; further writes are an error. Closing twice is harmless."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`, oldest first; a torn last line and a missing file are tolerated.

    Returns:
        One dictionary a line, `step` included; NaN and infinities are floats again.
    """
    lines, _ = _whole_lines(pathlib.Path(workdir) / "metrics.jsonl")
    return [_decode(record) for _, record in lines]


def write_final(workdir: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes the final numbers (and words, such as the route taken) of a run to `metrics.json`: flat, atomic.

    Raises:
        ValueError: a value is neither a number, a string, a boolean nor None.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or isinstance(value, (str, bool)):
            flat[name] = value
        else:
            flat.update(_jsonable({name: _number(name, value)}))
    workdirs.write_json_atomic(pathlib.Path(workdir) / "metrics.json", flat)


def _number(name: object, value: Any) -> int | float:
    if not isinstance(name, str) or name == "step" or name.endswith(_NONFINITE):
        raise ValueError(f'a metric\'s name is a string other than "step" or "..{_NONFINITE}", got {name!r}')
    if hasattr(value, "item"):
        if getattr(value, "size", 1) != 1:
            raise ValueError(f"metric {name} must be one number, got an array of shape {value.shape}")
        value = value.item()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) or hasattr(value, "__float__"):
        return float(value)
    raise ValueError(f"metric {name} must be a real number, got {value!r}")


def _jsonable(values: Mapping[str, int | float]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in values.items():
        finite = isinstance(value, int) or math.isfinite(value)
        record[name] = value if finite else None
        if not finite:
            record[name + _NONFINITE] = str(value)
    return record


def _encode(step: int, values: Mapping[str, int | float]) -> bytes:
    return (json.dumps({"step": step, **_jsonable(values)}, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _decode(record: dict[str, Any]) -> dict[str, Any]:
    notes = {name: value for name, value in record.items() if name.endswith(_NONFINITE)}
    plain = {name: value for name, value in record.items() if name not in notes}
    return plain | {name.removesuffix(_NONFINITE): float(value) for name, value in notes.items()}


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):  # A disk that fills up takes a part and fails at the next call.
        written += os.write(descriptor, data[written:])


def _whole_lines(path: pathlib.Path) -> tuple[list[tuple[bytes, dict[str, Any]]], int]:
    """The valid lines of a file, as bytes and as records, and how many others there were."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    good, bad = [], 0
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            good.append((line, record))
        else:
            bad += 1
    return good, bad


def _cut_back(path: pathlib.Path, restored_step: int) -> None:
    lines, bad = _whole_lines(path)
    kept = [line for line, record in lines if record["step"] <= restored_step]
    if bad or len(kept) < len(lines):
        workdirs.write_bytes_atomic(path, b"".join(kept))
    if bad > 1:
        print(f"warning: {path} had {bad} damaged lines, which are gone", file=sys.stderr)


def _move_aside(path: pathlib.Path) -> None:
    if path.exists() and path.stat().st_size > 0:
        kept = next(p for n in itertools.count(1) if not (p := path.with_name(f"metrics.{n}.jsonl")).exists())
        path.rename(kept)


class _EventFile:
    """TensorBoard events through tensorboardX's synchronous writer.

    Its `SummaryWriter` hands events to a thread through a bounded queue and blocks for ever once that thread has died,
    as it does on a full disk; here a failure switches the mirror off and training goes on.
    """

    def __init__(self, folder: pathlib.Path, restored_step: int | None) -> None:
        # Deferred: half a second that `--help` and other processes need not pay.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary: Any = summary
        self._proto: Any = event_pb2
        self._next_flush = 0.0
        self._writer = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The process number keeps two starts within one second from overwriting each other's file.
            self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{os.getpid()}")
        except OSError as error:
            self._fail(error)
        if restored_step is not None:
            # Tells TensorBoard to forget what an interrupted attempt logged after this step.
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            self._add(self._proto.Event(step=restored_step + 1, session_log=start))

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        for name, value in values.items():
            self._add(self._proto.Event(step=step, summary=self._summary.scalar(name, float(value))))

    def image(self, step: int, name: str, pixels: Any) -> None:
        self._add(self._proto.Event(step=step, summary=self._summary.image(name, pixels, dataformats="HWC")))

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._fail(error)

    def _add(self, event: Any) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            if event.wall_time > self._next_flush:
                self._writer.flush()
                self._next_flush = event.wall_time + _SECONDS_BETWEEN_FLUSHES
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._writer = None
        print(f"warning: TensorBoard files are no longer written ({error}); metrics.jsonl goes on", file=sys.stderr)
