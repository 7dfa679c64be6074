"""Who may import what: independent libraries, programs that answer `--help` without jax, nothing that unpickles."""

import ast
import dataclasses
import functools
import importlib
import re
import subprocess
import sys
import time

import pytest

from experiments import flags
from tests.helpers import programs, sources

# Libraries of experiments, of test oracles, and packages whose licence or weight keeps them out altogether.
FORBIDDEN_IN_LIBRARIES = {"absl", "optax", "orbax", "torch", "smplx", "rich", "tensorboardX"}
FORBIDDEN_EVERYWHERE = {"torch", "smplx", "plyfile", "nvdiffrast", "tensorflow", "clu"}
EXCEPTIONS = {"humans/fitting": {"optax"}}
NUMBA_FOLDER = "renderers/kernels/"
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAY_UNPICKLE = {
    # Restricted unpicklers with an allow-list of harmless names (reliability.md, R5); nothing else may read pickles.
    "humans/pickles.py",
    "generators/weights/torch_pickle.py",
}
CONFIG_MODULES = re.compile(r"experiments\.(config_fields|configs(\..*)?)$")
# Programs without a workdir.
NO_RUN = {"experiments.doctor", "experiments.view", "experiments.bench.__main__", "experiments.bench.tune"}


def library_violations(module: ast.Module, path: str) -> list[str]:
    """Imports of a library's file that it must not have; `path` is relative to the repository."""
    package = path.split("/")[0]
    forbidden = {*sources.PACKAGES, "tests", *FORBIDDEN_IN_LIBRARIES, *FORBIDDEN_EVERYWHERE} - {package}
    for folder, allowed in EXCEPTIONS.items():
        forbidden -= allowed if path.startswith(folder) else set()
    if not path.startswith(NUMBA_FOLDER):
        forbidden |= {"numba", "llvmlite"}
    tops = {name.split(".")[0] for name in sources.all_imports(module)}
    return sorted(tops & forbidden)


def unpickling(module: ast.Module) -> list[str]:
    """Ways of a file to run code out of data: pickles, `allow_pickle`, `torch.load`, eval and exec."""
    found = {name.split(".")[0] for name in sources.all_imports(module)} & PICKLERS
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name = sources.called(node)
        if name in ("torch.load", "eval", "exec", "pandas.read_pickle", "pd.read_pickle"):
            found.add(name)
        for keyword in node.keywords:
            allows = keyword.arg == "allow_pickle" and not _is_false(keyword.value)
            if allows or (keyword.arg == "weights_only" and _is_false(keyword.value)):
                found.add(keyword.arg)
    return sorted(found)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@functools.cache
def loaded_with(name: str) -> frozenset[str]:
    """All modules that importing one of ours loads, our own followed to the end, others by their top-level name."""
    path = sources.ROOT / (name.replace(".", "/") + ".py")
    is_package = not path.exists()
    path = path.with_suffix("") / "__init__.py" if is_package else path
    if not path.exists():
        return frozenset()  # A name in a module, not a module.
    parents = {name.rpartition(".")[0]} - {""}
    found = {name}
    for other in {*sources.imports_at_start(sources.tree(path), name, is_package), *parents}:
        ours = other.split(".")[0] in (*sources.PACKAGES, "tests")
        found |= loaded_with(other) if ours else {other.split(".")[0]}
    return frozenset(found)


@pytest.mark.parametrize("package", sources.LIBRARIES)
def test_libraries_are_independent(package):
    bad = {
        sources.module_name(path): violations
        for path in sources.python_files(package)
        if (violations := library_violations(sources.tree(path), str(path.relative_to(sources.ROOT))))
    }
    assert not bad, f"a library stands alone: move the wiring to experiments ({bad})"


def test_no_program_needs_what_we_may_not_use():
    bad = {}
    for path in sources.python_files("experiments"):
        tops = {name.split(".")[0] for name in sources.all_imports(sources.tree(path))}
        if tops & (FORBIDDEN_EVERYWHERE | {"tests"}):
            bad[sources.module_name(path)] = tops & (FORBIDDEN_EVERYWHERE | {"tests"})
    assert not bad


