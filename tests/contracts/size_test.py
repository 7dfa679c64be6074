"""How large files and signatures are: a report (`pytest -s`), and a failure where a file has clearly grown too far."""

import ast

from tests.helpers import sources

REPORTED_LINES, MOST_LINES = 400, 600
REPORTED_ARGUMENTS = 14
NAMELESS = {"utils.py", "util.py", "common.py", "misc.py", "helpers.py"}


def num_lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def num_arguments(function):
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def test_files_stay_readable():
    sizes = {path: num_lines(path) for path in sources.python_files(*sources.PACKAGES)}
    for path, lines in sizes.items():
        if lines > REPORTED_LINES:
            print(
                f"{path.relative_to(sources.ROOT)} has {lines} lines; above {REPORTED_LINES} it wants to be two files"
            )
    too_long = {str(path.relative_to(sources.ROOT)): lines for path, lines in sizes.items() if lines > MOST_LINES}
    assert not too_long


def test_long_signatures_are_reported():
    longest = 0
    for path in sources.python_files(*sources.PACKAGES):
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                longest = max(longest, num_arguments(node))
                if num_arguments(node) > REPORTED_ARGUMENTS:
                    where = f"{path.relative_to(sources.ROOT)}:{node.lineno}"
                    print(
                        f"{where}: {node.name} takes {num_arguments(node)} arguments; a record would carry some of them"
                    )
    assert longest > 0
    assert num_arguments(ast.parse("def f(a, /, b, *c, d=1, **e): pass").body[0]) == 3


def test_files_are_named_for_what_they_hold():
    bad = [str(path) for path in sources.python_files(*sources.PACKAGES) if path.name in NAMELESS]
    assert not bad
