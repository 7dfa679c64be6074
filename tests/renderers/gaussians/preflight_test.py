"""Statements of memory before anything runs: laws in every size, and the arrays that can be counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.gaussians import preflight
from renderers.kernels.composite import cpu_tiles
from renderers.kernels.composite.memory import native_bytes

FLOAT = 4


def test_the_parts_that_can_be_counted_by_hand():
    n, size = 1000, (64, 80)
    stated = preflight.peak_memory(n, size, sh_degree=2, backend="cpu", gradients=False)
    camera = FLOAT * (16 + 2 + 2)
    assert stated.arguments == pytest.approx(n * FLOAT * (3 + 4 + 3 + 1 + 27) + camera, abs=64)
    assert stated.outputs == pytest.approx(FLOAT * 64 * 80 * 5, abs=64)
    assert stated.temporaries > FLOAT * n * 4, "at least the features"
    assert stated.total == stated.arguments + stated.outputs + stated.temporaries + stated.native


def test_a_donated_argument_is_counted_once():
    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    kept, donated = (
        preflight.statement_of(jax.jit(lambda x: x + 1, donate_argnums=which).lower(shape).compile())
        for which in ((), (0,))
    )
    assert kept.arguments == donated.arguments == 4000
    assert kept.outputs == 4000 and donated.outputs == 0


@pytest.mark.slow
def test_more_gaussians_take_more_in_proportion_and_reference_more_than_all():
    def temporaries(n, backend):
        found = preflight.peak_memory(n, (32, 32), sh_degree=None, channels=5, intersections=8 * n, backend=backend)
        return found.temporaries + found.native

    one, two, four = (temporaries(n, "cpu") for n in (10_000, 20_000, 40_000))
    assert four - two == pytest.approx(2 * (two - one), rel=0.05)
    # the reference keeps every Gaussian's alpha at every pixel for its backward pass
    assert temporaries(1000, "reference") > FLOAT * 1000 * 32 * 32


@pytest.mark.parametrize("gradients", [False, True])
def test_native_statement_covers_the_arrays_that_binning_returns(gradients):
    seen = preflight_arrays()
    offsets, ids = cpu_tiles.bin_tiles(*seen, 4, 6)
    least = offsets.nbytes + ids.nbytes + (FLOAT * len(ids) * (8 + 4) if gradients else 0)
    stated = native_bytes(len(seen[2]), (64, 96), 4, len(ids), gradients=gradients)
    assert least < stated < 1.1 * least + 24 * len(seen[2]) + 8 * len(ids) + 1000


def preflight_arrays():
    rng = np.random.default_rng(0)
    n = 500
    means = rng.uniform(0, 64, (n, 2)).astype(np.float32)
    conics = np.tile(np.float32([0.02, 0.0, 0.02]), (n, 1))
    extents = np.full((n, 2), 20, np.float32)
    return means, conics, np.full(n, 0.5, np.float32), extents, rng.uniform(1, 2, n).astype(np.float32)


def test_nothing_is_executed_or_kept():
    held = len(jax.live_arrays())
    preflight.peak_memory(100_000, (32, 32), sh_degree=0, backend="cpu", gradients=False)
    assert len(jax.live_arrays()) == held
