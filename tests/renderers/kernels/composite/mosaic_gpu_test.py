"""The Mosaic twin of the forward pass: against the reference in JAX's simulation of a GPU, and lowered for CUDA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from renderers.kernels import tiling
from renderers.kernels.composite import mosaic_gpu, reference
from tests.renderers.kernels.composite import scenes

SIZE = (15, 56)  # 4 tiles
CHUNK = 3
CAPACITY = 512


def arguments(scene):
    arrays = {name: jnp.asarray(array, jnp.float32) for name, array in scene.items()}
    lists = tiling.bin_gaussians(arrays["means2d"], arrays["extents"], arrays["depths"], SIZE, CAPACITY)
    assert lists.overflow == 0
    return (arrays["means2d"], arrays["conics"], arrays["opacities"], arrays["features"], lists)


def expected(scene, mask):
    with jax.enable_x64(True):
        given = {name: jnp.asarray(array, jnp.float64) for name, array in scene.items()}
        dropped = jnp.where(given["extents"][:, 0] > 0, given["opacities"], 0.0)
        probe = jnp.zeros_like(given["means2d"])
        return jax.tree.map(
            np.asarray,
            reference.composite(
                given["means2d"], given["conics"], dropped, given["features"], probe, given["depths"], mask, SIZE
            ),
        )


def crowded_scene():
    """A stack that stops its tile with the next chunk on its way, fainter tiles beside it, an empty one, and culled."""
    rng = np.random.default_rng(3)
    front, behind = 24, 8
    scene = scenes.scene_of(
        means2d=np.concatenate([np.full((front, 2), 8.0), rng.uniform(0, 26, (behind, 2))]),
        scales=np.concatenate([np.full((front, 2), 9.0), rng.uniform(1, 3, (behind, 2))]),
        angles=rng.uniform(0, np.pi, front + behind),
        opacities=np.concatenate([[1.0], np.linspace(0.97, 0.94, front - 1), rng.uniform(0.2, 0.9, behind)]),
        features=rng.normal(0.3, 1.0, (front + behind, 3)),
        depths=np.concatenate([np.linspace(1, 2, front), rng.uniform(3, 4, behind)]),
    )
    scene["extents"][-1] = 0.0
    return scene


def test_equals_the_reference_in_the_simulated_gpu():
    pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params", reason="this JAX simulates GPUs elsewhere")
    scene = crowded_scene()
    mask = jnp.ones(SIZE, bool).at[10:14, 5:20].set(False)
    given = arguments(scene)
    counts = np.diff(given[4].offsets)
    assert counts[0] > 24 + CHUNK and counts[1] > 2 * CHUNK and counts[3] == 0, counts
    run = jax.jit(lambda *a: mosaic_gpu.forward(*a, mask, SIZE, chunk=CHUNK, interpret=True))
    image, transmittance = run(*given)
    true_image, true_transmittance = expected(scene, mask)
    assert true_transmittance[~np.asarray(mask)].min() == 1
    assert true_transmittance[:, :16][np.asarray(mask)[:, :16]].max() < 1e-2, "the first tile must stop"
    safe = scenes.safe_cotangents(scene, SIZE)[-1]
    assert safe.mean() > 0.7
    assert np.abs(image - true_image)[safe].max() <= 1e-5
    assert np.abs(transmittance - true_transmittance)[safe].max() <= 1e-5


@pytest.mark.parametrize(("channels", "passes", "x64"), [(3, 1, False), (16, 1, True), (40, 2, False)])
def test_lowers_for_cuda(channels, passes, x64):
    given = arguments(scenes.random_scene(seed=4, n=40, channels=channels, size=SIZE))
    with jax.enable_x64(x64):
        run = jax.jit(lambda *a: mosaic_gpu.forward(*a, None, SIZE))
        exported = export.export(run, platforms=["cuda"])(*given)
    assert {aval.dtype for aval in exported.out_avals} == {jnp.dtype("float32")}
    module = exported.mlir_module()
    assert module.count("custom_call @mosaic_gpu_v2") == passes
    assert "triton" not in module
