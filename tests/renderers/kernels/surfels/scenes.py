"""Small scenes of surfels that reach every branch of compositing, and cotangents that keep off its discontinuities."""

import numpy as np

from renderers.kernels.surfels.shapes import boxes_of, transforms_of
from tests.renderers.kernels.surfels import brute_force

SIZE = (45, 71)  # 3 x 5 tiles, the last row and column cut
NUM = 200
FOCAL = 60.0
MARGIN = 2e-4  # relative distance to a threshold below which a float32 run may take the other branch
SMOOTH_MARGIN = 2e-5  # the same for what only breaks gradients, decided a few roundings away from the inputs
ROUNDING = 1e-3  # worst-case error of sigma beyond which float32 says little at a pixel; 100 times what is seen


def random_scene(seed: int = 0, channels: int = 3, n: int = NUM, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Discs of all orientations, sizes from below the filter's, opacities from invisible to clamped."""
    return scene_of(**random_surfels(seed, channels, n, size), size=size)


def random_surfels(seed: int, channels: int = 3, n: int = NUM, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return dict(
        pixels=rng.uniform(-6, 6, (n, 2)) + rng.uniform(0, 1, (n, 2)) * np.asarray(size)[::-1],
        scales=np.exp(rng.normal(np.log(3.0), 0.8, (n, 2))),
        frames=np.linalg.qr(rng.normal(size=(n, 3, 3)))[0],
        opacities=1 / (1 + np.exp(-rng.normal(0.5, 2.0, n))),
        features=rng.normal(0.3, 1.0, (n, channels)),
        depths=rng.uniform(1, 10, n),
    )


def scene_of(*, pixels, scales, frames, opacities, features, depths, size=SIZE) -> dict[str, np.ndarray]:
    """The arguments of `api.composite_surfels`, rounded to float32.

    Args:
      pixels: [n, 2], of the surfels' centres.
      scales: [n, 2], standard deviations in pixels, of a surfel seen frontally.
      frames: [n, 3, 3], columns the two axes and the normal in the camera's frame.
      opacities, features, depths: of the surfels.
      size: image (height, width).
    """
    axes = frames[:, :, :2] * (scales * depths[:, None] / FOCAL)[:, None, :]
    transforms = transforms_of(pixels, depths, axes, FOCAL, size).astype(np.float32)
    means, radii = boxes_of(transforms)
    arrays = dict(transforms=transforms, means2d=means, opacities=opacities, features=features, depths=depths)
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()} | {"radii": radii}


def ties(seed: int = 1) -> dict[str, np.ndarray]:
    """Five depths only, zero with both signs among them: the order given decides."""
    scene = random_scene(seed)
    rng = np.random.default_rng(seed + 100)
    scene["depths"] = rng.choice(np.asarray([-2.5, -0.0, 0.0, 1.0, 3.0], np.float32), len(scene["depths"]))
    return scene


def saturating(seed: int = 2) -> dict[str, np.ndarray]:
    """Stacks of nearly opaque surfels: clamped alphas and pixels that stop early."""
    surfels = random_surfels(seed)
    rng = np.random.default_rng(seed + 100)
    n = len(surfels["depths"])
    surfels["scales"] = rng.uniform(3, 12, (n, 2))
    surfels["opacities"] = rng.choice([0.6, 0.9, 0.97, 0.995, 1.0], n)
    return scene_of(**surfels)


def degenerate(seed: int = 3) -> dict[str, np.ndarray]:
    """Points, lines, needles, edge-on discs, discs that reach behind the camera, culled ones, threshold opacities."""
    surfels = random_surfels(seed)
    scales, frames, opacities, depths = (surfels[name] for name in ("scales", "frames", "opacities", "depths"))
    scales[:10], scales[10:20, 0], scales[20:24] = 0.0, 0.0, 1e-4
    scales[24:34, 0], scales[24:34, 1] = 300.0, 0.3  # needles
    frames[24:30] = np.eye(3)
    for i in range(34, 44):  # edge-on: the first axis along the ray
        middle = np.asarray(SIZE[::-1]) / 2
        ray = np.append((surfels["pixels"][i] - middle) / FOCAL, 1.0)
        frames[i] = np.linalg.qr(np.stack([ray, frames[i, :, 1], frames[i, :, 2]], 1))[0]
    scales[44:50], opacities[44:50] = 4e3, 0.2  # larger than their distance: part of each is behind the camera
    opacities[50:54] = 0.98 / 255, 1.03 / 255, 0.0, 1.0
    surfels["pixels"][54:58] = [1e5, -1e5]
    scene = scene_of(**surfels)
    for name in ("transforms", "means2d", "opacities", "depths", "radii"):
        scene[name][60:75] = 0  # what projection leaves of culled surfels
    return scene


def one_tile(seed: int = 4, n: int = NUM) -> dict[str, np.ndarray]:
    """All surfels in the middle of one tile, faint enough that the pixels go on to the end."""
    surfels = random_surfels(seed, n=n)
    rng = np.random.default_rng(seed + 100)
    surfels["pixels"], surfels["scales"] = rng.uniform(22, 26, (n, 2)), rng.uniform(0.5, 1.2, (n, 2))
    surfels["opacities"] = rng.uniform(0, 0.1, n)
    return scene_of(**surfels)


SCENES = {
    "random": random_scene,
    "ties": ties,
    "saturating": saturating,
    "degenerate": degenerate,
    "one_tile": one_tile,
}


def safe_cotangents(
    scene: dict[str, np.ndarray], size: tuple[int, int] = SIZE, seed: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random cotangents of image and planes, zero where rounding could change a branch; and the mask of the rest."""
    rng = np.random.default_rng(seed)
    oracle = brute_force.blend(scene, size)
    safe = (np.minimum(oracle.margin, oracle.median_margin) > MARGIN) & (oracle.rounding < ROUNDING)
    smooth = (safe & (oracle.smooth_margin > SMOOTH_MARGIN))[..., None]
    draws = (rng.normal(size=a.shape) * smooth for a in (oracle.image, oracle.planes))
    return *(d.astype(np.float32) for d in draws), safe
