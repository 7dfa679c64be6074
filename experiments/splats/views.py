"""The photographs and cameras of a fit: which view each step sees, and where its arrays lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import keys
from experiments.data.capture_record import Capture
from experiments.data.holdout import split_holdout
from experiments.errors import InputError
from experiments.splats.field_stop import FieldStop, estimate, open_stop
from experiments.splats.scene import Normalisation, cameras
from experiments.splats.settings import FitConfig
from experiments.splats.training import Batch
from renderers.cameras.camera import Camera, crop


@dataclasses.dataclass(frozen=True)
class Views:
    """Cameras in the normalised frame, photographs with their field stops and their division into training and test."""

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    cameras: tuple[Camera, ...]
    stops: tuple[FieldStop, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    white: bool


def divide(capture: Capture, frame: Normalisation, config: FitConfig) -> Views:
    """Training and test views of a capture.

    Raises:
      InputError: a name is unknown, nothing is left to train on, or a batch would mix image sizes.
    """
    default = "" if capture.test_names else "8"
    holdout = default if config.holdout is None else config.holdout
    train, test = split_holdout(capture.names, holdout, capture.test_names)
    shapes = {capture.images[i].shape for i in train}
    if config.batch > 1 and len(shapes) > 1:
        raise InputError(f"the training images have {len(shapes)} different sizes: choose --batch=1")
    stops = {
        shape: estimate([capture.images[i] for i in train if capture.images[i].shape == shape]) for shape in shapes
    }
    return Views(
        names=capture.names,
        images=capture.images,
        cameras=tuple(cameras(capture, frame)),
        stops=tuple(stops.get(image.shape) or open_stop(image.shape[:2]) for image in capture.images),
        train=tuple(int(i) for i in train),
        test=tuple(int(i) for i in test),
        white=config.background == "white" or (config.background == "auto" and capture.white_background),
    )


class Batches:
    """The batch of each step: a function of seed and step alone, so that it resumes without a cursor.

    Args:
      views: what to draw from.
      config: seed and batch size; an epoch sees each training view once.
      mesh: devices to split the views over, or None.

    Raises:
      InputError: the batch does not divide over the devices.
    """

    def __init__(self, views: Views, config: FitConfig, mesh: Mesh | None) -> None:
        if mesh is not None and config.batch % mesh.size:
            raise InputError(f"--batch={config.batch} does not divide over {mesh.size} devices; choose a multiple")
        self._train, self._seed, self._batch = views.train, config.seed, config.batch
        self._photographs = {i: _lit_part(views, i) for i in views.train}
        self._sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def indices(self, step: int) -> list[int]:
        """Views of a step."""
        positions = range(step * self._batch, (step + 1) * self._batch)
        return [self._train[keys.index_at(self._seed, at, len(self._train))] for at in positions]

    def __call__(self, step: int) -> Batch:
        """Images and cameras of a step, on the host, or spread over the mesh."""
        chosen = [self._photographs[i] for i in self.indices(step)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[camera for _, camera in chosen])
        return Batch(
            images=self._put(np.stack([image for image, _ in chosen])), cameras=jax.tree.map(self._put, stacked)
        )

    def _put(self, leaf: np.ndarray) -> jax.Array:
        if self._sharding is None:
            return jnp.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, self._sharding, lambda index: leaf[index])


def _lit_part(views: Views, index: int) -> tuple[np.ndarray, Camera]:
    """A photograph without the rim of its field stop, which no scene explains, and the camera of that part."""
    (top, bottom), (left, right) = views.stops[index].inside
    camera = crop(views.cameras[index], top, left, (bottom - top, right - left))
    camera = jax.tree.map(np.asarray, camera)
    return views.images[index][top:bottom, left:right], camera