def test_nothing_unpickles():
    bad = {}
    for path in sources.python_files(*sources.PACKAGES):
        relative = str(path.relative_to(sources.ROOT))
        if relative not in MAY_UNPICKLE and (found := unpickling(sources.tree(path))):
            bad[relative] = found
    assert not bad, f"data must not run code: read arrays with allow_pickle=False, see MAY_UNPICKLE ({bad})"


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        ("import humans.skinning", "renderers/a.py", ["humans"]),
        ("def f():\n    from experiments import flags", "renderers/a.py", ["experiments"]),
        ("import importlib\nimportlib.import_module('motion.clips')", "humans/a.py", ["motion"]),
        ("from absl import flags\nimport torch as t, jax", "motion/a.py", ["absl", "torch"]),
        ("import optax", "humans/fitting/solve.py", []),
        ("import optax", "humans/a.py", ["optax"]),
        ("import numba as nb", "renderers/kernels/composite/cpu.py", []),
        ("import numba as nb", "renderers/gaussians/a.py", ["numba"]),
        ("from renderers.cameras import camera\nimport jax.numpy", "renderers/a.py", []),
    ],
)
def test_the_check_of_libraries_sees(source, path, expected):
    assert library_violations(ast.parse(source), path) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import Unpickler", ["pickle"]),
        ("np.load(p, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(p, allow_pickle=flag)", ["allow_pickle"]),
        ("np.load(p, allow_pickle=False)", []),
        ("np.load(p)", []),
        ("torch.load(p, weights_only=False)", ["torch.load", "weights_only"]),
        ("eval(text)", ["eval"]),
        ("model.eval()", []),
    ],
)
def test_the_check_of_pickles_sees(source, expected):
    assert unpickling(ast.parse(source)) == expected


def test_imports_inside_functions_do_not_count_for_start_up():
    source = """
import a
from . import b
try:
    import c
except ImportError:
    pass
def f():
    import d
class K:
    import e
"""
    assert set(sources.imports_at_start(ast.parse(source), "p.q")) == {"a", "p", "p.b", "c", "e"}


def config_modules():
    names = map(sources.module_name, sources.python_files("experiments"))
    return [name for name in names if CONFIG_MODULES.match(name)]


def test_configs_load_the_standard_library_only():
    assert "experiments.config_fields" in config_modules()
    for name in config_modules():
        # A config of a program may name that program's Config; what the program loads is then checked as well.
        others = {
            m for m in loaded_with(name) if m.split(".")[0] not in (*sys.stdlib_module_names, "experiments", "absl")
        }
        assert not others, f"{name} loads {sorted(others)}; --help must stay fast"


def test_there_are_programs():
    assert "experiments.doctor" in map(sources.module_name, sources.entry_points())


@pytest.fixture(params=[sources.module_name(path) for path in sources.entry_points()])
def program(request):
    return request.param


def test_programs_load_only_the_standard_library_and_absl_before_their_flags_are_read(program):
    others = {
        m for m in loaded_with(program) if m.split(".")[0] not in (*sys.stdlib_module_names, "experiments", "absl")
    }
    assert not others, f"{program} loads {sorted(others)} at the top; import them inside main"


def test_help_is_fast_and_loads_no_jax(program):
    command = [sys.executable, "-X", "importtime", "-m", program, "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=sources.ROOT, env=programs.environment()
    )
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m {program}")
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "absl" in loaded and not loaded & {"jax", "jaxlib", "numpy", "flax", "rich"}
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        programs.run_module(program, "--help")
        seconds.append(time.perf_counter() - began)
        if seconds[-1] < 1.0:
            return
    raise AssertionError(f"{program} --help took {min(seconds):.2f} s at best, more than 1 s")


def test_programs_take_the_flags_of_every_run_and_explain_all_flags(program):
    module = importlib.import_module(program)
    assert module.__doc__, "the docstring is what --help begins with"
    default = module.Config()
    assert dataclasses.is_dataclass(default) and type(default).__dataclass_params__.frozen
    names = set(flags.to_dict(default))
    if program not in NO_RUN:
        assert {"workdir", "seed", "steps", "max_seconds", "resume"} <= names
    unexplained = [leaf.name for leaf in flags._leaves(default) if len(leaf.help) < 10]
    assert not unexplained, f'flags of {program} without help text: {unexplained}; add metadata={{"help": ...}}'


def test_package_files_hold_a_docstring_only():
    for path in sources.python_files(*sources.PACKAGES):
        if path.name == "__init__.py":
            body = sources.tree(path).body
            is_docstring = len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            assert is_docstring, f"{path} must hold a docstring and nothing else"


def test_annotations_stay_objects():
    for path in sources.python_files(*sources.PACKAGES):
        names = set(sources.all_imports(sources.tree(path)))
        assert "__future__.annotations" not in names, f"{path}: run-time shape checks need real annotations"
