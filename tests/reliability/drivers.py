"""Drivers that start an experiment, hit it at a chosen moment, and compare what it leaves behind.

They know of an experiment only its command line and the workdir contract: `metrics.jsonl`, `checkpoints/`, exit codes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from experiments import checkpoints, manifest, orbax_arrays

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (minus the signal's number if one killed it), its outputs, seconds it took."""

    code: int
    out: str
    err: str
    seconds: float


def start(command: Sequence[str], log: pathlib.Path, **popen: Any) -> subprocess.Popen:
    """Starts `python -m MODULE --flags` in the repository; its outputs go to `log`.out and `log`.err."""
    environ = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PYTHONWARNINGS")}
    environ |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with open(f"{log}.out", "w") as out, open(f"{log}.err", "w") as err:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environ, stdout=out, stderr=err, **popen)


def finish(process: subprocess.Popen, log: pathlib.Path, *, timeout: float = 120.0) -> Ended:
    """Waits for a process, kills it when the time is over."""
    began = time.monotonic()
    try:
        code = process.wait(timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    out, err = pathlib.Path(f"{log}.out").read_text(), pathlib.Path(f"{log}.err").read_text()
    return Ended(code, out, err, time.monotonic() - began)


def run(command: Sequence[str], log: pathlib.Path, **popen: Any) -> Ended:
    """Runs a command to its end."""
    return finish(start(command, log, **popen), log)


def run_killed_until_done(
    command: Sequence[str], workdir: pathlib.Path, moments: Sequence[float | str], log: pathlib.Path
) -> list[int]:
    """Kills (-9) an experiment once for each moment, starting it again each time, and lets the last attempt finish.

    Args:
        command: module and flags, without `--workdir` and `--resume`.
        workdir: where the run lives.
        moments: a number is the seconds from the first line that an attempt logs to the kill; "saving" kills while a
            checkpoint is being written.
        log: path prefix for the outputs.

    Returns:
        The last step that was logged when each kill came; an attempt that ended before its moment is left out.
    """
    command = [*command, f"--workdir={workdir}", "--resume"]
    killed_at = []

    def attempt(moment: float | str) -> None:
        before = _size(workdir / "metrics.jsonl")
        process = start(command, log)
        with _ended_in_the_end(process):
            if moment == "saving":
                wait_until(lambda: any((workdir / "checkpoints").glob("*.saving*")) or _over(process))
            else:
                # An attempt first cuts lines back, so a changed size alone does not say that it has begun.
                newest = newest_step(workdir)
                wait_until(lambda: _logged_on(workdir, newest, before) or _over(process))
                time.sleep(float(moment))
            if not _over(process):
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed_at.append(max((line["step"] for line in read_lines(workdir)), default=0))

    for moment in moments:
        attempt(moment)
    last = run(command, log)
    assert last.code == 0, last.err
    return killed_at


def stop_at(
    command: Sequence[str], workdir: pathlib.Path, phase: str, numbers: Sequence[signal.Signals], log: pathlib.Path
) -> Ended:
    """Sends signals to an experiment once it has printed `phase NAME`, and waits for its end."""
    process = start([*command, f"--workdir={workdir}", "--resume"], log)
    with _ended_in_the_end(process):
        out = pathlib.Path(f"{log}.out")
        wait_until(lambda: f"phase {phase}" in out.read_text() or _over(process))
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.05)
        return finish(process, log, timeout=40.0)


class Ranks:
    """An experiment as several processes of two virtual CPU devices each, which meet at a free local port.

    Use it in a `with` statement: leaving it kills what still runs.
    """

    def __init__(self, command: Sequence[str], workdir: pathlib.Path, count: int, log: pathlib.Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [*command, f"--workdir={workdir}", f"--runtime.coordinator=127.0.0.1:{port}"]
        command += [f"--runtime.num_processes={count}", "--runtime.num_cpu_devices=2"]
        self.logs = [log.with_name(f"{log.name}.{rank}") for rank in range(count)]
        self.processes = [
            start([*command, f"--runtime.process_id={rank}"], rank_log) for rank, rank_log in enumerate(self.logs)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def wait_for_phase(self, phase: str) -> None:
        """Waits until all ranks have printed `phase NAME`, or one has ended."""
        outs = [pathlib.Path(f"{log}.out") for log in self.logs]
        wait_until(lambda: all(f"phase {phase}" in out.read_text() for out in outs) or any(map(_over, self.processes)))

    def finish(self) -> list[Ended]:
        """Waits for all."""
        return [finish(process, log) for process, log in zip(self.processes, self.logs, strict=True)]


def final_arrays_digest(workdir: pathlib.Path) -> tuple[int, str]:
    """Step of the newest checkpoint, and a digest of the names, types, shapes and bits of its arrays."""
    folder = workdir / "checkpoints" / str(newest_step(workdir))
    sealed = manifest.verify(folder)
    digest = hashlib.sha256()
    for name, array in sorted(orbax_arrays.read_arrays(folder, sealed.leaves).items()):
        digest.update(f"{name} {array.dtype.name} {array.shape} ".encode() + array.tobytes())
    return sealed.step, digest.hexdigest()


def newest_step(workdir: pathlib.Path) -> int:
    """The newest checkpoint's step, 0 if there is none."""
    return max(checkpoints.Checkpoints(workdir / "checkpoints").steps(), default=0)


def logged_numbers(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without their clock times (names that end in `seconds`)."""
    return [
        {name: value for name, value in line.items() if not name.endswith("seconds")} for line in read_lines(workdir)
    ]


def leftovers(workdir: pathlib.Path) -> list[str]:
    """Whatever a killed save or write left behind."""
    marks = (".saving", ".deleting", ".tmp", "orbax-checkpoint-tmp")
    return [str(path) for path in workdir.rglob("*") if any(mark in path.name for mark in marks)]


def read_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_until(condition: Callable[[], bool], *, timeout: float = 60.0) -> None:
    """Polls every 2 ms."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing within {timeout} s")
        time.sleep(0.002)


@contextlib.contextmanager
def _ended_in_the_end(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _over(process: subprocess.Popen) -> bool:
    return process.poll() is not None


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _logged_on(workdir: pathlib.Path, restored: int, before: int) -> bool:
    lines = read_lines(workdir)
    if _size(workdir / "metrics.jsonl") == before or not lines:
        return False
    return lines[-1]["step"] > restored
