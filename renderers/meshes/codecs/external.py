"""Files that a mesh file names: read from its own folder only, or out of a data URI."""

import base64
import binascii
import os
import pathlib
import re
import urllib.parse

from renderers.files import FormatError, read_bytes
from renderers.ply_header import Damaged

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DATA = re.compile(r"data:[^,]{0,200},")


def read_uri(folder: pathlib.Path | None, uri: str) -> bytes:
    """Reads what a glTF `uri` points to: a base64 data URI, or a percent-encoded path relative to the file's folder.

    Raises:
        Damaged: for other schemes, absolute paths, paths that leave the folder, or data that is not base64.
        FormatError: if the file cannot be read.
    """
    head = _DATA.match(uri)
    if head:
        if not head.group().endswith(";base64,"):
            raise Damaged(f"the data URI {uri[:40]!r} is not base64")
        try:
            return base64.b64decode(uri[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise Damaged(f"the data URI {uri[:40]!r} is not valid base64") from None
    return read_beside(folder, urllib.parse.unquote(uri))


def read_beside(folder: pathlib.Path | None, name: str) -> bytes:
    """Reads the file `name` (a relative path with / or \\) inside `folder`, links out of which are not followed.

    Raises:
        Damaged: if the name is absolute, has a scheme or a drive, or leaves the folder.
        FormatError: if the file cannot be read.
    """
    parts = name.replace("\\", "/").split("/")
    if folder is None:
        raise Damaged(f"it names the file {name[:60]!r}, but was not read from a folder")
    if not name or "\0" in name or parts[0] == "" or ".." in parts or _SCHEME.match(name):
        raise Damaged(f"it names the file {name[:60]!r}; only files inside its own folder are read: copy it there")
    try:
        path = folder.joinpath(*parts)
        inside = pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError) as error:
        raise Damaged(f"it names the file {name[:60]!r}, which cannot be read ({str(error)[:60]})") from None
    if not inside:
        raise Damaged(f"it names the file {name[:60]!r}, which links outside its folder: copy it there")
    return read_bytes(path)


def read_optional(folder: pathlib.Path, name: str, notes: list[str]) -> bytes | None:
    """As `read_beside`, but a file that is not there leaves a note and is None."""
    try:
        return read_beside(folder, name)
    except FormatError as error:
        reason = "is not there" if "no such" in str(error) else f"cannot be read ({str(error)[-80:]})"
        notes.append(f"the file {name[:60]!r} {reason}")
        return None
