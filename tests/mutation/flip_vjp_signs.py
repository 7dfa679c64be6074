"""Flips the sign of every term of the hand-written backward passes, one at a time, and sees whether the tests notice.

    python -m tests.mutation.flip_vjp_signs [--only=composite/cpu]

A term is an operand of a sum or difference, a negation, or a value that is assigned or returned (a
gradient's column, a factor of one); index arithmetic is none. The broken copy of the module lives in
memory only: neither the working tree nor Numba's cache is touched. It is judged as the test file that
`targets.py` names judges the real one. Exit code 1 if a broken copy passes. (gsplat's PR 136, a wrong
gradient that weak tests let through, is why.)
"""

import argparse
import ast
import copy
import dataclasses
import importlib.util
import inspect
import math
import sys
import types
from collections.abc import Iterator

import jax
import pytest

from renderers.kernels import jit_numba
from tests.mutation import lanes
from tests.mutation.targets import TARGETS

# Names that count or index: an expression of nothing else is not part of a derivative.
_INDICES = set(
    "at begin channel channels chunk _CHUNK CHUNK column columns corner end first GEOMETRY height i ids j k last left "
    "lists n note np offsets own padded part parts pl place row rows sent slots start step stride TILE tile tiles top "
    "which width x y _BLOCK _CHECK _MOMENTS _PARTS".split()
)
_MASKS = {"alive", "inside", "in_image"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A module with one sign flipped."""

    target: str
    line: int
    term: str
    tree: ast.Module


def mutants(name: str) -> Iterator[Mutant]:
    """All mutants of a target, by the order of its source."""
    tree = parsed(name)
    for number, (line, term) in enumerate(_flip(TARGETS[name], copy.deepcopy(tree), None)):
        mutated = copy.deepcopy(tree)
        list(_flip(TARGETS[name], mutated, number))
        yield Mutant(name, line, term, ast.fix_missing_locations(mutated))


def parsed(name: str) -> ast.Module:
    """The tree of a target's module as it is."""
    return ast.parse(_source(TARGETS[name].module))


def _source(module):
    return importlib.util.find_spec(f"renderers.kernels.{module}").loader.get_source(None)


def _flip(target, tree, chosen):
    """Name every term as (line, code); flip the one numbered `chosen` in place."""
    sites = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in target.functions:
            places = _places(function)
            for parent in ast.walk(function):
                if parent not in places:
                    sites += _terms(target, parent)
    sites.sort(key=lambda site: (site[0].lineno, site[0].col_offset))
    for number, (node, holder, field, index) in enumerate(sites):
        term = ast.unparse(node)
        if number == chosen:
            _replace(holder, field, index, _negated(node))
        yield node.lineno, term


def _places(function):
    """All nodes that say where something lies: subscripts, ranges, the addresses of vector registers."""
    roots = []
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript):
            roots.append(node.slice)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            roots += node.args if called in ("range", "nb.prange") else node.args[1:2] * (called in ("load", "store"))
    return {node for root in roots for node in ast.walk(root)}


def _terms(target, parent):
    """Terms that a node holds, as (node, holder, field, index in the field's list or None)."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, (ast.Add, ast.Sub)) and not _is_index(target, parent):
        if not (isinstance(parent.left, ast.BinOp) and isinstance(parent.left.op, (ast.Add, ast.Sub))):
            yield from _operand(target, parent, "left")
        yield from _operand(target, parent, "right")
    elif isinstance(parent, ast.AugAssign) and not _is_index(target, parent.value):
        yield parent.value, parent, "value", None
    elif isinstance(parent, ast.Return) and isinstance(parent.value, ast.Tuple):
        yield from _each(target, parent.value)
    elif isinstance(parent, ast.Assign) and ast.unparse(parent.targets[0]) not in target.no_terms:
        if isinstance(parent.value, (ast.List, ast.Tuple)):
            yield from _each(target, parent.value)
        elif _is_number(target, parent.value) and not isinstance(parent.targets[0], ast.Tuple):
            yield parent.value, parent, "value", None


def _operand(target, parent, side):
    term = getattr(parent, side)
    if ast.unparse(term) not in target.no_terms:
        yield term, parent, side, None


def _each(target, sequence):
    for index, element in enumerate(sequence.elts):
        named = isinstance(element, (ast.Name, ast.Starred)) and not _is_constant(element)
        if _is_number(target, element) or named and ast.unparse(element) not in _MASKS:
            yield element, sequence, "elts", index


def _is_number(target, value):
    """A computed number or array: no mask, index, constant, fresh array or result to unpack."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.BitAnd, ast.BitOr)):
        return False
    fresh = isinstance(value, ast.Call) and ast.unparse(value.func) in ("np.empty", "np.zeros", "splat", "bin_tiles")
    return isinstance(value, (ast.BinOp, ast.UnaryOp, ast.Call, ast.Subscript, ast.IfExp)) and not (
        fresh or _is_index(target, value) or _is_constant(value)
    )


