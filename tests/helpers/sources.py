"""Reads the repository's Python files without running them: modules, imports, calls."""

import ast
import functools
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARIES = ("renderers", "generators", "humans", "motion")
PACKAGES = (*LIBRARIES, "experiments")


def python_files(*packages: str) -> list[pathlib.Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(node: ast.AST, module: str = "", is_package: bool = False) -> list[str]:
    """Full names that a node imports; `from a import b` names both `a` and `a.b`, as b may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            parent = parts[: len(parts) - node.level + is_package]
            base = ".".join([*parent, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and called(node) in ("importlib.import_module", "import_module", "__import__"):
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def called(node: ast.Call) -> str:
    """The dotted name that a call is written with, "" if it is not a name."""
    parts, target = [], node.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    return ".".join([target.id, *reversed(parts)]) if isinstance(target, ast.Name) else ""


def all_imports(module: ast.Module, name: str = "", is_package: bool = False) -> Iterator[str]:
    """Everything imported anywhere in a file, functions included."""
    for node in ast.walk(module):
        yield from imported(node, name, is_package)


def imports_at_start(module: ast.Module, name: str = "", is_package: bool = False) -> Iterator[str]:
    """What importing a file imports: everything but the bodies of functions and of `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        yield from imported(node, name, is_package)
        waiting += list(ast.iter_child_nodes(node))


def entry_points() -> list[pathlib.Path]:
    """Files of `experiments` that end by calling `flags.run`: the programs that users start."""
    return [path for path in python_files("experiments") if any(map(_is_run, ast.walk(tree(path))))]


def _is_run(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and called(node) == "flags.run"
