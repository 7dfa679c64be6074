"""What the browser viewer shows: files turned into what viser draws, and the server that draws them."""

import dataclasses
import errno
import pathlib
import socket

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import InputError
from renderers.gaussians.covariance import covariances
from renderers.gaussians.formats import read_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.harmonics import BAND_0
from renderers.meshes.codecs import gltf_write
from renderers.meshes.formats import FormatError, read_scene
from renderers.meshes.scene import Scene

_MESHES = (".glb", ".gltf", ".obj")


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to look at: a name, a line about it, and its content."""

    name: str
    summary: str
    content: Gaussians | Scene


def load(path: pathlib.Path) -> Item:
    """Reads a mesh or splats, by suffix; of a .ply, by content.

    Raises:
        InputError: the file cannot be read; one line.
    """
    try:
        if path.suffix.lower() in _MESHES or (path.suffix.lower() == ".ply" and not _holds_splats(path)):
            return _mesh_item(path)
        gaussians = read_splats(path)
    except FormatError as error:
        raise InputError(str(error)) from error
    return Item(path.name, f"{len(gaussians.means):,} Gaussians", gaussians)


def _holds_splats(path: pathlib.Path) -> bool:
    """Whether a .ply holds Gaussians: uncompressed ones have rotations, compressed ones packed columns."""
    with path.open("rb") as file:
        header = file.read(1 << 16).split(b"end_header")[0]
    return b"rot_0" in header or b"packed_rotation" in header


def _mesh_item(path: pathlib.Path) -> Item:
    scene = read_scene(path)
    faces = sum(len(part.mesh.faces) for part in scene.parts)
    pieces = [f"{faces:,} faces", f"{len(scene.parts)} parts"]
    pieces += [f"{len(scene.animations)} animations"] if scene.animations else []
    return Item(path.name, "; ".join([", ".join(pieces), *scene.notes]), scene)


class Viewer:
    """A viser server bound to one address; a context manager."""

    def __init__(self, address: str, port: int, up: str):
        """Starts the server.

        Raises:
            InputError: the port is taken.
        """
        _require_free(address, port)  # viser would quietly take another
        import viser

        self._server = viser.ViserServer(host=address, port=port, label="Galatea", verbose=False)
        self._server.scene.set_up_direction(up)  # type: ignore[arg-type]
        self._server.scene.configure_default_lights()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop()

    def show(self, item: Item) -> None:
        """Adds something to the scene, with a checkbox that hides it."""
        name = f"/{item.name}"
        if isinstance(item.content, Gaussians):
            handle = self._server.scene.add_gaussian_splats(name, *splat_arrays(item.content))
        else:
            handle = self._server.scene.add_glb(name, gltf_write.to_bytes(item.content))
        box = self._server.gui.add_checkbox(item.name, initial_value=True, hint=item.summary)

        @box.on_update
        def _(_):
            handle.visible = box.value


def splat_arrays(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres, covariances, colours without view dependence, and opacities (a column), as viser takes them."""
    covariance = covariances(gaussians.quaternions, jnp.exp(gaussians.log_scales))
    colors = np.clip(0.5 + BAND_0 * np.asarray(gaussians.sh[:, 0]), 0.0, 1.0)
    opacities = jax.nn.sigmoid(gaussians.opacity_logits)[:, None]
    return np.asarray(gaussians.means), np.asarray(covariance), colors, np.asarray(opacities)


def _require_free(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise InputError(f"port {port} of {address} cannot be used ({error.strerror}); choose --port") from error
