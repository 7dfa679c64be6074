"""Paths that come out of files: they may not lead out of the folder that the file describes."""

import os
import pathlib
import re

from experiments.errors import InputError

_MAX_LENGTH = 4096
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


def resolve_inside(root: pathlib.Path, name: str, *, where: str, allow_external: bool = False) -> pathlib.Path:
    """Turns a path found in a file into a path on disk, refusing whatever points outside `root`.

    Backslashes count as separators, because captures are moved between systems. URIs, drive letters and control
    characters are refused always; absolute paths, `..` and symbolic links that lead outside unless `allow_external`.

    Args:
        root: the folder that relative paths start from.
        name: the path as written in the file.
        where: what names the path, for the message.
        allow_external: trust the file.

    Returns:
        The path, resolved; it need not exist.

    Raises:
        InputError: for a path that may not be followed.
    """
    shown = repr(name[:80])
    if not name or len(name) > _MAX_LENGTH or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise InputError(f"{where}: the path {shown} is empty, too long or holds control characters")
    name = name.replace("\\", "/")
    if _SCHEME.match(name):
        raise InputError(f"{where}: the path {shown} is a URI or has a drive letter; paths must be relative to {root}")
    path = pathlib.PurePosixPath(name)
    try:
        base = root.resolve()
        resolved = (base / path).resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{where}: the path {shown} cannot be followed ({error})") from error
    inside = not path.is_absolute() and ".." not in path.parts and resolved.is_relative_to(base)
    if not inside and not allow_external:
        raise InputError(
            f"{where}: the path {shown} leads outside {root}; move the file inside, or pass --allow_external_paths if "
            "you trust this capture"
        )
    return resolved


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file is there; names that the file system cannot hold are not there."""
    try:
        return pathlib.Path(path).is_file()
    except (OSError, ValueError):
        return False
