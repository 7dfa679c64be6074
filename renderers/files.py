"""Files from outside: the one error that readers raise, bounded reading, and writing that is never half done."""

import os
import pathlib
import tempfile

import numpy as np

MAX_BYTES = 1 << 34
"""No single file of more than 16 GiB is read into memory."""


class FormatError(ValueError):
    """A file that is not what its name says, is damaged, or holds unusable numbers; the message is one line."""


def read_bytes(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """Reads a whole regular file whose size is known to be acceptable before any memory is taken.

    Args:
        path: the file.
        max_bytes: larger files are refused.

    Raises:
        FormatError: if the file is missing, is not a regular file (a pipe or a device would block or never end), is
            unreadable, or is too large.
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise FormatError(f"{path}: no such file" if not path.exists() else f"{path}: expected a regular file")
        size = path.stat().st_size
        if size > max_bytes:
            raise FormatError(f"{path}: {size} bytes is more than the {max_bytes} that this format may hold")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read ({error})") from error


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces `path` by a file with `content`: a reader, or a crash at any moment, sees the old file or the new one.

    Args:
        path: the destination; its folder must exist.
        content: the whole file.

    Raises:
        OSError: if the folder is missing, cannot be written or is full; the old file is then untouched.
    """
    path = pathlib.Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private to the user; results are shared like any other file that the user creates.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def require_finite(where: str, name: str, values: np.ndarray) -> None:
    """Refuses NaN and infinity in an array whose first axis counts rows, naming the first bad row.

    Args:
        where: the file, for the message.
        name: what the rows hold, for the message.
        values: an array of floats, at least one-dimensional.

    Raises:
        FormatError: naming the index of the first row that is not finite and how many there are.
    """
    bad = np.any(~np.isfinite(values).reshape(values.shape[0], -1), axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        raise FormatError(
            f"{where}: row {first} has a non-finite {name} ({int(bad.sum())} such of {values.shape[0]} rows); "
            "remove these rows in the program that wrote the file"
        )
