"""A folder of mesh files whose names say what they are, as further objects of the block world.

`Pine_Tree_2.glb` is "a pine tree", `crops_pack__PalmTree_4.glb` "a palm tree": what stands before two underscores,
numbers and single letters are no part of the name. Objects are put in the world's frame (+Y up, front +Z, as glTF has
it), centred, their longest side 0.9 m, and seen by the same cameras in the same channels as the others. Words that the
block world's vocabulary lacks are appended to it, sorted, so that the numbers of its own words stay.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from experiments import keys
from experiments.data.blocks import mesh_pictures, rendering
from experiments.data.blocks.descriptions import words_of
from experiments.data.blocks.mesh_pictures import Corners
from experiments.errors import InputError
from renderers.files import FormatError
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh

LONGEST = 0.9  # metres, of an object's longest side
MOST_FILES = 10_000
MOST_BYTES = 1 << 28
_SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
_MOST_WORDS = 8  # of a name


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedMesh:
    """One object of a folder.

    Attributes:
      name: its words, such as "pine tree".
      caption: the same with an article.
      file: where it is from.
      corners: what it is rendered from.
    """

    name: str
    caption: str
    file: pathlib.Path
    corners: Corners


def read_folder(folder: str, read: Callable[[int, int], None] | None = None) -> tuple[NamedMesh, ...]:
    """All mesh files of a folder, in the order of their names; folders in it are not entered.

    Args:
      folder: the place.
      read: told the numbers of files read and in all.

    Raises:
      InputError: there is no such folder, or it has no mesh files or too many, or one that is damaged, too large or
        empty, or whose name has no words; one line that says which.
    """
    files = mesh_files(folder)
    names = [name_of(file) for file in files]  # all are looked at before the first is opened
    found = []
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        found.append(NamedMesh(name=name, caption=_with_article(name), file=file, corners=_read(file)))
        if read is not None:
            read(number + 1, len(files))
    return tuple(found)


def mesh_files(folder: str) -> list[pathlib.Path]:
    """The mesh files that lie in a folder.

    Raises:
      InputError: as `read_folder`.
    """
    place = pathlib.Path(folder)
    try:
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    except (OSError, ValueError) as error:
        raise InputError(f"{_shown(folder)}: expected a folder of named mesh files ({error})") from None
    if not 1 <= len(files) <= MOST_FILES:
        kinds = ", ".join(_SUFFIXES)
        raise InputError(f"{_shown(folder)}: has {len(files)} files of {kinds}; expected 1 to {MOST_FILES}")
    return files


def name_of(file: pathlib.Path) -> str:
    """The words of a file's name.

    Raises:
      InputError: it has none, or too many, or some that are not of the letters a to z.
    """
    own = file.stem.rpartition("__")[2]
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", own)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", apart) if len(word) > 1]
    if not 1 <= len(words) <= _MOST_WORDS or not all(word.isascii() for word in words):
        raise InputError(
            f"{_shown(file)}: its name must say what it is in 1 to {_MOST_WORDS} words of the letters a to z, "
            "such as Pine_Tree_2.glb"
        )
    return " ".join(words)


def captions_of(folder: str) -> list[str]:
    """What the files of a folder are called; none is opened.

    Raises:
      InputError: as `read_folder`, for the folder and the names.
    """
    return [_with_article(name_of(file)) for file in mesh_files(folder)]


def new_words(captions: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Words of captions that a vocabulary lacks, sorted: what is to be appended to it."""
    said = {word for caption in captions for word in words_of(caption)}
    return tuple(sorted(said.difference(known)))


def drawn(seed: int, index: int, share: float, count: int) -> int | None:
    """Which of `count` meshes takes the place of object `index` of the block world; None leaves it.

    Args:
      seed: of the world.
      index: of the object.
      share: of objects that are replaced, in [0, 1].
      count: of meshes.
    """
    rng = keys.host_rng(seed, "named meshes", index)
    return int(rng.integers(count)) if rng.random() < share else None


def render_meshes(
    objects: Sequence[NamedMesh],
    azimuths: Float[np.ndarray, " n"],
    elevations: Float[np.ndarray, " n"],
    *,
    size: int,
) -> UInt8[np.ndarray, "n 4 h w 8"]:
    """Channels of meshes on their rings as bytes, see `rendering.to_bytes`.

    Args:
      objects: one for each ring.
      azimuths: of the first cameras, radians.
      elevations: of the cameras, radians.
      size: pixels along a side.
    """
    views = np.zeros((len(objects), 4, size, size, rendering.CHANNELS), np.uint8)
    for row, (one, azimuth, elevation) in enumerate(zip(objects, azimuths, elevations, strict=True)):
        ring = mesh_pictures.render_mesh_ring(one.corners, np.float32(azimuth), np.float32(elevation), size=size)
        views[row] = rendering.to_bytes(ring)
    return views


def placed(mesh: Mesh) -> Mesh:
    """The mesh centred on the origin, its longest side LONGEST.

    Raises:
      ValueError: it has no extent, or one beyond what float32 resolves.
    """
    used = np.asarray(mesh.vertices, np.float64)[np.unique(np.asarray(mesh.faces))]
    if not len(used):
        raise ValueError("it has no triangles")
    low, high = used.min(axis=0), used.max(axis=0)
    longest, center = float(np.max(high - low)), 0.5 * (low + high)
    if not longest > 1e-5 * max(float(np.max(np.abs(used))), 1e-20):
        raise ValueError(f"its longest side is {longest:g}; there is nothing to see")
    moved = (np.asarray(mesh.vertices, np.float64) - center) * (LONGEST / longest)
    return dataclasses.replace(mesh, vertices=moved.astype(np.float32))


def _read(file: pathlib.Path) -> Corners:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"{file.stat().st_size} bytes are more than the {MOST_BYTES} that are read")
        return mesh_pictures.taken_apart(placed(read_mesh(file)))
    except FormatError as error:
        raise InputError(str(error)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{_shown(file)}: {' '.join(str(error).split())}") from None


def _with_article(name: str) -> str:
    if name.endswith("s") and not name.endswith(("ss", "us", "is")):  # one cactus, several flowers
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _shown(path) -> str:
    return str(path).encode("unicode_escape").decode()
