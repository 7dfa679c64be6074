"""Every Triton kernel that we ship, compiled to machine code for NVIDIA GPUs that are not there: it must not spill."""

import dataclasses

import pytest

from renderers.kernels.composite import blocks, pallas_gpu
from tests.aot import record, shapes, tools, triton_toolchain

pytestmark = pytest.mark.aot

# Compute capabilities by device kind. Kinds that are not listed, and the row for them, go through all of these.
_CAPABILITIES = {"A100": "8.0", "L4": "8.9", "H100": "9.0", "H200": "9.0", "B200": "10.0"}
CHANNELS = (3, 4, 16)
TILES = {"512x512": 1024, "1080p": 8160, "4K": 32_400}


@pytest.fixture(scope="module")
def folder():
    return tools.require(*tools.GPU_PACKAGES)


@pytest.fixture(scope="module")
def rows(folder):
    kept = []
    yield kept
    record.write("triton", kept, tools.versions(*tools.GPU_PACKAGES))


def shipped():
    """Each (capability, channels, sizes) that a device can meet, once for every device kind in the table."""
    cases = []
    for kind in blocks.GPU:
        known = [capability for name, capability in _CAPABILITIES.items() if name in kind]
        for capability in sorted(set(known or _CAPABILITIES.values())):
            for channels in CHANNELS:
                met = {}
                for name, tiles in TILES.items():
                    met.setdefault(blocks.default_for(blocks.GPU, kind, channels, tiles), name)
                for sizes, name in met.items():
                    label = f"{kind or 'untuned'}-sm{capability}-{channels}-{name}"
                    cases.append(pytest.param(kind, capability, channels, name, sizes, id=label))
    return cases


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("kind", "capability", "channels", "image", "sizes"), shipped())
def test_shipped_kernels_do_not_spill(
    kind, capability, channels, image, sizes, direction, folder, rows, record_property
):
    kernels = kernels_of(direction, channels, sizes)
    assert kernels, "the exported program holds no Triton kernel"
    spilled = []
    for kernel in kernels:
        compiled = triton_toolchain.compile_kernel(kernel, folder, capability)
        about = {"kernel": kernel.name, "device": kind, "capability": capability, "image": image, "channels": channels}
        row = about | {"warps": kernel.num_warps} | dataclasses.asdict(compiled)
        rows.append(row)
        record_property("table", row)
        if compiled.spill_stores or compiled.spill_loads:
            spilled.append(row)
    assert not spilled


def kernels_of(direction, channels, sizes):
    size, arguments = shapes.YARDSTICK.size, [*shapes.gaussians(channels), shapes.lists()]
    if direction == "backward":
        arguments += [shapes.image(channels)] * 2
    function = {"forward": pallas_gpu.forward, "backward": pallas_gpu.backward}[direction]
    return triton_toolchain.kernels_of(lambda *a: function(*a, None, size, blocks=sizes), *arguments)


def test_sizes_that_must_spill_are_seen_to(folder):
    """The toolchain's own check: 16 cotangents and the rest of a pixel's state, eight pixels a thread."""
    shipped_sizes = blocks.default_for(blocks.GPU, "", 16, 1024)
    crowded = dataclasses.replace(shipped_sizes.backward, pixels=256, warps=1, channels=32)
    kernel = kernels_of("backward", 32, dataclasses.replace(shipped_sizes, backward=crowded))[0]
    compiled = triton_toolchain.compile_kernel(kernel, folder)
    assert compiled.registers >= 250 and compiled.spill_stores > 0


def test_a_compiler_that_refuses_is_reported(folder):
    kernel = triton_toolchain.Kernel(name="nonsense", triton_ir=b"not a module", num_warps=4, num_stages=1)
    with pytest.raises(triton_toolchain.CompilerFailure, match="nonsense"):
        triton_toolchain.compile_kernel(kernel, folder)
