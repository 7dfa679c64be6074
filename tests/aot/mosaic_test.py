"""The Mosaic GPU twin of the forward pass, compiled to machine code for a Hopper GPU that is not there."""

import dataclasses
import functools
import pathlib
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax._src.lib.mlir import ir
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from renderers.kernels.composite import mosaic_gpu
from tests.aot import record, shapes, tools, triton_toolchain

pytestmark = pytest.mark.aot


@pytest.fixture(scope="module")
def folder():
    return tools.require(*tools.MOSAIC_PACKAGES)


@pytest.fixture(scope="module")
def rows(folder):
    kept = []
    yield kept
    record.write("mosaic_gpu", kept, tools.versions(*tools.MOSAIC_PACKAGES))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with a CUDA driver that only answers."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for a stub of the CUDA driver")
    built = tmp_path_factory.mktemp("driver")
    source = pathlib.Path(__file__).with_name("cuda_driver_stub.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(built / "libcuda.so.1"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return built


@functools.cache
def triton_ir():
    def copy(x_ref, o_ref):
        o_ref[...] = x_ref[...]

    one = jax.ShapeDtypeStruct((128,), jnp.float32)
    run = pl.pallas_call(copy, out_shape=one, compiler_params=plgpu.CompilerParams(num_warps=4))
    return triton_toolchain.kernels_of(run, one)[0].triton_ir


@pytest.mark.parametrize("channels", [3, 4, 16, 32])
def test_the_twin_compiles_and_does_not_spill(channels, folder, driver, rows, record_property, tmp_path):
    run = jax.jit(lambda *a: mosaic_gpu.forward(*a, None, shapes.YARDSTICK.size))
    exported = export.export(run, platforms=["cuda"])(*shapes.gaussians(channels), shapes.lists())
    [config] = triton_toolchain.custom_calls(exported.mlir_module(), "mosaic_gpu_v2")
    (tmp_path / "triton.ir").write_bytes(triton_ir())
    done = triton_toolchain.run_child(
        f"mosaic_gpu.forward with {channels} channels",
        "tests.aot.mosaic_to_sass",
        str(folder),
        str(tmp_path / "triton.ir"),
        stdin=ir.StringAttr(config["module"]).value_bytes,
        environment={
            "LD_LIBRARY_PATH": str(driver),
            "MOSAIC_GPU_CUDA_ROOT": str(folder / "nvidia" / "cu13"),
            "MOSAIC_GPU_RUNTIME_LIB_PATH": str(folder / "jax_cuda13_plugin" / "libmosaic_gpu_runtime.so"),
            "MOSAIC_GPU_DUMP_PTX": "1",
            "MOSAIC_GPU_DUMP_PTXAS": "1",
            "MOSAIC_GPU_DUMP_TO": str(tmp_path),
        },
    )
    [ptx], [said] = tmp_path.glob("*.ptx"), tmp_path.glob("*.ptxas")
    shared = re.search(rb"shared memory: (\d+) bytes", done.stderr)
    assert shared is not None, done.stderr
    compiled = triton_toolchain.assembled(ptx.read_text(), said.read_text(), int(shared[1]))
    row = {"kernel": "mosaic_gpu.forward", "channels": channels, "warps": 4} | dataclasses.asdict(compiled)
    rows.append(row)
    record_property("table", row)
    assert compiled.spill_stores == 0 and compiled.spill_loads == 0
