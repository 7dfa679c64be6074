"""Compositing exported for devices that are not there: binning, kernels and gradients lower as one program.

Checks what lowering checks (types, shapes, supported operations), neither numbers nor speed. `pytest -m aot` goes on to
machine code.
"""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, PartitionSpec, use_abstract_mesh

from renderers.kernels import tiling
from renderers.kernels.composite.api import composite

SIZE = (1080, 1920)
N = 10_000
CAPACITY = 1 << 17
# Custom calls whose meaning JAX does not promise to keep. Triton IR up to jaxlib 0.10.2, PTX later.
TARGETS = {
    "cuda": ("__gpu$xla.gpu.triton", "triton_kernel_call_ffi"),
    "rocm": ("__gpu$xla.gpu.triton", "triton_kernel_call_ffi"),
    "tpu": ("tpu_custom_call",),
}
BACKENDS = {"cuda": "pallas_gpu", "rocm": "pallas_gpu", "tpu": "pallas_tpu"}
_GPU_KERNELS = ["composite_backward", "composite_forward", "composite_sum"]
KERNELS = {"cuda": _GPU_KERNELS, "rocm": _GPU_KERNELS, "tpu": ["composite_backward", "composite_forward"]}


def _structs(channels, batch=()):
    shapes = {"means2d": (N, 2), "conics": (N, 3), "opacities": (N,), "features": (N, channels), "extents": (N, 2)}
    return [jax.ShapeDtypeStruct((*batch, *shape), jnp.float32) for shape in (*shapes.values(), (N,))]


def _export(function, platform, *arguments):
    """The module's text; skips where lowering itself needs the device's compiler."""
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in TARGETS[platform]]
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    # some operations lower by the TPU's generation, which JAX otherwise asks the default device for
    here = AbstractMesh((1,), ("device",), abstract_device=device)
    try:
        with use_abstract_mesh(here) if platform == "tpu" else contextlib.nullcontext():
            return export.export(jax.jit(function), platforms=[platform], disabled_checks=checks)(
                *arguments
            ).mlir_module()
    except Exception as error:
        if "Triton compilation handler" in str(error):
            pytest.skip(f"JAX {jax.__version__} compiles Triton while lowering, which takes its plugin: {error}")
        raise


def _calls(module, platform):
    """Lines of a module that hold its kernels."""
    return [line for line in module.splitlines() if "custom_call" in line and any(t in line for t in TARGETS[platform])]


def _kernels(module, platform):
    """Sorted names of the kernels in a module."""
    return sorted(re.search(r"\bcomposite_[a-z]+", line)[0] for line in _calls(module, platform))


def _image(*arrays, backend, mask=None, size=SIZE):
    blended = composite(*arrays, size=size, mask=mask, capacity=CAPACITY, backend=backend)
    return blended.image, blended.transmittance


def _gradients(backend, size=SIZE):
    def loss(*arrays):
        image, transmittance = _image(*arrays, backend=backend, size=size)
        return (image**2).sum() + transmittance.sum()

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))


platforms = pytest.mark.parametrize("platform", BACKENDS)


@platforms
@pytest.mark.parametrize("channels", [3, 40])
def test_forward_and_backward_lower_with_binning_and_sort(platform, channels):
    module = _export(_gradients(BACKENDS[platform]), platform, *_structs(channels))
    assert _kernels(module, platform) == KERNELS[platform]
    assert "stablehlo.sort" in module, "binning stays on the device"


@platforms
def test_a_mask_and_forward_alone_lower(platform):
    mask = jax.ShapeDtypeStruct(SIZE, jnp.bool_)
    run = functools.partial(_image, backend=BACKENDS[platform])
    module = _export(lambda mask, *arrays: run(*arrays, mask=mask), platform, mask, *_structs(16))
    assert _kernels(module, platform) == ["composite_forward"]


@platforms
def test_a_batch_of_scenes_is_one_program(platform):
    module = _export(jax.vmap(_gradients(BACKENDS[platform])), platform, *_structs(3, (2,)))
    assert _kernels(module, platform) == KERNELS[platform]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_x64_leaves_the_kernels_as_they_are(platform):
    """Float32 arrays in a program with x64 on: the same kernels, word by word."""

    def bodies():
        jax.clear_caches()
        module = _export(_gradients(BACKENDS[platform]), platform, *_structs(3))
        assert not re.search(r"tensor<\d[^>]*xf64>", module), (
            "only constants, as JAX writes them, before they are narrowed"
        )
        return _calls(module, platform)

    lines = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # lines of code are part of the words
    try:
        plain = bodies()
        with jax.enable_x64(True):
            widened = bodies()
    finally:
        jax.config.update("jax_traceback_in_locations_limit", lines)
    assert len(plain) == len(widened)
    for one, other in zip(plain, widened, strict=True):
        assert re.sub(r"[%#]\w+|loc\(.*", "", one) == re.sub(r"[%#]\w+|loc\(.*", "", other)


def test_under_shard_map_with_its_checks_on():
    """The compiled kernels say over which mesh axes their outputs vary; the interpreter of kernels cannot."""
    mesh = jax.make_mesh((4,), ("view",), axis_types=(AxisType.Auto,))
    each = PartitionSpec("view")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(each,) * 6, out_specs=each)
    def views(*arrays):
        values, gradients = _gradients("pallas_gpu", (64, 64))(*(array[0] for array in arrays))
        return values[None], *(gradient[None] for gradient in gradients)

    module = _export(views, "cuda", *_structs(3, (4,)))
    assert _kernels(module, "cuda") == KERNELS["cuda"]


@pytest.mark.parametrize("backend", ["pallas_gpu", "pallas_tpu"])
def test_a_program_for_cpus_holds_interpreted_kernels_only(backend):
    lowered = jax.jit(_gradients(backend, (20, 37))).lower(*_structs(3))
    text = lowered.as_text()
    assert not any(target in text for targets in TARGETS.values() for target in targets)
    assert "stablehlo.while" in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_binning_alone_lowers_for_few_and_many_tiles(platform):
    """Keys of one word and of two."""
    for size, n in ((SIZE, N), ((16 * 1024, 16 * 1024), 1 << 14)):
        pairs, depths = jax.ShapeDtypeStruct((n, 2), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.float32)
        run = functools.partial(tiling.bin_gaussians, size=size, capacity=CAPACITY)
        assert "stablehlo.sort" in _export(run, platform, pairs, pairs, depths)
