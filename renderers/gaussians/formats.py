"""Splat files: the front door that picks a format by suffix.

| suffix | reads | writes | lossless |
|---|---|---|---|
| .ply | 3DGS columns; PlayCanvas compressed, by content | 3DGS columns | yes, to the bit |
| .compressed.ply | as .ply | PlayCanvas compressed | no |
| .splat | antimatter15 | the same; degree 0 | no |
| .sog, folder | PlayCanvas SOG version 2, archive or folder with meta.json | .sog archives | no |
| .spz | Niantic, versions 1 to 4, axes turned to those of .ply | version 3 | no |
"""

import os
from collections.abc import Callable

from renderers.files import FormatError
from renderers.gaussians.codecs import compressed_ply, sog, splat, splat_ply, spz
from renderers.gaussians.gaussians import Gaussians
from renderers.ply import read_ply

__all__ = ["FormatError", "read_splats", "write_splats"]


def read_splats(path: str | os.PathLike[str]) -> Gaussians:
    """Reads a splat scene.

    Args:
        path: the file, whose suffix tells the format, or an unpacked SOG folder.

    Returns:
        float32 Gaussians in the file's own world frame, in the file's order; quaternions of `.ply` files keep their
        length.

    Raises:
        FormatError: for an unknown suffix, a damaged or lying file, or numbers that are not finite.
    """
    name = os.fspath(path).lower()
    for suffix, (read, _) in _FORMATS.items():
        if name.endswith(suffix):
            return read(path)
    if os.path.isfile(os.path.join(path, "meta.json")):
        return sog.read(path)
    raise _unknown(path)


def write_splats(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes a splat scene; an existing file is replaced only once the new one is complete.

    Args:
        path: the destination; the suffix picks the format. Lossy formats may reorder the Gaussians.
        gaussians: the scene; values must be finite.

    Raises:
        FormatError: for an unknown suffix, values that are not finite, or a degree that the format has no room for.
        OSError: if the file cannot be written.
    """
    name = os.fspath(path).lower()
    for suffix, (_, write) in _FORMATS.items():
        if name.endswith(suffix):
            return write(path, gaussians)
    raise _unknown(path)


def _read_any_ply(path: str | os.PathLike[str]) -> Gaussians:
    elements = read_ply(path, frozenset({"chunk", "vertex", "sh"}))
    if "vertex" not in elements:
        raise FormatError(f"{os.fspath(path)}: the file has no `vertex` element, so no Gaussians")
    if "chunk" in elements:
        return compressed_ply.from_elements(path, elements)
    return splat_ply.from_vertex(path, elements["vertex"])


def _unknown(path: str | os.PathLike[str]) -> FormatError:
    return FormatError(f"{os.fspath(path)}: unknown splat format; known suffixes are {', '.join(_FORMATS)}")


_Codec = tuple[Callable[[str | os.PathLike[str]], Gaussians], Callable[[str | os.PathLike[str], Gaussians], None]]
# Longer suffixes first: a compressed file ends in .ply too.
_FORMATS: dict[str, _Codec] = {
    ".compressed.ply": (_read_any_ply, compressed_ply.write),
    ".ply": (_read_any_ply, splat_ply.write),
    ".sog": (sog.read, sog.write),
    ".splat": (splat.read, splat.write),
    ".spz": (spz.read, spz.write),
}