def _names(node):
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _is_index(target, node):
    names = _names(node)
    return bool(names) and names <= _INDICES | target.indices


def _is_constant(node):
    return all(name == "jnp" or name.strip("_").isupper() or name in ("zero", "None") for name in _names(node))


def _negated(node):
    """-1 times a term: a product, since Numba's vector lanes have no unary minus."""
    if isinstance(node, ast.Starred):
        return ast.Starred(_negated(node.value), ast.Load())
    return ast.BinOp(node, ast.Mult(), ast.Name("_FLIP", ast.Load()))


def _replace(holder, field, index, new):
    if index is None:
        setattr(holder, field, new)
    else:
        getattr(holder, field)[index] = new


class _Sign:
    """What a term is multiplied by in plain Python, where terms may be tuples of numbers."""

    __array_ufunc__ = None

    def __rmul__(self, term):
        return tuple(part * self for part in term) if isinstance(term, tuple) else -1.0 * term


def load(name: str, tree: ast.Module) -> types.ModuleType:
    """The module that a target's error is of, on the module that a tree compiles to.

    Numba functions neither run in parallel nor touch the disk cache.
    """
    target = TARGETS[name]
    loaded = _executed(target.module, tree, target.interpreted)
    with pytest.MonkeyPatch.context() as patch:
        for module in target.beneath:
            patch.setitem(sys.modules, loaded.__name__, loaded)
            loaded = _executed(module, ast.parse(_source(module)), target.interpreted)
    return loaded


def _executed(name, tree, interpreted):
    tree = copy.deepcopy(tree)
    for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword)):
        if keyword.arg in ("cache", "parallel"):
            keyword.value = ast.Constant(False)
    name = f"renderers.kernels.{name}"
    module = types.ModuleType(name)
    module.__file__ = importlib.util.find_spec(name).origin
    with pytest.MonkeyPatch.context() as patch:
        if interpreted:
            patch.setattr(jit_numba, "njit", lambda **options: inspect.unwrap)
            for holder, functions in lanes.PLAIN.items():
                for function in functions:
                    patch.setattr(holder, function, functions[function])
        exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), module.__dict__)
    module.__dict__["_FLIP"] = _Sign() if interpreted else -module.__dict__.get("_ONE", 1.0)  # some are in float32
    return module


def error_of(name: str, tree: ast.Module) -> float:
    """How far the gradients of a module are from the truth, in units of what the named test lets through."""
    try:
        return TARGETS[name].error(load(name, tree))
    except (ArithmeticError, ValueError):  # plain Python raises where Numba goes on with infinities and NaNs
        return math.inf


def is_noticed(name: str, tree: ast.Module) -> bool:
    """Whether the target's test would fail with this module."""
    return not error_of(name, tree) < 1


def main(names: list[str]) -> int:
    """Prints a line a mutant and a table; 1 if one survived or the unbroken module failed."""
    table, survivors = [], 0
    for name in names:
        if is_noticed(name, parsed(name)):
            print(f"the unbroken {name} pass fails: nothing can be learnt from mutants")
            return 1
        found, killed = list(mutants(name)), 0
        for mutant in found:
            error = error_of(name, mutant.tree)
            noticed = not error < 1
            killed += noticed
            print(
                f"{'killed  ' if noticed else 'SURVIVED'} {name}.py:{mutant.line:<4} {error:8.1e}  {mutant.term}",
                flush=True,
            )
            if not TARGETS[name].interpreted:
                jax.clear_caches()
        table.append((name, len(found), killed, TARGETS[name].test))
        survivors += len(found) - killed
    print(f"\n{'module':<28} {'mutants':>8} {'killed':>8} {'survived':>8}  judged as by tests/renderers/kernels/")
    for name, count, killed, test in table:
        print(f"{name:<28} {count:>8} {killed:>8} {count - killed:>8}  {test}")
    return 1 if survivors else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(TARGETS), help="only this one; all if left out")
    chosen = parser.parse_args().only
    sys.exit(main([chosen] if chosen else list(TARGETS)))
