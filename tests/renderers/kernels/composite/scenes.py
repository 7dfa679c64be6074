"""Small scenes of 2D Gaussians that reach every branch of compositing, and cotangents that keep off its
discontinuities.
"""

import numpy as np

from renderers.kernels.composite.shapes import box_extents, conics_of, ellipse_covariances
from tests.renderers.kernels.composite import brute_force

SIZE = (45, 71)  # 3 x 5 tiles, the last row and column cut
NUM = 320
MARGIN = 2e-4  # relative distance to a threshold below which a float32 run may take the other branch (fixtures' README)
CLAMP_MARGIN = 2e-5  # the same for the clamp at 0.99, decided one product away from the inputs
ROUNDING = 4e-5  # error of sigma, that is relative error of alpha, beyond which float32 says little at a pixel


def random_scene(seed: int = 0, channels: int = 3, n: int = NUM, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Ellipses of all shapes, opacities from invisible to clamped; some centres lie outside the image."""
    rng = np.random.default_rng(seed)
    return scene_of(
        means2d=rng.uniform(-6, 6, (n, 2)) + rng.uniform(0, 1, (n, 2)) * np.asarray(size)[::-1],
        scales=np.exp(rng.normal(np.log(2.5), 0.7, (n, 2))),
        angles=rng.uniform(0, np.pi, n),
        opacities=1 / (1 + np.exp(-rng.normal(0.5, 2.0, n))),
        features=rng.normal(0.3, 1.0, (n, channels)),
        depths=rng.uniform(1, 10, n),
    )


def scene_of(*, means2d, scales, angles, opacities, features, depths, blur=0.3) -> dict[str, np.ndarray]:
    """The arguments of `api.composite` rounded to float32; the boxes are those of the unrounded ellipses."""
    covariances = ellipse_covariances(scales, angles, blur)
    arrays = {
        "means2d": means2d,
        "conics": conics_of(covariances),
        "opacities": opacities,
        "features": features,
        "extents": box_extents(covariances, opacities) * (1 + 1e-6),
        "depths": depths,
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def ties(seed: int = 1) -> dict[str, np.ndarray]:
    """Five depths only, zero with both signs among them: the order given decides."""
    scene = random_scene(seed)
    rng = np.random.default_rng(seed + 100)
    scene["depths"] = rng.choice(np.asarray([-2.5, -0.0, 0.0, 1.0, 3.0], np.float32), len(scene["depths"]))
    return scene


def saturating(seed: int = 2) -> dict[str, np.ndarray]:
    """Stacks of nearly opaque Gaussians: clamped alphas and pixels that stop early."""
    scene = random_scene(seed)
    rng = np.random.default_rng(seed + 100)
    n = len(scene["depths"])
    return scene_of(
        means2d=scene["means2d"],
        scales=rng.uniform(3, 12, (n, 2)),
        angles=rng.uniform(0, np.pi, n),
        opacities=rng.choice([0.6, 0.9, 0.97, 0.995, 1.0], n),
        features=scene["features"],
        depths=scene["depths"],
    )


def degenerate(seed: int = 3) -> dict[str, np.ndarray]:
    """Needles, discs wider than the image, culled entries, opacities at the threshold, far centres, zero opacity."""
    scene = random_scene(seed)
    rng = np.random.default_rng(seed + 100)
    n = len(scene["depths"])
    scales, angles = np.exp(rng.normal(1.0, 0.7, (n, 2))), rng.uniform(0, np.pi, n)
    means, opacities = scene["means2d"].astype(np.float64), scene["opacities"].astype(np.float64)
    scales[:20, 0], scales[:20, 1] = 1e3, 1e-3  # needles across the image
    angles[:20] = np.where(np.arange(20) < 17, np.arange(20) % 2 * np.pi / 2, angles[:20])  # three of them oblique
    scales[20:30], opacities[20:30] = 1e4, 0.05  # discs wider than the image
    scales[30:40] = 1e-6  # only the blur is left
    opacities[40:44] = 0.98 / 255, 1.03 / 255, 0.0, 1.0
    means[50:60] = [1e5, -1e5]
    scales[60], means[60], opacities[60] = 1e6, [3e6, 1e6], 0.3  # a far centre whose body still covers the image
    scene = scene_of(
        means2d=means,
        scales=scales,
        angles=angles,
        opacities=opacities,
        features=scene["features"],
        depths=scene["depths"],
    )
    for name in ("means2d", "conics", "opacities", "extents", "depths"):
        scene[name][70:90] = 0.0  # what projection leaves of culled Gaussians
    scene["opacities"][90:95] = 0.0  # dropped by opacity although their box is not empty
    return scene


def one_tile(seed: int = 4, n: int = NUM) -> dict[str, np.ndarray]:
    """All Gaussians in the middle of one tile, faint enough that the pixels go on to the end."""
    rng = np.random.default_rng(seed)
    return scene_of(
        means2d=rng.uniform(22, 26, (n, 2)),
        scales=rng.uniform(0.2, 0.8, (n, 2)),
        angles=rng.uniform(0, np.pi, n),
        opacities=rng.uniform(0, 0.1, n),
        features=rng.normal(0.3, 1.0, (n, 3)),
        depths=rng.uniform(1, 10, n),
    )


def safe_cotangents(
    scene: dict[str, np.ndarray], size: tuple[int, int] = SIZE, seed: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random cotangents of image and transmittance, zero where rounding could change a branch; and the mask
    of the rest.
    """
    rng = np.random.default_rng(seed)
    oracle = brute_force.blend(scene, size)
    safe = (oracle.margin > MARGIN) & (oracle.rounding < ROUNDING)
    smooth = safe & (oracle.clamp_margin > CLAMP_MARGIN)
    image = rng.normal(size=oracle.image.shape) * smooth[..., None]
    return image.astype(np.float32), (rng.normal(size=size) * smooth).astype(np.float32), safe
