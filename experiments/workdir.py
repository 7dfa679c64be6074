"""The folder that a run writes to: created, guarded against a second run, described by `config.json`, resumable.

A run's folder holds `config.json` (every flag, git commit, package versions, device), `metrics.jsonl`, `metrics.json`,
`checkpoints/`, `report.html` and the results. Everything is written to a temporary file first and renamed, so that a
killed program leaves either the old or the new file. `run.lock` is held (flock) as long as the process lives: the
kernel drops it however the process ends, so a lock never has to be removed by hand.
"""

import datetime
import enum
import errno
import fcntl
import itertools
import json
import math
import os
import pathlib
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from experiments import errors

_PACKAGES = (
    *("galatea3d", "jax", "jaxlib", "flax", "numpy", "scipy", "optax", "orbax-checkpoint", "tensorstore", "numba"),
    *("pillow", "trimesh", "av", "jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu"),
)
_SIGNS_OF_A_RUN = ("config.json", "metrics.jsonl", "checkpoints")
# These say how a run was launched, not what it computes: they may change between attempts without a warning.
_LAUNCH_FLAGS = frozenset({"resume", "workdir"})
_held_locks: dict[tuple[int, int], int] = {}


def open_workdir(
    name: str,
    path: str | None,
    *,
    resume: bool,
    config: Mapping[str, Any],
    process_index: int = 0,
    process_count: int = 1,
) -> pathlib.Path:
    """Creates or reopens the folder of a run, locks it for this process and writes `config.json`.

    Call it after `runtime.setup`, because describing the device starts the jax backend. Within one process the same
    folder may be opened again (with `resume`).

    Args:
        name: name of the experiment, used for the default folder `runs/NAME/<date-time>`.
        path: `--workdir`; None takes the default folder below the current one.
        resume: whether a folder that already holds a run may be continued.
        config: flat mapping of flag name to value, as `flags.to_dict` gives it.
        process_index: rank of this process; only process 0 locks and writes.
        process_count: number of processes; with more than one, `path` must be given so that all agree on it.

    Returns:
        Absolute path of the folder.

    Raises:
        InputError: the folder holds a run and `resume` is not set, is in use by another run, or cannot be written.
        NoRoomError: there is no room for `config.json`.
    """
    if path is None and (process_count > 1 or process_index > 0):
        raise errors.InputError("several processes need one folder that they all see; pass the same --workdir to each")
    if path is not None and ("\0" in path or not path.strip()):
        raise errors.InputError(f"--workdir must name a folder, got {path!r}")
    workdir = _default_folder(name, resume) if path is None else pathlib.Path(path).expanduser().absolute()
    if process_index != 0:
        return workdir
    with errors.writing(workdir):
        if workdir.exists() and not workdir.is_dir():
            raise errors.InputError(f"--workdir must name a folder, {workdir} is a file; choose another name")
        workdir.mkdir(parents=True, exist_ok=True)
        _lock(workdir)
    found = [entry for entry in _SIGNS_OF_A_RUN if (workdir / entry).exists()]
    if found and not resume:
        raise errors.InputError(
            f"{workdir} already holds a run ({', '.join(found)}); continue it with --resume, "
            "or choose another --workdir"
        )
    _write_config(workdir, name, config)
    return workdir


