"""Pallas kernels for NVIDIA GPUs, compiled with no GPU: exported program -> Triton IR -> PTX -> SASS.

The last step is NVIDIA's assembler, which states registers a thread and spilled bytes. A kernel that spills keeps part
of its pixels' state in memory; it is right, but slow.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import pytest
from jax import export
from jax._src.interpreters import mlir as jax_mlir  # the only way to JAX's dialects, without which no IR is parsed
from jax._src.lib.mlir import ir

from tests.helpers.sources import ROOT

_OLD_TARGET = "__gpu$xla.gpu.triton"  # jaxlib <= 0.10.2: the custom call holds Triton IR
_NEW_TARGET = "triton_kernel_call_ffi"  # later: it holds PTX, which only the CUDA plugin can make while lowering
_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Triton kernel as XLA would receive it."""

    name: str
    triton_ir: bytes
    num_warps: int
    num_stages: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compilers say of a kernel.

    Attributes:
      registers: a thread; 255 at most.
      spill_stores: bytes a thread writes to local memory for want of registers.
      spill_loads: bytes read back.
      barriers: in the PTX, each a wait of all warps; those in loops count once.
      shared_bytes: of shared memory a block.
      ptx_bytes: length of the PTX.
    """

    registers: int
    spill_stores: int
    spill_loads: int
    barriers: int
    shared_bytes: int
    ptx_bytes: int


class CompilerFailure(AssertionError):
    """A compiler refused a kernel, or crashed on it."""


def kernels_of(function, *arguments) -> list[Kernel]:
    """The Triton kernels in a function exported for CUDA; skips where this JAX cannot export them with no GPU."""
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in (_OLD_TARGET, _NEW_TARGET)]
    try:
        exported = export.export(jax.jit(function), platforms=["cuda"], disabled_checks=checks)(*arguments)
    except Exception as error:
        if "Triton compilation handler" in str(error):
            pytest.skip(f"JAX {jax.__version__} compiles Triton while it lowers, which takes its CUDA plugin: {error}")
        raise
    module = exported.mlir_module()
    if _NEW_TARGET in module:
        pytest.skip(f"JAX {jax.__version__} exports finished PTX ({_NEW_TARGET}) in place of Triton IR")
    return [
        Kernel(
            name=ir.StringAttr(config["name"]).value,
            triton_ir=ir.StringAttr(config["ir"]).value_bytes,
            num_warps=ir.IntegerAttr(config["num_warps"]).value,
            num_stages=ir.IntegerAttr(config["num_stages"]).value,
        )
        for config in custom_calls(module, _OLD_TARGET)
    ]


def custom_calls(module: str, target: str) -> list[ir.DictAttr]:
    """What the custom calls of an exported program tell their compiler."""
    found = []

    def visit(operation):
        if operation.name == "stablehlo.custom_call" and target in str(operation.attributes["call_target_name"]):
            found.append(ir.DictAttr(operation.attributes["mhlo.backend_config"]))
        return ir.WalkResult.ADVANCE

    with jax_mlir.make_ir_context():
        ir.Module.parse(module).operation.walk(visit)
        return found


def compile_kernel(kernel: Kernel, folder: pathlib.Path, arch: str = "9.0") -> Compiled:
    """Compile down to machine code.

    Args:
      kernel: from `kernels_of`.
      folder: of the tools.
      arch: compute capability, "9.0" for Hopper.

    Raises:
      CompilerFailure: with what the compiler said.
    """
    sizes = (arch, str(kernel.num_warps), str(kernel.num_stages))
    done = run_child(kernel.name, "tests.aot.triton_to_ptx", str(folder), *sizes, stdin=kernel.triton_ir)
    ptx, about = done.stdout.decode(), json.loads(done.stderr.splitlines()[-1])
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None, ptx[:400]
    with tempfile.TemporaryDirectory() as scratch:
        source, binary = pathlib.Path(scratch) / "kernel.ptx", pathlib.Path(scratch) / "kernel.cubin"
        source.write_text(ptx)
        assembler = folder / "nvidia" / "cu13" / "bin" / "ptxas"
        command = [str(assembler), "-v", f"-arch={target[1]}", str(source), "-o", str(binary)]
        said = _run(kernel.name, command, b"", {}).stderr.decode()
    return assembled(ptx, said, about["shared_bytes"])


def assembled(ptx: str, said: str, shared_bytes: int) -> Compiled:
    """Reads what NVIDIA's assembler said of a kernel."""
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    registers = re.search(r"Used (\d+) registers", said)
    assert spills is not None and registers is not None, said
    return Compiled(
        registers=int(registers[1]),
        spill_stores=int(spills[1]),
        spill_loads=int(spills[2]),
        barriers=len(re.findall(r"\bbar(?:rier)?\.sync", ptx)),
        shared_bytes=shared_bytes,
        ptx_bytes=len(ptx),
    )


def run_child(
    name: str, module: str, *arguments: str, stdin: bytes, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a module of this folder in a process of its own.

    Raises:
      CompilerFailure: it failed, crashed, or took too long to compile the kernel `name`.
    """
    return _run(name, [sys.executable, "-m", module, *arguments], stdin, environment or {})


def _run(name, command, stdin, environment):
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=ROOT,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired as late:
        raise CompilerFailure(f"{name}: {command[:3]} took more than {_SECONDS} s") from late
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-2000:]
        raise CompilerFailure(f"{name}: {command[:3]} ended with {done.returncode}: {said}")
    return done
