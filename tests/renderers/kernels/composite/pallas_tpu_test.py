"""The TPU kernels' own machinery: alignment, copies, sizes, batches, lowering; for numbers see conformance_test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from renderers.kernels import tiling
from renderers.kernels.composite import pallas_tpu, pallas_tpu_tiles, pallas_tpu_vjp, xla
from renderers.kernels.composite.api import composite
from renderers.kernels.composite.blocks import TpuBlocks
from renderers.kernels.dispatch import Unsupported
from tests.renderers.kernels.composite import scenes

SIZE = (20, 37)  # 2 x 3 tiles
NAMES = ("means2d", "conics", "opacities", "features")


def lists_of(counts, capacity, seed=0):
    """Tile lists of any lengths, of made-up Gaussians."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    ids = np.zeros(capacity, np.int32)
    ids[: offsets[-1]] = np.random.default_rng(seed).integers(0, 50, offsets[-1])
    return tiling.TileLists(
        ids=jnp.asarray(ids), offsets=jnp.asarray(offsets, jnp.int32), overflow=jnp.zeros((), jnp.int32)
    )


@pytest.mark.parametrize(
    ("counts", "capacity", "chunk"),
    [
        ((3, 0, 128, 129, 0, 0, 1), 261, 128),  # full to the last entry, empty tiles within
        ((0, 0), 7, 128),
        ((1,) * 9, 9, 128),  # a chunk each: the worst case for the number of slots
        ((127, 128, 129, 255, 256, 257, 0), 2048, 256),
    ],
)
def test_every_run_gets_whole_chunks_of_its_own(counts, capacity, chunk):
    lists = lists_of(counts, capacity)
    bounds, ids = map(np.asarray, jax.jit(pallas_tpu_tiles.align, static_argnums=(1, 2))(lists, 50, chunk))
    taken = np.zeros(len(ids), bool)
    assert len(ids) % chunk == 0
    for tile, count in enumerate(counts):
        begin = -(-bounds[tile] // chunk) * chunk
        assert bounds[tile + 1] - begin == count
        np.testing.assert_array_equal(ids[begin : begin + count], lists.ids[lists.offsets[tile] :][:count])
        room = slice(begin, begin + -(-count // chunk) * chunk)
        assert room.stop <= len(ids) and not taken[room].any()
        taken[room] = True
        assert (ids[room][count:] == 50).all()
    assert (ids[~taken] == 50).all() and bounds[-1] == bounds[-2]


def test_more_tiles_than_scalar_memory_holds_are_refused():
    tiles = pallas_tpu_tiles.MAX_TILES + 1
    lists = jax.eval_shape(lambda: lists_of((0,) * tiles, 1))
    with pytest.raises(Unsupported, match=f"up to {tiles - 1} tiles .* got {tiles}: render it in parts, or use 'xla'"):
        jax.eval_shape(lambda lists: pallas_tpu_tiles.align(lists, 1, 128), lists)


@functools.cache
def crowd():
    """Stacks of opaque Gaussians, several chunks a tile; pixels stop early; 17 channels, a mask that hides a tile."""
    scene = {name: jnp.asarray(array) for name, array in scenes.saturating().items()}
    rng = np.random.default_rng(0)
    scene["means2d"] = scene["means2d"] * 0.5
    scene["opacities"] = scene["opacities"] * jnp.asarray(rng.choice([0.05, 1.0], 320), jnp.float32)
    scene["features"] = jnp.asarray(rng.normal(size=(320, 17)), jnp.float32)
    mask = rng.uniform(size=SIZE) < 0.8
    mask[:16, 16:32] = False
    lists = tiling.bin_gaussians(scene["means2d"], scene["extents"], scene["depths"], SIZE, 2000)
    longest = int(jnp.diff(lists.offsets).max())
    assert lists.overflow == 0 and longest > 140, f"{longest} in a tile: a second chunk must be begun"
    cotangents = (
        jnp.asarray(rng.normal(size=(*SIZE, 17)), jnp.float32),
        jnp.asarray(rng.normal(size=SIZE), jnp.float32),
    )
    return [scene[name] for name in NAMES], lists, jnp.asarray(mask), cotangents


def both_passes(module, **options):
    arguments, lists, mask, cotangents = crowd()

    def run(*arguments):
        outputs = module.forward(*arguments, lists, mask, SIZE, **options)
        return outputs, module.backward(*arguments, lists, outputs, cotangents, mask, SIZE, **options)

    return jax.jit(run)(*arguments)


@functools.cache
def expected():
    return both_passes(xla)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [TpuBlocks(chunk=128, step=32), TpuBlocks(chunk=256, step=8)], ids=str)
def test_neither_block_sizes_nor_summing_in_parts_change_the_numbers(monkeypatch, sizes):
    monkeypatch.setattr(pallas_tpu_vjp, "SUM_SLOTS", 500)  # and a rest
    (image, transmittance), gradients = both_passes(pallas_tpu, blocks=sizes)
    (true_image, true_transmittance), true_gradients = expected()
    # a pixel that stops at another Gaussian, for rounding, moves by no more than that Gaussian's weight
    assert (np.abs(image - true_image) > 2e-5).mean() < 1e-3
    assert (np.abs(transmittance - true_transmittance) > 2e-6).mean() < 1e-3
    for found, true in zip(gradients, true_gradients, strict=True):
        assert (np.abs(found - true) > 1e-4 * np.abs(true).max()).mean() < 1e-3


def test_sizes_that_registers_cannot_hold_are_refused():
    for chunk, step in ((100, 20), (128, 12), (128, 0), (256, 48)):
        with pytest.raises(ValueError, match="expected chunk a multiple of 128, step one of 8 dividing it"):
            TpuBlocks(chunk=chunk, step=step)


def kernel_calls():
    """The kernels themselves, on one row of tiles, as functions of Pallas' `interpret` argument."""
    sizes = TpuBlocks(chunk=128, step=128)
    rng = np.random.default_rng(1)
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene(1, n=210, size=(16, 48)).items()}
    crowd = slice(0, 150)  # of broad, opaque ones in the first tile, two chunks of them
    scene["means2d"] = scene["means2d"].at[crowd].set(jnp.asarray(rng.uniform(2, 14, (150, 2)), jnp.float32))
    scene["conics"] = scene["conics"].at[crowd].set(jnp.asarray([0.02, 0.0, 0.02]))
    scene["opacities"] = scene["opacities"].at[crowd].set(0.9)
    scene["extents"] = scene["extents"].at[crowd].set(1.5)
    lists = tiling.bin_gaussians(scene["means2d"], scene["extents"], scene["depths"], (16, 48), 1000)
    assert lists.offsets[1] > sizes.chunk
    bounds, ids = pallas_tpu_tiles.align(lists, 210, sizes.chunk)
    rows = pallas_tpu_tiles.parameter_rows(**{name: scene[name] for name in NAMES}, ids=ids)
    drawn = np.ones((3, 1, 256), np.float32)
    drawn[2] = 0  # its first chunk is on its way before that is known
    drawn[0] = np.arange(256) == 8 * 16 + 8  # one pixel, which stops: the second chunk is on its way by then
    given = rng.normal(size=(3, 8, 256)).astype(np.float32)
    options = dict(channels=3, tiles_across=3, blocks=sizes)
    forward = functools.partial(pallas_tpu._call, bounds, rows, jnp.asarray(drawn), **options)
    backward = functools.partial(pallas_tpu_vjp._call, bounds, rows, jnp.asarray(drawn), jnp.asarray(given), **options)
    return forward, backward


# Copies run as late as they may, when somebody waits for them; memory that nobody has written holds NaN.
LATE = pltpu.InterpretParams(dma_execution_mode="on_wait", uninitialized_memory="nan", detect_races=True)


@pytest.mark.slow
def test_copies_are_waited_for_and_touch_nothing_in_use(capfd):
    forward, backward = kernel_calls()
    image = forward(interpret=True)
    assert 1e-4 < image[0, 3, 8 * 16 + 8] < 1e-2, "the one pixel of the first tile must stop"
    np.testing.assert_allclose(forward(interpret=LATE), image, atol=1e-6)
    np.testing.assert_allclose(backward(interpret=LATE), backward(interpret=True), atol=1e-5)
    assert "RACE" not in "".join(capfd.readouterr())


def test_a_missing_wait_is_noticed(monkeypatch):
    forward, _ = kernel_calls()
    make = pltpu.make_async_copy

    class Unawaited:
        def __init__(self, *arguments):
            self.start = make(*arguments).start

        def wait(self):
            pass

    monkeypatch.setattr(pltpu, "make_async_copy", Unawaited)
    try:
        assert np.isnan(forward(interpret=LATE)).any()
    finally:
        pltpu.reset_tpu_interpret_mode_state()


def loss(scene):
    blended = composite(**scene, size=SIZE, capacity=512, backend="pallas_tpu")
    return (blended.image**2).sum() + blended.transmittance.sum()


@pytest.mark.slow
def test_a_batch_of_scenes_equals_them_one_by_one():
    each = [scenes.random_scene(seed, n=40, size=SIZE) for seed in range(2)]
    both = {name: jnp.asarray(np.stack([scene[name] for scene in each])) for name in each[0]}
    batched = jax.jit(jax.vmap(jax.value_and_grad(loss)))(both)
    single = jax.jit(jax.value_and_grad(loss))
    for index in range(2):
        alone = single(jax.tree.map(lambda leaf, i=index: leaf[i], both))
        for found, true in zip(jax.tree.leaves(batched), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found[index], true, rtol=1e-5, atol=1e-5 * np.abs(true).max())


@pytest.mark.parametrize("x64", [False, True])
def test_a_host_without_a_tpu_can_lower_for_one(x64):
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene(n=40, size=SIZE).items()}
    with jax.enable_x64(x64):
        traced = jax.jit(jax.value_and_grad(loss)).trace(scene)
        assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 2
