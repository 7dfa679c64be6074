"""Child process: Triton IR on standard input, PTX on standard output, a line of JSON about it on standard error.

    python -m tests.aot.triton_to_ptx FOLDER ARCH NUM_WARPS NUM_STAGES

A process of its own, as some valid IR crashes the compiler of jaxlib 0.10.2 (specs/renderers/kernels.md, B).
"""

import importlib.util
import json
import sys

from jaxlib import xla_client

PLUGIN = "jax_plugins/xla_cuda13/xla_cuda_plugin.so"


def compile_triton(folder: str, triton_ir: bytes, arch: str, num_warps: int, num_stages: int):
    """The plugin's compiler, loaded by path: were its folder on `sys.path`, JAX would look for a GPU."""
    path = f"{folder}/jax_cuda13_plugin/cuda_plugin_extension.so"
    spec = importlib.util.spec_from_file_location("cuda_plugin_extension", path)
    assert spec is not None and spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    plugin = xla_client.load_pjrt_plugin_dynamically("cuda", f"{folder}/{PLUGIN}")
    return extension.compile_triton_to_asm(plugin, triton_ir, arch, num_warps, 1, num_stages)


def main(folder: str, arch: str, num_warps: str, num_stages: str) -> None:
    """Compile one kernel."""
    compiled = compile_triton(folder, sys.stdin.buffer.read(), arch, int(num_warps), int(num_stages))
    print(json.dumps({"shared_bytes": compiled.smem_bytes}), file=sys.stderr)
    sys.stdout.write(compiled.asm)


if __name__ == "__main__":
    main(*sys.argv[1:])
