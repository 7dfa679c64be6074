"""Child process: compile compositing for a TPU that is not there; prints one line of JSON.

    python -m tests.aot.tpu_compile FOLDER TOPOLOGY forward|backward|operation CHANNELS

`operation` is what users call, binning, forward and backward pass; the others are the kernels and what surrounds them.
A process of its own, as libtpu is found through the environment, takes a lock and ends the process where it fails.
"""

import json
import os
import sys
import time


def main(folder: str, topology: str, what: str, channels: str) -> None:
    """Compile one program."""
    os.environ |= {
        "TPU_LIBRARY_PATH": f"{folder}/libtpu/libtpu.so",
        "TPU_SKIP_MDS_QUERY": "1",  # or it looks for a cloud's metadata server
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is driven that could be shared
        "JAX_PLATFORMS": "cpu",
    }
    import jax
    from jax.experimental import topologies
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    function, arguments = _program(what, int(channels))
    one = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), arguments)
    began = time.perf_counter()
    # some operations lower by the TPU's generation, which JAX otherwise asks the default device for
    kind = AbstractDevice(device_kind=device.device_kind, num_cores=1, platform="tpu")
    with use_abstract_mesh(AbstractMesh((1,), ("device",), abstract_device=kind)):
        lowered = jax.jit(function, out_shardings=one).lower(*arguments)
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    result = {
        "device": device.device_kind,
        "mosaic_kernels": lowered.as_text().count("custom_call @tpu_custom_call"),
        "seconds": round(time.perf_counter() - began, 1),
        "code_bytes": memory.generated_code_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }
    print(json.dumps(result))


def _program(what, channels):
    import jax

    from renderers.kernels.composite import pallas_tpu
    from renderers.kernels.composite.api import composite
    from tests.aot import shapes

    size, gaussians, image = shapes.YARDSTICK.size, shapes.gaussians(channels), shapes.image(channels)
    if what == "forward":
        return lambda *a: pallas_tpu.forward(*a, None, size), (*gaussians, shapes.lists())
    if what == "backward":
        return lambda *a: pallas_tpu.backward(*a, None, size), (*gaussians, shapes.lists(), image, image)
    assert what == "operation", what

    def operation(inputs, boxes, cotangents):
        def run(*inputs):
            blended = composite(*inputs, *boxes, size=size, capacity=shapes.CAPACITY, backend="pallas_tpu")
            return blended.image, blended.transmittance

        outputs, pull = jax.vjp(run, *inputs)
        return outputs, pull(cotangents)

    return operation, (gaussians, shapes.boxes(), image)


if __name__ == "__main__":
    main(*sys.argv[1:])
