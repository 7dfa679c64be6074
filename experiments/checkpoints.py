"""Checkpoints to trust: orbax writes them in the background, checksums seal them, the newest good one counts.

A checkpoint is the folder `<step>`, which appears by one rename when all of it, the manifest included, is on the disk:
a killed program leaves only a folder `<step>.saving`, swept away at the next start. A damaged step is renamed to
`<step>.damaged`, said so on stderr, and the step before it is used; nothing damaged is ever deleted or restored.

With several processes the state must be the same on each of them or made of sharded global arrays, and the folder must
be on a file system that all of them see. Process 0 writes, whole arrays, and decides which step is restored; every
process reads. So a run continues on any number of processes or devices.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from experiments import errors, finite, host_arrays, manifest, orbax_arrays

_SAVING, _DELETING, _DAMAGED = ".saving", ".deleting", ".damaged"
# Metadata of orbax, the manifest and whole file-system blocks; measured at 30 kB for 5 and 60 kB for 60 arrays.
_OVERHEAD_BYTES = 2**18
_NO_ROOM_WORDS = ("RESOURCE_EXHAUSTED", "No space left", "quota exceeded", "File too large")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A checkpoint as read: number of updates that made it, its arrays as jax arrays, its JSON values."""

    step: int
    state: Any
    aux: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Use it in a `with` statement: leaving it waits for the save under way.

    Args:
        directory: folder that holds them, created when the first one is written.
        keep: how many good steps are kept.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"at least one checkpoint must be kept, got keep={keep}")
        self._directory = pathlib.Path(directory).absolute()
        self._keep = keep
        self._worker = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None
        self._newest: int | None = None
        self._failure: errors.NoRoomError | None = None

    def __enter__(self) -> Self:
        """The checkpoints themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until what was begun is written; keeps quiet about it if an error is already under way."""
        self._worker.shutdown(wait=True)
        if error is None:
            self._collect()

    def steps(self) -> list[int]:
        """Steps on the disk, oldest first, not verified."""
        if not self._directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._directory.iterdir() if entry.name.isdecimal())

    def save(self, step: int, state: Any, aux: Mapping[str, Any]) -> None:
        """Copies the state to the host and writes it in the background; waits for the save before, if that still runs.

        Too little room is no error here: it is said on stderr, the older steps stay as they are, and `wait` raises
        if the newest save failed. Every process must call this.

        Args:
            step: number of updates that made the state.
            state: pytree of arrays, no typed PRNG keys among them (derive keys from the seed and the step).
            aux: values that JSON holds exactly; they are read before the arrays, whose shapes may depend on them.

        Raises:
            NonFiniteError: an array has a NaN or an infinity; nothing is written.
            TypeError: `aux` changes when written as JSON and read back, or a leaf is a PRNG key.
            InputError: an earlier save found that the folder cannot be written at all.
        """
        aux = _checked_aux(aux)
        leaves = host_arrays.host_copies(state)
        for name, leaf in leaves.items():
            bad = np.size(leaf) - np.count_nonzero(np.isfinite(leaf)) if jnp.issubdtype(leaf.dtype, jnp.inexact) else 0
            if bad:
                raise finite.NonFiniteError(f"step {step}: {name} has {bad} non-finite entries; not saved")
        self._collect()
        if jax.process_count() == 1:
            self._pending = self._worker.submit(self._write, step, leaves, aux)
            return
        # Orbax compares the folder's name between the processes: a collective, which belongs on every main thread.
        room = jax.process_index() == 0 and self._make_room(step, _needed_bytes(leaves))
        if host_arrays.text_from_process_0("yes" if room else "no") == "yes":
            written = orbax_arrays.start_writing(self._saving(step), leaves)
            self._pending = self._worker.submit(self._finish, step, leaves, aux, written)

    def wait(self) -> None:
        """Waits until the newest save is on the disk. Every process must call this.

        Raises:
            NoRoomError: the newest save failed for want of room.
        """
        self._collect()
        lines = host_arrays.text_from_process_0("" if self._failure is None else str(self._failure))
        if lines:
            raise errors.NoRoomError(lines)

    def saved(self, step: int) -> bool:
        """Whether this step was saved or restored by this object and is on the disk. Every process must call this."""
        self._collect()
        return host_arrays.text_from_process_0("yes" if self._newest == step else "no") == "yes"

    def restore_newest(self, make_target: Callable[[dict[str, Any]], Any]) -> Restored | None:
        """Reads the newest step that is whole; sets damaged ones aside, saying so. Every process must call this.

        Args:
            make_target: from `aux` to the pytree that the state shall have: anything with `shape` and `dtype`, such as
                `jax.eval_shape` gives. A leaf with a `sharding` is placed so, others on the default device.

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            InputError: the newest good step has other arrays than the target, or was written by a newer version.
        """
        found: manifest.Manifest | None = None
        if jax.process_index() == 0:
            self._sweep()
            found = self._newest_good()
        text = host_arrays.text_from_process_0("" if found is None else found.text)
        if not text:
            return None
        found = manifest.from_text(text)
        folder = self._directory / str(found.step)
        target = make_target(found.aux)
        _check_fit(folder, found.leaves, target)
        arrays = orbax_arrays.read_arrays(folder, found.leaves)
        state = jax.tree_util.tree_map_with_path(
            lambda path, leaf: host_arrays.place(arrays[finite.leaf_name(path)], leaf), target
        )
        self._newest = found.step
        return Restored(step=found.step, state=state, aux=found.aux)

    def _newest_good(self) -> manifest.Manifest | None:
        for step in reversed(self.steps()):
            folder = self._directory / str(step)
            try:
                return manifest.verify(folder)
            except manifest.NewerFormatError as error:
                raise errors.InputError(f"{error}; update this program, or choose another --workdir") from error
            except manifest.DamagedError as error:
                aside = _free_name(folder.with_name(folder.name + _DAMAGED))
                folder.rename(aside)
                print(f"warning: checkpoint {step} is damaged: {error}; kept as {aside.name}", file=sys.stderr)
        return None

    def _collect(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _saving(self, step: int) -> pathlib.Path:
        return self._directory / f"{step}{_SAVING}"

    def _write(self, step: int, leaves: dict[str, np.ndarray], aux: dict[str, Any]) -> None:
        if self._make_room(step, _needed_bytes(leaves)):
            with self._losing_a_step_for_want_of_room(step, _needed_bytes(leaves)):
                written = orbax_arrays.start_writing(self._saving(step), leaves)
                self._seal(step, leaves, aux, written)

    def _finish(self, step: int, leaves: dict[str, np.ndarray], aux: dict[str, Any], written: Any) -> None:
        if jax.process_index() != 0:
            written.result()
            return
        with self._losing_a_step_for_want_of_room(step, _needed_bytes(leaves)):
            self._seal(step, leaves, aux, written)

    def _make_room(self, step: int, needed: int) -> bool:
        self._failure = None
        with self._losing_a_step_for_want_of_room(step, needed):
            with errors.writing(self._directory):
                self._directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if needed > shutil.disk_usage(self._directory).free:
                raise errors.NoRoomError("there is too little room")
        return self._failure is None

    @contextlib.contextmanager
    def _losing_a_step_for_want_of_room(self, step: int, needed: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._sweep()
            if not _is_no_room(error):
                raise
            self._failure = errors.NoRoomError(self._explain(step, needed, error))
            print(f"warning: {self._failure}", file=sys.stderr, flush=True)

    def _seal(self, step: int, leaves: dict[str, np.ndarray], aux: dict[str, Any], written: Any) -> None:
        with orbax_arrays.quiet():
            written.result()
        saving, folder = self._saving(step), self._directory / str(step)
        table = {name: (leaf.dtype.name, leaf.shape) for name, leaf in leaves.items()}
        manifest.write(saving, step=step, aux=aux, leaves=table)
        if folder.exists():
            folder.rename(_free_name(folder.with_name(folder.name + _DELETING)))
        saving.rename(folder)
        _sync(self._directory)
        self._newest = step
        for old in self.steps()[: -self._keep]:
            (self._directory / str(old)).rename(self._directory / f"{old}{_DELETING}")
        self._sweep()

    def _explain(self, step: int, needed: int, error: Exception) -> str:
        kept = self.steps()
        intact = f"step {kept[-1]} is intact" if kept else "no step was saved before"
        free = shutil.disk_usage(self._directory).free if self._directory.is_dir() else 0
        reason = str(error).splitlines()[0][:200]
        return (
            f"no room for the checkpoint of step {step} in {self._directory}: {needed:,} bytes needed, {free:,} free "
            f"({reason}); {intact}; free some space and go on with --resume"
        )

    def _sweep(self) -> None:
        if self._directory.is_dir():
            for entry in self._directory.iterdir():
                if _SAVING in entry.name or _DELETING in entry.name:
                    shutil.rmtree(entry, ignore_errors=True)


def _checked_aux(aux: Mapping[str, Any]) -> dict[str, Any]:
    read_back = json.loads(json.dumps(dict(aux), allow_nan=False))
    if read_back != dict(aux):
        raise TypeError(f"aux must hold what JSON holds exactly (strings, finite numbers, lists), got {dict(aux)!r}")
    return read_back


def _needed_bytes(leaves: Mapping[str, np.ndarray]) -> int:
    return sum(leaf.nbytes for leaf in leaves.values()) + _OVERHEAD_BYTES


def _check_fit(folder: pathlib.Path, leaves: Mapping[str, tuple[str, tuple[int, ...]]], target: Any) -> None:
    wanted = {
        finite.leaf_name(path): (np.dtype(leaf.dtype).name, tuple(leaf.shape))
        for path, leaf in jax.tree_util.tree_flatten_with_path(target)[0]
    }
    differences = [
        *(f"{name} is missing" for name in sorted(wanted.keys() - leaves.keys())),
        *(f"{name} is not part of this run" for name in sorted(leaves.keys() - wanted.keys())),
        *(
            f"{name} is {_spell(*leaves[name])}, this run has {_spell(*wanted[name])}"
            for name in sorted(wanted.keys() & leaves.keys())
            if leaves[name] != wanted[name]
        ),
    ]
    if differences:
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise errors.InputError(
            f"the checkpoint {folder} does not fit this run: {'; '.join(differences[:4])}{more}; "
            "resume with the flags of config.json, or choose another --workdir"
        )


def _spell(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _free_name(path: pathlib.Path) -> pathlib.Path:
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}.{number}")
    return free


def _is_no_room(error: BaseException | None) -> bool:
    if error is None:
        return False
    if isinstance(error, errors.NoRoomError) or getattr(error, "errno", None) in errors.NO_ROOM_ERRNOS:
        return True
    if any(words in str(error) for words in _NO_ROOM_WORDS):
        return True
    return _is_no_room(error.__cause__ or error.__context__)


def _sync(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
