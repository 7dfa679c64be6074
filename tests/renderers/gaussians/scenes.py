"""Small 3D scenes and cameras for the tests of the rasterizer."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians

SIZE = (30, 41)  # 2 x 3 tiles, the last row and column cut
NAMES = ("means", "quaternions", "scales", "opacities", "colors")


def splats(n: int = 40, channels: int = 3, seed: int = 0, dtype=np.float32) -> dict[str, jax.Array]:
    """The five arrays of `rasterize`: Gaussians about the origin, visible from `camera()`, no two of one depth."""
    rng = np.random.default_rng(seed)
    arrays = {
        "means": rng.uniform(-1, 1, (n, 3)),
        "quaternions": rng.normal(size=(n, 4)),
        "scales": np.exp(rng.normal(-1.8, 0.5, (n, 3))),
        "opacities": rng.uniform(0.1, 0.95, n),
        "colors": rng.uniform(0, 1, (n, channels)),
    }
    return {name: jnp.asarray(array, dtype) for name, array in arrays.items()}


def camera(model: str = "pinhole", size: tuple[int, int] = SIZE, turn: float = 0.3, dtype=np.float32) -> Camera:
    """A camera 4 units off the origin that looks at it, its principal point off the centre, its pixels not square."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [0.2, turn, 0.1]).as_matrix()
    pose[:3, 3] = [0.1, -0.05, 4.0]
    focal = {"pinhole": 50.0, "fisheye": 55.0, "orthographic": 13.0}[model]
    center = np.asarray(size)[::-1] / 2
    intrinsics = (np.asarray([focal, 1.1 * focal]), center + [1.3, -0.7])
    return Camera(jnp.asarray(pose, dtype), *(jnp.asarray(a, dtype) for a in intrinsics), size, model)


def gaussians(n: int = 40, degree: int = 1, seed: int = 0, dtype=np.float32) -> Gaussians:
    """The same kind of scene as a record."""
    arrays = splats(n, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed + 1)
    return Gaussians(
        means=arrays["means"],
        quaternions=arrays["quaternions"],
        log_scales=jnp.log(arrays["scales"]),
        opacity_logits=jnp.log(arrays["opacities"] / (1 - arrays["opacities"])),
        sh=jnp.asarray(rng.normal(0, 0.5, (n, (degree + 1) ** 2, 3)), dtype),
    )
