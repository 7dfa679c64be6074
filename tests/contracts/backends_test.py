"""Every kernel folder has a reference and a dispatch that meets or refuses each backend with a reason."""

import ast
import re
import typing

import pytest

from renderers.kernels import dispatch
from renderers.kernels.dispatch import Backend, Unsupported, choose
from tests.helpers import sources

KERNELS = sources.ROOT / "renderers" / "kernels"
OPERATIONS = sorted(path.parent for path in KERNELS.rglob("api.py"))
BACKENDS = typing.get_args(Backend)
operations = pytest.mark.parametrize("folder", OPERATIONS, ids=lambda folder: folder.name)


def test_there_are_operations():
    assert KERNELS / "composite" in OPERATIONS


@operations
def test_an_operation_has_its_truth_and_its_real_shapes(folder):
    for name in ("reference.py", "shapes.py", "__init__.py"):
        assert (folder / name).exists(), f"{folder.name} lacks {name}"


@operations
def test_an_operation_defines_its_derivative_once(folder):
    """`custom_vjp` of the dispatching operation lives in api.py; the reference may have its own helpers."""
    for path in folder.glob("*.py"):
        if path.name not in ("api.py", "reference.py"):
            assert "custom_vjp" not in path.read_text(), f"{path.name}: derivatives of an operation belong in api.py"


@operations
def test_the_reference_needs_no_other_backend(folder):
    allowed = re.compile(rf"renderers\.kernels\.{folder.name}\.(xla|cpu\w*|pallas_\w+|api)\b")
    imported = set(sources.all_imports(sources.tree(folder / "reference.py")))
    assert not [name for name in imported if allowed.match(name)]


@operations
def test_the_signature_of_every_operation_offers_the_same_backends(folder):
    function = next(
        node
        for node in ast.walk(sources.tree(folder / "api.py"))
        if isinstance(node, ast.FunctionDef) and any(a.arg == "backend" for a in node.args.kwonlyargs)
    )
    argument = next(a for a in function.args.kwonlyargs if a.arg == "backend")
    assert ast.unparse(argument.annotation) == "Backend | None"
    assert "Raises:" in ast.get_docstring(function) and "Unsupported" in ast.get_docstring(function)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_is_dispatched_or_refused_with_a_reason(monkeypatch, backend, platform, dtype, missing):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: missing)
    try:
        assert choose(backend, platform, dtype) == backend
    except Unsupported as refusal:
        message = str(refusal)
        assert repr(backend) in message and len(message) > 30
        assert re.search(r"use 'xla'", message), "a refusal names what can run"
    assert choose(None, platform, dtype) in BACKENDS


def _pallas_kernels(folder):
    """What the operation's api passes to `choose` as `pallas`; all kernels if nothing."""
    calls = [
        node
        for node in ast.walk(sources.tree(folder / "api.py"))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("choose")
    ]
    given = {ast.unparse(k.value) for call in calls for k in call.keywords if k.arg == "pallas"}
    assert calls and len(given) <= 1, f"{folder.name}: every call of `choose` says the same of Pallas, got {given}"
    return ast.literal_eval(given.pop()) if given else True


@operations
def test_what_the_dispatch_accepts_has_a_file(folder, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: False)
    pallas = _pallas_kernels(folder)
    for backend in BACKENDS:
        accepted = False
        for platform in ("cpu", "gpu", "tpu"):
            try:
                accepted |= choose(backend, platform, pallas=pallas) == backend
            except Unsupported:
                continue
        assert (folder / f"{backend}.py").exists() == accepted, f"{folder.name}/{backend}.py"
