"""What is particular to the Triton kernels, interpreted: sizes, masks, lists that are cut short, transformations.

Their numbers are held against the reference in `conformance_test.py`, and their signs in `backward_test.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels import tiling
from renderers.kernels.composite import blocks, pallas_gpu, pallas_gpu_tiles, xla
from renderers.kernels.composite.blocks import GpuBlocks, GpuPass
from renderers.kernels.dispatch import Unsupported
from tests.renderers.kernels.composite import scenes, transformations_test

SIZE = (20, 37)  # 2 x 3 tiles, cut
CHANNELS = 5
NAMES = ("means2d", "conics", "opacities", "features")


def _arguments(capacity=1024, n=60, channels=CHANNELS):
    scene = scenes.random_scene(seed=11, n=n, channels=channels, size=SIZE)
    scene["opacities"][: n // 2] = 0.97  # pixels that stop, so that lists are left early
    image, transmittance, safe = scenes.safe_cotangents(scene, SIZE)
    assert safe.mean() > 0.9
    arrays = {name: jnp.asarray(array) for name, array in scene.items()}
    lists = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))(
        arrays["means2d"], arrays["extents"], arrays["depths"], SIZE, capacity
    )
    return [arrays[name] for name in NAMES], lists, (jnp.asarray(image), jnp.asarray(transmittance)), safe


@functools.cache
def _mask():
    """Whole tiles masked off, half tiles, scattered pixels."""
    mask = np.random.default_rng(0).uniform(size=SIZE) < 0.7
    mask[:, :16] = False
    mask[16:, 20:32] = False
    return jnp.asarray(mask)


@functools.partial(jax.jit, static_argnames=("module", "sizes"))
def _run(module, inputs, lists, cotangents, mask=None, sizes=None):
    """Outputs and gradients of a backend, with sizes if it takes some."""
    more = {} if sizes is None else {"blocks": sizes}
    outputs = module.forward(*inputs, lists, mask, SIZE, **more)
    return outputs, module.backward(*inputs, lists, outputs, cotangents, mask, SIZE, **more)


def _assert_close(found, expected, safe):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(np.asarray(ours)[safe], np.asarray(theirs)[safe], atol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert np.isfinite(ours).all(), "a row that nobody wrote"
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * float(jnp.abs(theirs).max()), rtol=0)


def _pass(**sizes):
    return GpuPass(**{"pixels": 256, "turn": 16, "channels": 16, "warps": 1} | sizes)


# Channels in one program and in three with one to spare; cotangents held in registers and read again; parts of tiles;
# lists left after every Gaussian; sums whose last program and last turn are not full.
SIZES = {
    "whole tiles": GpuBlocks(forward=_pass(), backward=_pass(), sum_gaussians=8, sum_rows=2),
    "channel programs": GpuBlocks(forward=_pass(channels=2), backward=_pass(channels=2), sum_gaussians=1, sum_rows=1),
    "small parts": GpuBlocks(forward=_pass(pixels=32, turn=1), backward=_pass(pixels=64, turn=1), sum_gaussians=16),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_sizes_change_nothing_but_speed(name):
    inputs, lists, cotangents, safe = _arguments()
    expected = _run(xla, inputs, lists, cotangents)
    _assert_close(_run(pallas_gpu, inputs, lists, cotangents, sizes=SIZES[name]), expected, safe)


def test_masked_pixels_and_lists_cut_short_are_those_of_xla():
    """Half the intersections find no room: their gradients are zero, and those that stay lie where they should."""
    inputs, lists, cotangents, safe = _arguments(capacity=100)
    assert lists.overflow > 80
    mask = _mask()
    found = _run(pallas_gpu, inputs, lists, cotangents, mask)
    _assert_close(found, _run(xla, inputs, lists, cotangents, mask), safe)
    for once, again in zip(
        jax.tree.leaves(found), jax.tree.leaves(_run(pallas_gpu, inputs, lists, cotangents, mask)), strict=True
    ):
        np.testing.assert_array_equal(once, again, "no atomics: the order of every sum is fixed")
    (image, transmittance), gradients = found
    assert (np.asarray(image)[~mask] == 0).all() and (np.asarray(transmittance)[~mask] == 1).all()
    dropped = np.setdiff1d(np.arange(60), np.asarray(lists.ids)[: int(lists.offsets[-1])])
    assert len(dropped) > 5 and all((np.asarray(g)[dropped] == 0).all() for g in gradients)


def test_seventeen_channels():
    """More than the kernels hold at once and no power of two; forty are lowered in `export_test.py`."""
    inputs, lists, cotangents, safe = _arguments(channels=17)
    sizes = blocks.gpu_blocks(17, 6)
    assert sizes.forward.channels < 17 and sizes.backward.channels < 17
    _assert_close(_run(pallas_gpu, inputs, lists, cotangents), _run(xla, inputs, lists, cotangents), safe)


@functools.cache
def _one_by_one():
    return transformations_test._one_by_one("xla")


@pytest.mark.slow
def test_a_batch_under_vmap_is_that_of_single_calls():
    one = functools.partial(transformations_test.loss, backend="pallas_gpu")

    def total(parameters):
        values = jax.vmap(lambda view: one(parameters, view))(transformations_test.VIEW)
        return values.sum(), values

    (_, values), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(transformations_test.SHARED)
    transformations_test.assert_same((values, gradients), _one_by_one())


def test_gradients_taken_inside_shard_map():
    """Without `check_vma`: JAX's interpreter of kernels does not know about it (its compiler does: export_test.py)."""
    expected = {"pallas_gpu": _one_by_one()}
    transformations_test.test_gradients_taken_inside_shard_map("pallas_gpu", False, expected)


def test_arrays_that_kernels_would_address_wrongly_are_refused_and_rows_kept_clear_of_it():
    calls = []

    def call(*arrays, interpret):
        calls.append(interpret)
        return arrays[0]

    big, small = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1 << 29, 5), (4,)))
    with pytest.raises(Unsupported, match=r"pallas_gpu.*2\^31 to 2\^32.*use 'xla'"):
        jax.eval_shape(lambda a, b: pallas_gpu_tiles.compiled_or_interpreted(call, a, b), small, big)
    assert not calls
    for rows, width in ((1000, 11), (1 << 28, 11), ((1 << 31) // 8, 8), (1 << 29, 11)):
        padded = pallas_gpu_tiles.addressable(rows, width)
        assert padded >= rows and not 1 << 31 < padded * width <= 1 << 32
        assert padded == rows or 1 << 31 < rows * width <= 1 << 32


def test_the_table_gives_the_first_row_with_room():
    row = blocks.GPU[""][0][2]
    table = {"": ((1, 1, 0),), "H": ((3, 100, 1), (3, 1000, 2), (16, 100, 3))}
    found = [blocks.default_for(table, "H", *problem) for problem in ((3, 100), (1, 101), (4, 7), (17, 1), (4, 101))]
    assert found == [1, 2, 3, 3, 3]
    assert blocks.default_for(table, "unknown", 3, 100) == 0
    assert blocks.gpu_blocks(3, 1) is row, "a host without a GPU takes the rows of untuned kinds"


@pytest.mark.parametrize("wrong", [{"pixels": 512}, {"pixels": 48}, {"warps": 3}, {"turn": 0}, {"channels": 0}])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        _pass(**wrong)
