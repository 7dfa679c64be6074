"""Flips the sign of every term of the hand-written backward passes, one at a time, and sees whether the tests notice.

    python -m tests.mutation.flip_vjp_signs [--backend reference|xla|cpu]

A term is an operand of a sum or difference, a negation, or a value that is assigned or returned (a
gradient's column, a factor of one); index arithmetic is none. The broken copy of the module lives in
memory only: neither the working tree nor Numba's cache is touched. It is judged as
`tests/renderers/kernels/composite/backward_test.py` judges the real one, by central differences. Exit
code 1 if a broken copy passes. (gsplat's PR 136, a wrong gradient that weak tests let through, is why.)
"""

import argparse
import ast
import copy
import dataclasses
import importlib.util
import sys
import types
from collections.abc import Iterator

import jax

from renderers.kernels.composite import blocks
from tests.renderers.kernels.composite import backward_test, finite_differences

# Names that count or index: an expression of nothing else is not part of a derivative.
_INDICES = set(
    "at channel channels CHUNK column columns end first GEOMETRY height i ids j k last left lists n np offsets part "
    "padded pl place rows sent slots start step stride TILE tile tiles top width x y _CHECK _MOMENTS _PARTS".split()
)
# Assigned values that are no derivative, or whose sign changes nothing, by backend and target.
_NO_TERMS = {
    ("xla", "rows"): "inputs, packed",
    ("xla", "((image, transmittance), (g_image, g_transmittance))"): "inputs, unpacked",
    ("xla", "((pixels, in_image), end)"): "pixel centres and the run's end",
    ("xla", "state"): "what the loop starts from, masks among it",
    ("xla", "tiles"): "indices",
    ("xla", "empty"): "zeros",
    ("xla", "old"): "rows of later tiles, still zero when a chunk reaches into them",
    ("xla", "opacity"): "used as a divisor, and replaced where it is not positive",
    ("cpu", "tile"): "an index",
    ("cpu", "per_row"): "zeros",
    ("cpu", "row"): "a view to write to",
    ("pallas_gpu_vjp", "((image, transmittance), (g_image, g_transmittance))"): "inputs, unpacked",
    ("pallas_gpu_vjp", "gaussian"): "an index",
    ("pallas_gpu_vjp", "row"): "an index",
    ("pallas_tpu_vjp", "((image, transmittance), (g_image, g_transmittance))"): "inputs, unpacked",
    ("pallas_tpu_vjp", "rows"): "inputs, packed",
    ("pallas_tpu_vjp", "drawn"): "a mask",
    ("pallas_tpu_vjp", "blocks"): "sizes",
    ("pallas_tpu_vjp", "call"): "a function",
    ("pallas_tpu_vjp", "part"): "a size",
    ("pallas_tpu_vjp", "taken"): "indices",
    ("pallas_tpu_vjp", "empty"): "zeros",
    ("pallas_tpu_vjp", "pixels"): "pixel centres",
    ("pallas_tpu_vjp", "departing"): "a function",
    ("pallas_tpu_vjp", "weights[...]"): "zeros",
    ("pallas_tpu_vjp", "sums[...]"): "zeros",
    ("pallas_tpu_vjp", "here"): "indices",
    ("pallas_tpu_vjp", "after"): "the state after a chunk, unpacked later",
    ("pallas_tpu_vjp", "slot"): "an index",
    ("pallas_tpu_vjp", "walk"): "where to read",
    ("pallas_tpu_vjp", "over_pixels"): "a function",
}
_MASKS = {"alive", "inside", "in_image"}
_BROKEN_FUNCTIONS = {
    "reference": ("_at_pixels_backward",),
    "xla": ("backward",),
    "cpu": ("backward", "_load_tile", "_sum_by_gaussian"),
    "pallas_gpu_vjp": ("backward", "visit", "add"),
    "pallas_tpu_vjp": ("backward", "_sum_by_gaussian", "_backward_kernel", "_step"),
}
_SMALL_CHUNK = 4  # the xla pass unrolls a chunk: this compiles four times faster


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A module with one sign flipped."""

    backend: str
    line: int
    term: str
    tree: ast.Module


def mutants(backend: str) -> Iterator[Mutant]:
    """All mutants of a backend, by the order of its source."""
    tree = ast.parse(_source(backend))
    for number, (line, term) in enumerate(_flip(backend, copy.deepcopy(tree), None)):
        mutated = copy.deepcopy(tree)
        list(_flip(backend, mutated, number))
        yield Mutant(backend, line, term, ast.fix_missing_locations(mutated))


def _source(backend):
    return importlib.util.find_spec(f"renderers.kernels.composite.{backend}").loader.get_source(None)


def _flip(backend, tree, chosen):
    """Name every term as (line, code); flip the one numbered `chosen` in place."""
    sites = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in _BROKEN_FUNCTIONS[backend]:
            for parent in ast.walk(function):
                sites += _terms(backend, parent)
    sites.sort(key=lambda site: (site[0].lineno, site[0].col_offset))
    for number, (node, holder, field, index) in enumerate(sites):
        term = ast.unparse(node)
        if number == chosen:
            _replace(holder, field, index, _negated(node))
        yield node.lineno, term


def _terms(backend, parent):
    """Terms that a node holds, as (node, holder, field, index in the field's list or None)."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, (ast.Add, ast.Sub)) and not _is_index(parent):
        if not (isinstance(parent.left, ast.BinOp) and isinstance(parent.left.op, (ast.Add, ast.Sub))):
            yield parent.left, parent, "left", None
        yield parent.right, parent, "right", None
    elif isinstance(parent, ast.AugAssign) and not _is_index(parent.value):
        yield parent.value, parent, "value", None
    elif isinstance(parent, ast.Return) and isinstance(parent.value, ast.Tuple):
        yield from _each(parent.value)
    elif isinstance(parent, ast.Assign) and (backend, ast.unparse(parent.targets[0])) not in _NO_TERMS:
        if isinstance(parent.value, (ast.List, ast.Tuple)):
            yield from _each(parent.value)
        elif _is_number(parent.value) and not isinstance(parent.targets[0], ast.Tuple):
            yield parent.value, parent, "value", None


def _each(sequence):
    for index, element in enumerate(sequence.elts):
        named = isinstance(element, (ast.Name, ast.Starred)) and not _is_constant(element)
        if _is_number(element) or named and ast.unparse(element) not in _MASKS:
            yield element, sequence, "elts", index


def _is_number(value):
    """A computed number or array: no mask, index, constant, fresh array or result to unpack."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.BitAnd, ast.BitOr)):
        return False
    fresh = isinstance(value, ast.Call) and ast.unparse(value.func) in ("np.empty", "np.zeros", "splat", "bin_tiles")
    return isinstance(value, (ast.BinOp, ast.UnaryOp, ast.Call, ast.Subscript, ast.IfExp)) and not (
        fresh or _is_index(value) or _is_constant(value)
    )


def _names(node):
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _is_index(node):
    names = _names(node)
    return bool(names) and names <= _INDICES


def _is_constant(node):
    return all(name == "jnp" or name.strip("_").isupper() or name in ("zero", "None") for name in _names(node))


def _negated(node):
    """-1 times a term: a product, since Numba's vector lanes have no unary minus."""
    if isinstance(node, ast.Starred):
        return ast.Starred(_negated(node.value), ast.Load())
    return ast.BinOp(node, ast.Mult(), ast.parse("-_ONE", mode="eval").body)


def _replace(holder, field, index, new):
    if index is None:
        setattr(holder, field, new)
    else:
        getattr(holder, field)[index] = new


def load(backend: str, tree: ast.Module) -> types.ModuleType:
    """The module that a tree compiles to; its Numba functions neither run in parallel nor touch the disk cache."""
    name = f"renderers.kernels.composite.{backend}"
    tree = copy.deepcopy(tree)
    for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword)):
        if keyword.arg in ("cache", "parallel"):
            keyword.value = ast.Constant(False)
    module = types.ModuleType(name)
    module.__dict__["_ONE"] = 1.0  # the cpu module defines its own, in float32
    module.__file__ = importlib.util.find_spec(name).origin
    exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), module.__dict__)
    if backend == "xla":
        module.CHUNK = _SMALL_CHUNK
    if backend == "pallas_tpu_vjp":
        module.tpu_blocks = lambda: blocks.TpuBlocks(chunk=128, step=8)
    return module


