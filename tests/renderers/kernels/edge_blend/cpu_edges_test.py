"""The host's lenses and cuts against the definition's and JAX's derivatives of them, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.edge_blend import cpu_edges, cpu_handlers, cpu_lens
from renderers.kernels.edge_blend.images import image_of_edge, num_parts
from tests.renderers.kernels.edge_blend import scenes

NEAR = 0.05
COUNT = 40


def _edges(parts):
    """Ends in front of the camera, a third of them beyond the near plane on one side; parts and cotangents."""
    rng = np.random.default_rng(11)
    ends = rng.uniform([-0.6, -0.5, 0.8], [0.6, 0.5, 2.5], (COUNT, 2, 3))
    ends[::6, 0, 2], ends[3::6, 1, 2] = -0.3, 0.01
    return ends, rng.integers(0, parts, COUNT).astype(np.int32), rng.normal(size=(2, COUNT, 2))


@functools.cache
def expected(lens):
    """Of the definition: pixels, what is seen, gradients of ends and lens; then the lens's codes and numbers."""
    with jax.enable_x64(True):
        camera = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), scenes.camera(lens))
        ends, part, cotangents = _edges(num_parts(camera))

        @jax.jit
        def evaluate(ends, part, cotangents, camera):
            def run(ends, camera):
                start, end, seen = image_of_edge(ends, part, camera, jnp.asarray(NEAR))
                return jnp.where(seen[:, None], jnp.stack([start, end]), 0.0), seen

            pixels, pull, seen = jax.vjp(run, ends, camera, has_aux=True)
            return pixels, seen, *pull(jnp.where(seen[:, None], cotangents, 0.0))

        pixels, seen, of_ends, of_camera = evaluate(ends, part, cotangents, camera)
        codes = np.asarray(cpu_handlers._coded(camera))
        numbers = np.asarray(cpu_handlers._lens_numbers(camera, jnp.asarray(NEAR)))
    of_lens = [of_camera.focal, of_camera.principal, np.zeros(2)]
    of_lens += [] if camera.distortion is None else [of_camera.distortion]
    return np.asarray(pixels), np.asarray(seen), np.asarray(of_ends), np.concatenate(of_lens), codes, numbers


def largest_error(module, lens):
    """Of the pixels and gradients of a module like `cpu_edges`, each against 1e-9 or, of gradients, 1e-7 of itself."""
    pixels, seen, of_ends, of_lens, codes, numbers = expected(lens)
    ends, part, cotangents = _edges(int(codes[module.PARTS]))
    sums, errors = np.zeros(cpu_lens.NUMBERS), []

    def compare(found, truth, relative, absolute):
        found, truth = np.asarray(found), np.asarray(truth)
        errors.append(np.max(np.abs(found - truth) / (absolute + relative * np.abs(truth))))

    for row in np.flatnonzero(seen):
        start, end = tuple(map(float, ends[row, 0])), tuple(map(float, ends[row, 1]))
        begin, finish = module.part_of_edge(codes, numbers, int(part[row]), start, end)
        compare(module.segment(codes, numbers, scenes.SIZE, begin, finish)[:2], pixels[:, row], 1e-9, 1e-9)
        assert module.in_front(codes, numbers, start, end)
        gradients = module.segment_back(
            codes, numbers, int(part[row]), start, end, tuple(cotangents[0, row]), tuple(cotangents[1, row]), sums
        )  # fmt: skip
        compare(gradients, of_ends[row], 1e-7, 1e-9 * np.abs(of_ends[row]).max())
    compare(sums[: len(of_lens)], of_lens, 1e-7, 1e-9)
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))


@pytest.mark.parametrize("lens", scenes.LENSES)
def test_segments_and_their_gradients_are_those_of_the_definition(lens):
    assert COUNT // 3 < np.sum(expected(lens)[1]), "the yardstick sees edges"
    assert largest_error(cpu_edges, lens) < 1
