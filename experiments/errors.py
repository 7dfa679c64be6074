"""Exit codes, and the errors that end a program with one line instead of a traceback."""

import contextlib
import errno
import os
from collections.abc import Iterator

EXIT_OK = 0
"""The program did what it was asked."""
EXIT_INPUT = 2
"""Bad flags or bad input; the reason is one line on stderr."""
EXIT_NO_ROOM = 74
"""No room to write (EX_IOERR of sysexits.h)."""
EXIT_STOPPED = 75
"""Stopped before the end in a resumable state (EX_TEMPFAIL of sysexits.h): a launcher may requeue."""

NO_ROOM_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The `errno` values that mean that there is no room."""
_UNUSABLE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ),
    }
)


class InputError(ValueError):
    """A flag or an input file that cannot be used; the message is one line and says what to do (exit code 2)."""


class NoRoomError(OSError):
    """Nothing more can be written where the run writes: disk or quota full, or a file-size limit (exit code 74)."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Translates failures to write at `path` into the error that names the path and the remedy.

    Args:
        path: the file or folder being written; only named in the message.

    Raises:
        NoRoomError: for a full disk, an exhausted quota or a file-size limit.
        InputError: for a place that cannot be written at all (permissions, read-only, not a folder, bad name).
    """
    try:
        yield
    except NoRoomError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM_ERRNOS:
            message = f"no room to write {os.fspath(path)}: {error.strerror}{_free_space(path)}; free space and resume"
            raise NoRoomError(error.errno, message) from error
        if error.errno in _UNUSABLE:
            raise InputError(
                f"cannot write {os.fspath(path)}: {error.strerror}; choose a writable place with --workdir"
            ) from error
        raise


def _free_space(path: str | os.PathLike[str]) -> str:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        status = os.statvfs(folder)
    except OSError:
        return ""
    return f" ({status.f_bavail * status.f_frsize / 2**20:.1f} MiB free in {folder})"
