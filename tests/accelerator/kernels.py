"""How far a backend is from gsplat's numbers, and from another backend on a large scene."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import scale, scenes
from renderers.gaussians import preflight
from renderers.kernels import tiling
from renderers.kernels.dispatch import Backend
from tests.renderers.gaussians import gsplat_files

# Unit of an error -> what is allowed. Two backends may take different branches at single pixels.
LIMITS = {
    "of 1": 2e-5,
    "of the largest entry": 2e-4,
    "of all pixels beyond 2e-5": 1e-4,
    "of 1, worst pixel": 2 / 255,
}


def right(
    backend: Backend, against: Backend, scene: scenes.Scene, poison_mib: int, names: tuple[str, ...] | None = None
) -> dict[str, tuple[float, str]]:
    """Name to (error, unit), the unit a key of `LIMITS`; files of gsplat's numbers by name, None for all committed."""
    rows: dict[str, tuple[float, str]] = {}
    for name in names or sorted(path.stem for path in gsplat_files.COMMITTED.glob("*.npz")):
        poison(poison_mib)
        for part, error in gsplat_files.errors(*gsplat_files.load(name), backend, "float32").items():
            unit = "of 1" if part in ("colors", "alphas") else "of the largest entry"
            rows[f"right/{backend}/{name}/{part}"] = (error, unit)
    prefix = f"right/{backend}_and_{against}/{scene.num_gaussians}"
    return rows | {f"{prefix}/{part}": row for part, row in _apart(backend, against, scene, poison_mib).items()}


def _apart(backend, against, scene, poison_mib):
    """Images of two backends pixel by pixel, and their gradients."""
    made = [_made(name, scene, poison_mib) for name in (backend, against)]
    (ours, our_slopes), (theirs, their_slopes) = made
    off = np.concatenate([np.abs(a - b).reshape(-1) for a, b in zip(ours, theirs, strict=True)])
    rows = {
        "pixels off": (_finite((off > 2e-5).mean(), off), "of all pixels beyond 2e-5"),
        "worst pixel": (_finite(off.max(), off), "of 1, worst pixel"),
    }
    for path, expected in jax.tree_util.tree_leaves_with_path(their_slopes):
        found = functools.reduce(lambda node, key: getattr(node, key.name), path[1:], our_slopes[path[0].idx])
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
        name = jax.tree_util.keystr(path[1:]).strip(".")
        rows[f"gradient of {name}"] = (_finite(error, found), "of the largest entry")
    return rows


def _finite(error, array) -> float:
    """The error, or infinity where the array has a NaN, which no limit lets pass."""
    return float(error) if np.isfinite(array).all() and np.isfinite(error) else float("inf")


def _made(backend, scene, poison_mib):
    """Color and alpha, and gradients of a squared error, on the host."""
    gaussians, camera = scenes.draw(scene)
    capacity = tiling.next_capacity(scale.intersections(scene, "xla"))
    programs = [
        jax.jit(preflight.program(gradients=gradients, capacity=capacity, backend=backend))
        for gradients in (False, True)
    ]
    target = jnp.full((*scene.size, 3), 0.5)
    poison(poison_mib)
    color, alpha, _ = jax.tree.map(np.asarray, programs[0](gaussians, camera))
    poison(poison_mib)
    _, slopes = jax.tree.map(np.asarray, programs[1](gaussians, camera, target))
    return (color, alpha), slopes


def poison(mib: int) -> None:
    """Fill device memory with NaN and free it: what is allocated next starts from NaN."""
    if mib:
        jax.block_until_ready(jnp.full((mib, 2**18), jnp.nan, jnp.float32))
