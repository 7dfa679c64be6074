"""How much memory this process holds, and the most it held since a moment; Linux only."""

import ctypes
import pathlib

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h


def return_what_is_freed() -> None:
    """Makes glibc give blocks of 128 KiB and more back to the system when they are freed.

    Left to itself it learns to keep blocks of up to 32 MiB, so that what was freed long ago counts as held.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 128 * 1024)
    except (AttributeError, OSError):
        pass  # not glibc


def resident() -> int | None:
    """Bytes that are resident now, after what was freed has gone back to the system; None where it cannot be read."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # not glibc: freed memory may be counted
    return _entry("VmRSS")


def reset_peak() -> bool:
    """Let `peak` start from here; False where the system does not."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak() -> int | None:
    """Most resident bytes since `reset_peak`."""
    return _entry("VmHWM")


def _entry(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
