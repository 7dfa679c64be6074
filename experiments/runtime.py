"""Devices and processes: what the program runs on, how several processes find each other, how a hang ends.

`setup` is the first call of an experiment that touches jax. A single process is the normal case; several are used only
when the flags or the launcher (srun, mpirun, a TPU pod) say so.
"""

import contextlib
import faulthandler
import os
import pathlib
import platform
import statistics
import sys
import threading
import time
import traceback
import types
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from experiments import config_fields, errors, launchers

# When a process vanishes the others notice after this time; they are to be gone within 30 s.
HEARTBEAT_SECONDS = 20
SHUTDOWN_SECONDS = 10
_INITIALIZATION_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many processes take part in the run, and which one this is."""

    index: int = 0
    count: int = 1


_distributed = False


def setup(
    config: config_fields.RuntimeConfig = config_fields.RuntimeConfig(),  # noqa: B008 - frozen
    environ: Mapping[str, str] | None = None,
) -> Processes:
    """Prepares jax for an experiment: platform, virtual devices, compilation cache, processes. Call it once, first.

    Args:
        config: the `--runtime.*` flags.
        environ: what a launcher says; by default `os.environ`.

    Returns:
        The number of processes and the rank of this one.

    Raises:
        InputError: contradictory flags, a platform that is not there, or processes that do not meet in time.
    """
    global _distributed
    environ = os.environ if environ is None else environ
    if config.platform is not None:
        jax.config.update("jax_platforms", config.platform)
    if config.num_cpu_devices is not None:
        jax.config.update("jax_num_cpu_devices", config.num_cpu_devices)
    if config.deterministic:
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = " ".join(filter(None, [os.environ.get("XLA_FLAGS"), flag]))
    set_compilation_cache(config.compilation_cache, environ)
    meeting = launchers.rendezvous(config, environ)
    if meeting is not None:
        _join(meeting)
        _distributed = True
        sys.excepthook = _end_at_once
    try:
        return Processes(index=jax.process_index(), count=jax.process_count())
    except RuntimeError as error:
        raise errors.InputError(f"jax cannot start: {error}; choose another --runtime.platform") from error


def is_distributed() -> bool:
    """Whether `setup` joined this process to others."""
    return _distributed


def wait_for_all(what: str) -> None:
    """Waits until every process has come here: one that leaves early would take the others with it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def set_compilation_cache(folder: str | None = None, environ: Mapping[str, str] | None = None) -> pathlib.Path | None:
    """Keeps compiled programs on disk, small ones too, so that the next start is fast.

    Compiled CPU code is only valid on CPUs with the same instructions, so each kind gets a folder of its own unless
    `JAX_COMPILATION_CACHE_DIR` names one.

    Args:
        folder: where; "off" for nowhere; None for `JAX_COMPILATION_CACHE_DIR`, else below `$XDG_CACHE_HOME`.
        environ: by default `os.environ`.

    Returns:
        The folder, or None where there is none that can be written; that costs time, never the run.
    """
    environ = os.environ if environ is None else environ
    path = _cache_folder(folder, environ)
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            usable = os.access(path, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if not usable:
            print(f"warning: compiled programs are not kept: {path} cannot be written", file=sys.stderr)
            path = None
    jax.config.update("jax_compilation_cache_dir", None if path is None else str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path


def data_mesh() -> jax.sharding.Mesh:
    """A one-dimensional mesh over all devices of all processes; its axis "views" splits a batch of views."""
    return jax.make_mesh((jax.device_count(),), ("views",), axis_types=(jax.sharding.AxisType.Auto,))


def platform_report() -> dict[str, Any]:
    """What the run computes on: platform, device kind and counts, processes, host CPU. Starts the jax backend."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "cpu": _cpu_name(),
        "cpu_count": usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def usable_cpus() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Watchdog:
    """Ends the process with exit code 75 when no step comes: one stuck process would otherwise hold all others.

    The limit is `min_seconds` or 10 times the median of the last steps, whichever is longer. Use it in a `with`
    statement, call `beat` after every step, and wrap slow phases (evaluation, export) in `paused`.

    Args:
        min_seconds: shortest limit; 0 watches nothing.
        first_seconds: limit of the first step, which compiles.
        grace: how many medians a step may take.
    """

    def __init__(self, min_seconds: float = 60.0, *, first_seconds: float = 900.0, grace: float = 10.0) -> None:
        self._min_seconds = min_seconds
        self._first_seconds = max(first_seconds, min_seconds)
        self._grace = grace
        self._recent: list[float] = []
        self._last = time.monotonic()
        self._pauses = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Starts to watch."""
        self._last = time.monotonic()
        if self._min_seconds > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Stops to watch."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Says that a step has just finished."""
        now = time.monotonic()
        self._recent = [*self._recent[-99:], now - self._last]
        self._last = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not watch within, for work whose length is not that of a step."""
        self._pauses += 1
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._pauses -= 1

    def limit(self) -> float:
        """Seconds that the current step may take."""
        steps = self._recent[1:]  # The first one compiled.
        if not self._recent:
            return self._first_seconds
        return max(self._min_seconds, self._grace * statistics.median(steps)) if steps else self._first_seconds

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._min_seconds / 10 + 0.01)):
            silent = time.monotonic() - self._last
            if self._pauses == 0 and silent > self.limit():
                message = f"no step for {silent:.0f} s; the stacks of all threads follow; exit {errors.EXIT_STOPPED}"
                print(f"watchdog: {message}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(2, all_threads=True)
                os._exit(errors.EXIT_STOPPED)


def _join(meeting: launchers.Rendezvous) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address=meeting.address,
            num_processes=meeting.count,
            process_id=meeting.index,
            # By default jax listens on every interface of the machine.
            coordinator_bind_address=meeting.address,
            initialization_timeout=_INITIALIZATION_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise errors.InputError(f"the processes did not meet at {meeting.address or 'an address'}: {reason}") from error


def _cache_folder(folder: str | None, environ: Mapping[str, str]) -> pathlib.Path | None:
    if folder == "off":
        return None
    if folder:
        return pathlib.Path(folder).expanduser().absolute()
    if environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(environ["JAX_COMPILATION_CACHE_DIR"]).absolute()
    base = environ.get("XDG_CACHE_HOME")
    if not base:
        home = environ.get("HOME")
        if not home:
            return None
        base = os.path.join(home, ".cache")
    return pathlib.Path(base).absolute() / "galatea3d" / f"{platform.machine()}-{zlib.crc32(_cpu_features()):08x}"


def _cpu_features() -> bytes:
    for line in _cpuinfo():
        if line.startswith((b"flags", b"Features")):
            return line
    return platform.processor().encode()


def _cpu_name() -> str:
    for line in _cpuinfo():
        if line.startswith(b"model name"):
            return line.partition(b":")[2].strip().decode(errors="replace")
    return platform.processor() or platform.machine()


def _cpuinfo() -> list[bytes]:
    try:
        with open("/proc/cpuinfo", "rb") as file:
            return file.read(65536).splitlines()
    except OSError:
        return []


def _end_at_once(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Reports an uncaught exception and ends without the orderly shutdown, which waits for the other processes."""
    traceback.print_exception(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
