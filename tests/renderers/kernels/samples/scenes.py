"""Positions of all kinds over the scenes of compositing, and cotangents that keep off its discontinuities."""

import numpy as np

from tests.renderers.kernels.composite import brute_force
from tests.renderers.kernels.composite import scenes as lattice

SIZE = lattice.SIZE
NUM = 230


def positions(seed: int = 0, count: int = NUM, size: tuple[int, int] = SIZE) -> np.ndarray:
    """float32 [count, 2]: anywhere, a crowd in one tile, centres, repetitions, borders, outside, not finite."""
    rng = np.random.default_rng(seed)
    extent = np.asarray(size)[::-1]
    at = rng.uniform(0, 1, (count, 2)) * extent
    at[20:120] = rng.uniform(17, 31, (100, 2))
    at[120:140] = np.floor(at[120:140]) + 0.5
    at[140:145] = at[20]
    at[145:150] = [[0, 0], [16, 16], extent - 0.01, [31.999, 3], [70, 0]]
    at[150:156] = [[-0.01, 5], [5, -1e9], [extent[0], 5], [5, extent[1]], [1e12, 1e12], [71.5, 46]]
    at[156:160] = [[np.nan, 5], [5, np.nan], [np.inf, 5], [5, -np.inf]]
    return at.astype(np.float32)


def inside(at: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.isfinite(at).all(1) & (at >= 0).all(1) & (at < np.asarray(size)[::-1]).all(1)


def oracle(scene: dict[str, np.ndarray], at: np.ndarray, size: tuple[int, int] = SIZE) -> brute_force.Blended:
    """Brute force at positions; nothing is seen outside the image."""
    held = inside(at, size)
    x, y = np.where(held[:, None], at, 0.0).astype(np.float64).T
    seen = brute_force.blend_at(scene, x, y)
    seen.image[~held], seen.transmittance[~held], seen.weights[:, ~held] = 0, 1, 0
    for margin in (seen.margin, seen.clamp_margin):
        margin[~held] = np.inf
    seen.rounding[~held] = 0
    return seen


def safe(seen: brute_force.Blended) -> np.ndarray:
    """Where rounding changes no branch."""
    return (seen.margin > lattice.MARGIN) & (seen.rounding < lattice.ROUNDING)


def cotangents(seen: brute_force.Blended, seed: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Of values and transmittance, zero where rounding could change a branch."""
    rng = np.random.default_rng(seed)
    smooth = safe(seen) & (seen.clamp_margin > lattice.CLAMP_MARGIN)
    values = rng.normal(size=seen.image.shape) * smooth[..., None]
    return values.astype(np.float32), (rng.normal(size=smooth.shape) * smooth).astype(np.float32)
