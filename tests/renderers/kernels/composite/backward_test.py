"""Every hand-written backward pass against central differences of the numpy oracle, each run alone."""

import numpy as np
import pytest

from renderers.kernels.composite import cpu, pallas_gpu_vjp, pallas_tpu_vjp, reference, xla
from tests.renderers.kernels.composite import finite_differences

# float64: the differences' own error, 1e-10 by rounding and step, 100 times that by cancellation in a column; float32:
# sums of 740 pixels' rounding, relative to a column's largest entry (measured: 1e-6).
TOLERANCES = {"reference": 1e-7, "xla": 1e-7, "cpu": 2e-5, "pallas_gpu_vjp": 2e-5, "pallas_tpu_vjp": 2e-5}
PASSES = {
    "reference": (finite_differences.run_reference, reference),
    "xla": (finite_differences.run_xla, xla),
    "cpu": (finite_differences.run_cpu, cpu),
    "pallas_gpu_vjp": (finite_differences.run_pallas, pallas_gpu_vjp),
    "pallas_tpu_vjp": (finite_differences.run_pallas, pallas_tpu_vjp),
}


@pytest.mark.parametrize("backend", PASSES)
def test_agrees_with_central_differences(backend):
    run, module = PASSES[backend]
    assert finite_differences.largest_error(run(module)) < TOLERANCES[backend]


def test_the_scene_reaches_what_it_is_for():
    expected = finite_differences.expected_gradients()
    for name, gradient in expected.items():
        assert (np.abs(gradient).max(0) > 1e-2).all(), f"a column of {name} hardly matters"
    assert (np.abs(expected["means2d"]) < 0.7 * expected["probe"]).mean() > 0.5, "signed and absolute sums must differ"
