"""Child process: a Mosaic GPU module on standard input, compiled into files in `MOSAIC_GPU_DUMP_TO`.

    python -m tests.aot.mosaic_to_sass FOLDER TRITON_IR

The CUDA plugin registers LLVM's code generator for NVIDIA when it first compiles something else, hence the Triton
kernel in the file TRITON_IR. Needs a CUDA driver to ask for the device: a stub does.
"""

import ctypes
import pathlib
import sys

from tests.aot import triton_to_ptx


def main(folder: str, triton_ir: str) -> None:
    """Compile one module."""
    triton_to_ptx.compile_triton(folder, pathlib.Path(triton_ir).read_bytes(), "9.0", 4, 1)
    library = ctypes.CDLL(f"{folder}/{triton_to_ptx.PLUGIN}")
    library.MosaicGpuCompile.restype = ctypes.c_void_p
    library.MosaicGpuCompile.argtypes = [ctypes.c_char_p, ctypes.c_int]
    module = sys.stdin.buffer.read()
    if not library.MosaicGpuCompile(module, len(module)):
        raise SystemExit("MosaicGpuCompile returned nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