def holds_run(path: pathlib.Path) -> bool:
    """Whether a folder has the traces of a run: `config.json`, `metrics.jsonl` or `checkpoints`."""
    return any((path / entry).exists() for entry in _SIGNS_OF_A_RUN)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a mixture.

    Raises:
        NoRoomError: disk full; the old content is intact.
        InputError: the place cannot be written.
    """
    path = pathlib.Path(path)
    # A short name: the final one may already use up the file system's limit.
    temporary = path.parent / f".tmp-{os.getpid()}-{next(_counter)}"
    with errors.writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_json_atomic(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes an object as indented, valid JSON, atomically.

    Tuples become lists, enums their names, paths strings, array scalars numbers; numbers that JSON cannot hold become
    the strings "nan", "inf" and "-inf", which `float` reads back.
    """
    text = json.dumps(to_jsonable(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes_atomic(path, text.encode("utf-8", errors="backslashreplace"))


def to_jsonable(obj: Any) -> Any:
    """The nearest JSON value of an object: see `write_json_atomic`; unknown objects become their `str`."""
    if isinstance(obj, enum.Enum):
        return obj.name
    if obj is None or isinstance(obj, (bool, int, str)):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else str(float(obj))
    if isinstance(obj, Mapping):
        return {str(key): to_jsonable(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [to_jsonable(value) for value in obj]
    if hasattr(obj, "tolist"):
        return to_jsonable(obj.tolist())
    return str(obj)


_counter = itertools.count()


def _default_folder(name: str, resume: bool) -> pathlib.Path:
    parent = pathlib.Path("runs").absolute() / name
    if resume:
        earlier = sorted((p for p in parent.glob("*") if holds_run(p)), key=lambda p: p.stat().st_mtime)
        if earlier:
            raise errors.InputError(f"--resume needs the run's --workdir; the newest here is --workdir={earlier[-1]}")
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in itertools.count(1):
        folder = parent / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        with errors.writing(folder):
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
        return folder
    raise AssertionError("unreachable")


def _lock(workdir: pathlib.Path) -> None:
    descriptor = os.open(workdir / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    status = os.fstat(descriptor)
    identity = (status.st_dev, status.st_ino)
    if identity in _held_locks:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode("utf-8", errors="replace").strip() or "another process"
        os.close(descriptor)
        raise errors.InputError(
            f"{workdir} is in use by {owner}; wait for it to end, stop it, or choose another --workdir"
        ) from None
    except OSError as error:
        # Some network file systems have no locks; the run itself can still go on.
        print(f"warning: cannot lock {workdir} ({error.strerror}); do not start a second run in it", file=sys.stderr)
    _held_locks[identity] = descriptor
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise  # The text in the lock is a courtesy; the first real write will report a full disk.


def _write_config(workdir: pathlib.Path, name: str, config: Mapping[str, Any]) -> None:
    path = workdir / "config.json"
    new = to_jsonable(_describe(name, config))
    old = _read_json(path)
    if old is not None:
        changed = _changes(old, new)
        if not changed:
            return
        print(f"warning: resuming {workdir} with changes: " + "; ".join(changed), file=sys.stderr)
        kept = next(p for n in itertools.count(1) if not (p := workdir / f"config.{n}.json").exists())
        write_bytes_atomic(kept, path.read_bytes())
    write_json_atomic(path, new)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    changed = []
    for part, label in (("flags", "--"), ("packages", "package "), ("device", "device ")):
        before, after = old.get(part) or {}, new.get(part) or {}
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key) and not (part == "flags" and key in _LAUNCH_FLAGS):
                changed.append(f"{label}{key}: {before.get(key)!r} -> {after.get(key)!r}")
    if old.get("git_commit") != new["git_commit"]:
        changed.append(f"git commit: {old.get('git_commit')} -> {new['git_commit']}")
    return changed


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        print(f"warning: {path} is unreadable and is kept under another name", file=sys.stderr)
        return {}
    return value if isinstance(value, dict) else {}


def _describe(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    # Deferred: importing it pulls in jax, which the guards above do not need.
    from experiments import runtime

    return {
        "name": name,
        "flags": dict(config),
        "argv": list(sys.argv),
        **_git_state(),
        "packages": package_versions(_PACKAGES),
        "device": runtime.platform_report(),
        "python": platform.python_version(),
        "hostname": socket.gethostname(),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the named distributions; those that are absent are left out."""
    versions = {}
    for package in names:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git_state() -> dict[str, Any]:
    folder = pathlib.Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit, "git_dirty": None if status is None else bool(status)}


def _sync_folder(folder: pathlib.Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # Not every file system can sync a folder; the rename itself has happened.
    finally:
        os.close(descriptor)
