"""Real lenses, scenes spread over what they see, and two images to compare with that know nothing of projection.

`warped` renders an ideal pinhole (or the faces of a cube) densely and resamples it along the lens's own lines of sight.
Resampling costs nothing that counts: at 3 or more samples a pixel a Gaussian of one pixel's deviation has no energy
near the sampling limit, and cubic interpolation leaves below 1e-4 of it (80 dB). The blur is that of the final
pixels, so that both images hold the same ellipses; what differs is how a lens bends them within their own width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from renderers.cameras import camera as cameras
from renderers.cameras.camera import Camera
from renderers.gaussians.rasterize import rasterize
from tests.renderers.gaussians.scenes import NAMES

# COLMAP's camera of the fox capture (OPENCV model), shared/data/captures/fox/sparse/0/cameras.bin, 1080 x 1920 pixels.
FOX = dict(
    focal=(1376.8949426027364, 1377.678019481202),
    principal=(540.0, 960.0),
    size=(1920, 1080),
    distortion=(0.0580539123879614, -0.07934368659463734, -0.002630821324283502, -0.0024395187962242735),
)
# cam0 of the TUM VI benchmark (arXiv 1804.06120), 512 x 512 pixels: 76 degrees to the sides, 108 into the corners.
TUM_VI = dict(
    focal=(190.97847715128717, 190.9733070521226),
    principal=(254.93170605935475, 256.8974428996504),
    size=(512, 512),
    distortion=(0.0034823894022493434, 0.0007150348452162257, -0.0020532361418706202, 0.00020293673591811182),
)


def lens(model: str, numbers: dict, scale: float = 1.0, pose=None, dtype=np.float32) -> Camera:
    """A camera of one of the lenses above, its image `scale` times as large."""
    pose = np.eye(4) if pose is None else pose
    whole = Camera(
        jnp.asarray(pose, dtype),
        jnp.asarray(numbers["focal"], dtype),
        jnp.asarray(numbers["principal"], dtype),
        numbers["size"],
        model,
        jnp.asarray(numbers["distortion"], dtype),
    )
    height, width = numbers["size"]
    return cameras.resize(whole, (round(height * scale), round(width * scale)))


def sight(camera: Camera, samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Directions in the camera frame of `samples` x `samples` points in every pixel, float64; which the lens sees."""
    height, width = camera.size
    offsets = (np.arange(samples) + 0.5) / samples
    columns, rows = ((np.arange(n)[:, None] + offsets).ravel() for n in (width, height))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), camera)
        pixels = jnp.asarray(np.stack(np.meshgrid(columns, rows), -1))
        return tuple(map(np.asarray, jax.jit(cameras.viewing_directions)(wide, pixels)))


def spread(camera: Camera, n: int, deviation: float, seed: int = 0) -> dict[str, jax.Array]:
    """Gaussians all over the image, at distances of 2 to 6, their deviations around that many pixels at the centre."""
    rng = np.random.default_rng(seed)
    height, width = camera.size
    pixels = jnp.asarray(rng.uniform(-0.02, 1.02, (n, 2)) * [width, height], jnp.float32)
    directions = np.asarray(jax.jit(cameras.viewing_directions)(camera, pixels)[0])
    distances = rng.uniform(2, 6, (n, 1))
    arrays = {
        "means": directions * distances,
        "quaternions": rng.normal(size=(n, 4)),
        "scales": np.exp(rng.normal(np.log(deviation), 0.4, (n, 3))) / float(camera.focal.mean()) * distances,
        "opacities": rng.uniform(0.3, 0.95, n),
        "colors": rng.uniform(0, 1, (n, 3)),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


@functools.partial(jax.jit, static_argnames=("blur",))
def image(arrays, camera, blur: float = 0.3):
    """Colours and alpha as one image of 4 channels."""
    seen = rasterize(*(arrays[name] for name in NAMES), camera, blur=blur)
    return jnp.concatenate([seen.color, seen.alpha[..., None]], -1)


def warped(arrays, camera: Camera, density: int = 3, blur: float = 0.3, samples: int = 1) -> np.ndarray:
    """A pinhole image of `density` pixels a pixel along each axis, looked up along the lines of sight of the camera.

    With `samples` above 1 the mean of that many squared points of each pixel: a box filter. It has a variance of 1/12
    pixel^2, by which the dense image is blurred less.
    """
    directions, _ = sight(camera, samples)
    blur = blur - (1 / 12 if samples > 1 else 0.0)
    out = _looked_up(
        arrays, camera.camera_from_world, directions, np.asarray(camera.focal) * density, blur * density**2
    )
    height, width = camera.size
    return out.reshape(height, samples, width, samples, 4).mean((1, 3))


def warped_cube(arrays, camera: Camera, density: int = 3) -> np.ndarray:
    """The same from the faces of a cube, for lenses that see more than half the world; alpha alone, and no blur.

    Each face orders Gaussians by its own z, which changes colours but not alpha.
    """
    directions, _ = sight(camera)
    out = np.zeros(camera.size)
    turned = [directions @ turn.T for turn in _FACES]
    face = np.argmax([d[..., 2] for d in turned], 0)
    for number, turn in enumerate(_FACES):
        mine = face == number
        if mine.any():
            pose = np.eye(4)
            pose[:3, :3] = turn
            pose = pose @ np.asarray(camera.camera_from_world, np.float64)
            focal = np.asarray(camera.focal) * density
            out[mine] = _looked_up(arrays, pose, turned[number][mine], focal, 0.0, whole_face=True)[:, 3]
    return out


_FACES = [
    Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    for turn in [(0, 0, 0), (0, 90, 0), (0, -90, 0), (90, 0, 0), (-90, 0, 0), (0, 180, 0)]
]


def _looked_up(arrays, pose, directions, focal, blur, whole_face=False):
    plane = directions[..., :2] / directions[..., 2:]
    corners = np.asarray([[-1.0, -1], [1, 1]]) if whole_face else plane.reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    margin = 4  # for the interpolation's support
    principal = margin - low * focal
    width, height = (np.ceil((high - low) * focal).astype(int) + 2 * margin).tolist()
    numbers = (jnp.asarray(value, jnp.float32) for value in (pose, focal, principal))
    dense = np.asarray(image(arrays, Camera(*numbers, (height, width)), blur=float(blur)), np.float64)
    at = plane * focal + principal - 0.5
    channels = [ndimage.map_coordinates(dense[..., c], [at[..., 1], at[..., 0]], order=3) for c in range(4)]
    return np.stack(channels, -1)


def ideal(camera: Camera) -> Camera:
    """The camera without its distortion."""
    return dataclasses.replace(camera, distortion=None)


def decibels(a, b) -> float:
    """PSNR for a peak of 1."""
    return float(-10 * np.log10(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)))