def error_of(backend: str, tree: ast.Module) -> float:
    """How far the gradients of a module are from central differences, relative to each column's largest."""
    run, _ = backward_test.PASSES[backend]
    return finite_differences.largest_error(run(load(backend, tree)))


def is_noticed(backend: str, tree: ast.Module) -> bool:
    """Whether `backward_test.py` would fail with this module."""
    return not error_of(backend, tree) < backward_test.TOLERANCES[backend]


def main(backends: list[str]) -> int:
    """Prints a line a mutant and a table; 1 if one survived or the unbroken module failed."""
    table, survivors = [], []
    for backend in backends:
        if is_noticed(backend, ast.parse(_source(backend))):
            print(f"the unbroken {backend} pass fails: nothing can be learnt from mutants")
            return 1
        found = list(mutants(backend))
        for mutant in found:
            error = error_of(backend, mutant.tree)
            killed = not error < backward_test.TOLERANCES[backend]
            if not killed:
                survivors.append(mutant)
            print(
                f"{'killed  ' if killed else 'SURVIVED'} {backend}.py:{mutant.line:<4} {error:8.1e}  {mutant.term}",
                flush=True,
            )
            jax.clear_caches()
        table.append((backend, len(found), sum(mutant.backend == backend for mutant in survivors)))
    print(f"\n{'backend':<10} {'mutants':>8} {'killed':>8} {'survived':>8}")
    for backend, count, survived in table:
        print(f"{backend:<10} {count:>8} {count - survived:>8} {survived:>8}")
    return 1 if survivors else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=sorted(_BROKEN_FUNCTIONS), help="only this one; all if left out")
    chosen = parser.parse_args().backend
    sys.exit(main([chosen] if chosen else list(_BROKEN_FUNCTIONS)))
