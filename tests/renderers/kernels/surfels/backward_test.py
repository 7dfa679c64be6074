"""Every backward pass of surfel compositing against central differences of the numpy oracle, each run alone."""

import numpy as np
import pytest

from renderers.kernels.surfels import cpu, reference, xla
from tests.renderers.kernels.surfels import finite_differences

# float64: the differences' own error, 1e-9 by rounding and step, 10 times that by cancellation in a column; float32:
# sums of 740 pixels' rounding, relative to a column's largest entry (measured: 3e-9, 3e-9, 2e-6).
TOLERANCES = {"reference": 1e-7, "xla": 1e-7, "cpu": 2e-5}
PASSES = {
    "reference": (finite_differences.run_reference, reference),
    "xla": (finite_differences.run_xla, xla),
    "cpu": (finite_differences.run_cpu, cpu),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", PASSES)
def test_agrees_with_central_differences(backend):
    run, module = PASSES[backend]
    assert finite_differences.largest_error(run(module)) < TOLERANCES[backend]


def test_the_scene_reaches_what_it_is_for():
    expected = finite_differences.expected_gradients()
    for name, gradient in expected.items():
        assert (np.abs(gradient).max(0) > 1e-2).all(), f"a column of {name} hardly matters"
    both = expected["probe"] > 1e-3
    assert both.sum() > 10, "the low-pass filter must be seen"
    assert (np.abs(expected["means2d"]) < 0.7 * expected["probe"])[both].mean() > 0.3
