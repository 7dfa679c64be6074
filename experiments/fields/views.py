"""The photographs and cameras of a field fit, and the rays that each step draws from them."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from experiments import keys
from experiments.data.capture_record import Capture
from experiments.data.holdout import split_holdout
from experiments.errors import InputError
from experiments.fields.settings import FieldConfig
from experiments.fields.space import Space, has_alpha
from experiments.splats.field_stop import FieldStop, estimate, open_stop
from experiments.splats.scene import cameras
from renderers.cameras.camera import Camera
from renderers.cameras.rays import camera_rays

_RIM = 0.06  # of the image's longer side around a silhouette that is still drawn from


@dataclasses.dataclass(frozen=True)
class Views:
    """Cameras in the normalised frame, photographs with their field stops and their division into training and test.

    `background` is the grey that tested pictures stand on, `masked` whether the images have an alpha channel.
    """

    names: tuple[str, ...]
    images: tuple[UInt8[np.ndarray, "h w c"], ...]
    cameras: tuple[Camera, ...]
    stops: tuple[FieldStop, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    background: float
    masked: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class RayBatch:
    """Pixels of one step.

    Attributes:
      pixels: Float["r 2"], centres (column, row).
      views: Int["r"], indices into the stacked cameras.
      colors: UInt8["r c"], straight alpha if c is 4.
    """

    pixels: Float[Array, "r 2"]
    views: Int[Array, " r"]
    colors: UInt8[Array, "r c"]


def split(capture: Capture, config: FieldConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of training and test views.

    Raises:
      InputError: a name is unknown, or nothing is left to train on.
    """
    default = "" if capture.test_names else "8"
    holdout = default if config.holdout is None else config.holdout
    train, test = split_holdout(capture.names, holdout, capture.test_names)
    return tuple(int(i) for i in train), tuple(int(i) for i in test)


def divide(capture: Capture, space: Space, config: FieldConfig) -> Views:
    """The views of a capture in a normalised frame; field stops are estimated from the training views."""
    train, test = split(capture, config)
    shapes = {capture.images[i].shape for i in train}
    stops = {
        shape: estimate([capture.images[i] for i in train if capture.images[i].shape == shape]) for shape in shapes
    }
    white = config.background == "white" or (config.background in ("auto", "random") and capture.white_background)
    return Views(
        names=capture.names,
        images=capture.images,
        cameras=tuple(cameras(capture, space.frame)),
        stops=tuple(stops.get(image.shape) or open_stop(image.shape[:2]) for image in capture.images),
        train=train,
        test=test,
        background=float(white),
        masked=has_alpha(capture),
    )


def stacked(views: Views) -> Camera:
    """All cameras as one record of stacked arrays, on the host; the size is the first one's and means nothing.

    Lens coefficients that all views share are not stacked: the fold of the lens is then looked for once, not for each
    ray (60 times the rays' own cost).
    """
    like = views.cameras[0]
    arrays = [dataclasses.replace(camera, size=like.size, distortion=None) for camera in views.cameras]
    lenses = None if like.distortion is None else np.stack([np.asarray(camera.distortion) for camera in views.cameras])
    if lenses is not None and (lenses == lenses[:1]).all():
        lenses = lenses[0]
    return dataclasses.replace(jax.tree.map(lambda *leaves: np.stack(leaves), *arrays), distortion=lenses)


def batch_rays(cameras: Camera, batch: RayBatch) -> tuple[Float[Array, "r 3"], Float[Array, "r 3"]]:
    """Origins and unit directions of a batch, exactly through its lenses."""
    chosen = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else leaf[batch.views], cameras)
    axes = jax.tree.map(lambda leaf: None if leaf.ndim == 1 else 0, cameras)
    rays = jax.vmap(camera_rays, in_axes=(axes, 0))(chosen, batch.pixels)
    return rays.origins, rays.directions


class Batches:
    """The rays of each step: a function of seed, step and number alone, so that they resume without a cursor.

    Pixels are drawn evenly, with replacement. With silhouettes those far outside are left out: where the hull is empty
    a ray meets nothing that could learn from it.

    Args:
      views: what to draw from.
      seed: of the run.
      mesh: devices to split the rays over, or None.

    Raises:
      InputError: all pixels of all training views are transparent.
    """

    def __init__(self, views: Views, seed: int, mesh: Mesh | None) -> None:
        self._seed = seed
        images = [views.images[i] for i in views.train]
        kept = [image if views.masked else _opaque(image, views.background) for image in images]
        self._colors = np.concatenate([image.reshape(-1, image.shape[-1]) for image in kept])
        self._starts = np.cumsum([0, *(image.shape[0] * image.shape[1] for image in images)])
        self._widths = np.array([image.shape[1] for image in images])
        self._views = np.array(views.train, np.int32)
        drawn = np.concatenate([_drawn(views, i).ravel() for i in views.train])
        self._pool = None if drawn.all() else np.flatnonzero(drawn)
        if not drawn.any():
            raise InputError("all training images are transparent throughout; nothing is there to fit")
        self._sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def __call__(self, step: int, number: int) -> RayBatch:
        """`number` rays of a step, on the host, or spread over the mesh."""
        raw = keys.host_rng(self._seed, "rays", step).bit_generator.random_raw(number)
        among = len(self._colors) if self._pool is None else len(self._pool)
        at = (raw % np.uint64(among)).astype(np.int64)
        at = at if self._pool is None else self._pool[at]
        image = np.searchsorted(self._starts, at, side="right") - 1
        row, column = np.divmod(at - self._starts[image], self._widths[image])
        pixels = np.stack([column, row], -1).astype(np.float32) + np.float32(0.5)
        put = self._put
        return RayBatch(pixels=put(pixels), views=put(self._views[image]), colors=put(self._colors[at]))

    def _put(self, leaf: np.ndarray) -> jax.Array:
        if self._sharding is None:
            return jnp.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, self._sharding, lambda index: leaf[index])


def _opaque(image: np.ndarray, background: float) -> np.ndarray:
    """An image over a grey, where it has an alpha channel after all."""
    if image.shape[-1] == 3:
        return image
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.round(image[..., :3] * alpha + 255 * background * (1 - alpha)).astype(np.uint8)


def _drawn(views: Views, index: int) -> np.ndarray:
    """Pixels of a view that are worth drawing: lit through its field stop, and in or near the silhouette."""
    image, (rows, columns) = views.images[index], views.stops[index].inside
    drawn = np.zeros(image.shape[:2], bool)
    drawn[slice(*rows), slice(*columns)] = True
    if views.masked:
        reach = 2 * int(np.ceil(_RIM * max(image.shape[:2]))) + 1
        drawn &= scipy.ndimage.maximum_filter(image[..., 3], size=reach) > 0
    return drawn
