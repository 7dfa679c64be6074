"""The z-buffer exported for a GPU that is not there: binning and kernel lower as one program, also with x64 on."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export

from renderers.kernels.triangle_raster.api import visible_faces

_TARGETS = ("__gpu$xla.gpu.triton", "triton_kernel_call_ffi")


@pytest.mark.parametrize("projection", ["perspective", "spherical"])
@pytest.mark.parametrize("x64", [False, True])
def test_the_kernel_lowers_with_binning_and_sort(projection, x64):
    run = functools.partial(visible_faces, near=0.01, projection=projection, capacity=1 << 14, backend="pallas_gpu")
    struct = jax.ShapeDtypeStruct
    shapes = (
        struct((1000, 3), jnp.float32),
        struct((2000, 3), jnp.int32),
        struct((100, 130, 3), jnp.float32),
        struct((2000, 4), jnp.int32),
    )
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in _TARGETS]
    with jax.enable_x64(x64):
        try:
            text = export.export(jax.jit(run), platforms=["cuda"], disabled_checks=checks)(*shapes).mlir_module()
        except Exception as error:
            if "Triton compilation handler" in str(error):
                pytest.skip(f"JAX {jax.__version__} compiles Triton while lowering, which takes its plugin: {error}")
            raise
    calls = [line for line in text.splitlines() if "custom_call" in line and any(t in line for t in _TARGETS)]
    assert len(calls) == 1 and "triangle_raster" in calls[0]
    assert "stablehlo.sort" in text, "binning stays on the device"
    assert not re.search(r"tensor<\d[^>]*xf64>", text), "float32 stays float32"
