"""The host's derivatives of what pixels see, run alone, against JAX's of the plain definition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.triangle_raster import cpu, cpu_surface, surface
from tests.renderers.kernels.triangle_raster import scenes

PROJECTIONS = {
    "perspective": (cpu.PERSPECTIVE, "random"),
    "parallel": (cpu.PARALLEL, "random"),
    "spherical": (cpu.SPHERICAL, "around"),
}
TOLERANCE = 1e-4  # of each array's largest entry: sums are float32
_POSE = np.asarray([[0.8, -0.6, 0.0, 0.1], [0.48, 0.64, -0.6, -0.2], [0.36, 0.48, 0.8, 0.15]])  # a rotation and a shift


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Without LLVM's costly passes, as for the other kernels' tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def scene(projection):
    """World vertices, faces, index, rays and pose, and cotangents of shares, depth and normal; float32.

    Only pixels that see a face beyond doubt, all else is empty: there the definition has a derivative.
    """
    points, faces = scenes.scene(PROJECTIONS[projection][1])
    rays = scenes.rays(projection)
    allowed = scenes.allowed(points, faces, rays, projection)
    index = np.where(allowed.sum(-1) == 1, allowed.argmax(-1), len(faces))
    index = np.where(index < len(faces), index, -1).astype(np.int32)[::2, ::2]
    vertices = (points - _POSE[:, 3]) @ _POSE[:, :3]
    vertices, pose, rays = (np.ascontiguousarray(a, np.float32) for a in (vertices, _POSE, rays[::2, ::2]))
    rng = np.random.default_rng(0)
    cotangents = [rng.normal(size=(*index.shape, *rest)).astype(np.float32) for rest in ((3,), (), (3,))]
    return (vertices, faces, index, rays, pose), cotangents


@functools.cache
def expected(projection):
    """Gradients of vertices, rays and pose; then of values and shares."""
    (vertices, faces, index, rays, pose), cotangents = scene(projection)
    faces, index = jnp.asarray(faces), jnp.asarray(index)

    def run(vertices, rays, pose):
        return surface.surface(vertices, faces, index, rays, pose, projection)

    def blend(values, share):
        return surface.blend(values, faces, index, share)

    @jax.jit
    def gradients(vertices, rays, pose, cotangents):
        (share, _, _), pull = jax.vjp(run, vertices, rays, pose)
        _, pull_blend = jax.vjp(blend, vertices, share)
        return share, (*pull(tuple(cotangents)), *pull_blend(cotangents[2]))

    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (vertices, rays, pose, cotangents))
        return jax.tree.map(np.asarray, gradients(*arrays))


def largest_error(module, projection):
    """Of a module with `surface_gradients` and `blend_gradients`, relative to each array's largest entry."""
    (vertices, faces, index, rays, pose), (g_share, g_depth, g_normal) = scene(projection)
    share, wanted = expected(projection)
    found = [np.full(np.shape(a), np.nan, np.float32) for a in wanted]
    flat, given = index.reshape(-1), [a.reshape(-1, 3) for a in (rays, g_share, g_normal)]
    module.surface_gradients(
        vertices, faces, flat, given[0], pose, PROJECTIONS[projection][0], given[1], g_depth.reshape(-1), given[2],
        found[0], found[1].reshape(-1, 3), found[2],
    )  # fmt: skip
    share = share.astype(np.float32).reshape(-1, 3)
    module.blend_gradients(vertices, faces, flat, share, given[2], found[3], found[4].reshape(-1, 3))
    errors = [np.abs(one - truth).max() / np.abs(truth).max() for one, truth in zip(found, wanted, strict=True)]
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))


@pytest.mark.parametrize("projection", [pytest.param("perspective", marks=pytest.mark.slow), "parallel", "spherical"])
def test_agrees_with_the_definition(projection):
    assert (scene(projection)[0][2] >= 0).sum() > 40
    assert largest_error(cpu_surface, projection) < TOLERANCE
