"""The checksum manifest of a checkpoint: `manifest.json` lists every file of a step with its size and sha256.

Orbax restores a flipped byte without noticing, so a step counts only if its manifest is whole and every file is as
listed. The manifest also carries what is needed before any array is read: the arrays' types and shapes, and `aux`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

NAME = "manifest.json"
_FORMAT = 1
_MAX_BYTES = 16 * 2**20


class DamagedError(Exception):
    """A step that is not as it was written; the message names the file and what is wrong with it."""


class NewerFormatError(Exception):
    """A manifest written by a newer version of this program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a step holds.

    Attributes:
        step: number of updates that made the state.
        aux: the JSON values saved along with the arrays.
        leaves: array name to `(dtype, shape)`.
        text: the manifest as it is in the file.
    """

    step: int
    aux: dict[str, Any]
    leaves: dict[str, tuple[str, tuple[int, ...]]]
    text: str


def write(
    folder: pathlib.Path, *, step: int, aux: Mapping[str, Any], leaves: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Lists every file of a committed step, flushed to the disk, and puts `manifest.json` beside them by one rename.

    Raises:
        OSError: a file cannot be read, or the manifest cannot be written.
    """
    files = {}
    for name in _files(folder):
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            # Without this a power cut could leave a whole manifest over files that never reached the disk.
            os.fsync(file.fileno())
            files[name] = {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}
    body = {"format": _FORMAT, "step": step, "aux": dict(aux), "leaves": dict(leaves), "files": files}
    temporary = folder / f".{NAME}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(_render(body))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)


def verify(folder: pathlib.Path) -> Manifest:
    """Reads a step's manifest and checks every file against it.

    Raises:
        DamagedError: the manifest is missing or altered; a file is missing, unlisted, of another size or content.
        NewerFormatError: the manifest is whole, but of a format that this version does not know.
    """
    text = _read_text(folder / NAME)
    body = _checked_body(text, os.fspath(folder / NAME))
    listed, found = body["files"], set(_files(folder))
    for name in sorted(listed.keys() - found):
        raise DamagedError(f"{folder / name} is missing")
    for name in sorted(found - listed.keys()):
        raise DamagedError(f"{folder / name} does not belong to the checkpoint")
    for name, entry in listed.items():
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            raise DamagedError(f"{folder / name} has {size} bytes, {entry['bytes']} were written")
    for name, entry in listed.items():
        try:
            with open(folder / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedError(f"{folder / name} cannot be read ({error.strerror})") from error
        if digest != entry["sha256"]:
            raise DamagedError(f"{folder / name} has changed since it was written (sha256 differs)")
    return _record(body, text)


def from_text(text: str) -> Manifest:
    """The record of a manifest's text, which has to equal, character by character, what its content renders to.

    Raises:
        DamagedError: the text is altered.
        NewerFormatError: the format is unknown.
    """
    return _record(_checked_body(text, NAME), text)


def _checked_body(text: str, where: str) -> dict[str, Any]:
    try:
        body = json.loads(text)["manifest"]
        whole = text == _render(body)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{where} is damaged") from error
    if not whole:
        raise DamagedError(f"{where} has changed since it was written (sha256 differs)")
    if body["format"] > _FORMAT:
        raise NewerFormatError(f"{where} has format {body['format']}, this version reads up to {_FORMAT}")
    return body


def _record(body: dict[str, Any], text: str) -> Manifest:
    leaves = {name: (dtype, tuple(shape)) for name, (dtype, shape) in body["leaves"].items()}
    return Manifest(step=body["step"], aux=body["aux"], leaves=leaves, text=text)


def _render(body: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({"manifest": body, "sha256": digest}, sort_keys=True, allow_nan=False, indent=1) + "\n"


def _read_text(path: pathlib.Path) -> str:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            raise DamagedError(f"{path} is not a manifest")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read ({error})") from error


def _files(folder: pathlib.Path) -> list[str]:
    """Every file below a folder but the manifest; names with a leading dot belong to the file system or a desktop."""
    names = []
    for place, folders, files in os.walk(folder):
        for name in files + [entry for entry in folders if os.path.islink(os.path.join(place, entry))]:
            path = pathlib.Path(place, name)
            if name.startswith(".") or (name == NAME and path.parent == folder):
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                raise DamagedError(f"{path} is not a plain file")
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)
