"""Settings of the whole suite: strict jax, four virtual CPU devices, no cache outside a temporary folder."""

import atexit
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

# Before jax is imported: the suite runs on the CPU unless its caller chose a device, and programs that tests start
# share compiled code with each other, not with the user.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_cache = tempfile.mkdtemp(prefix="galatea-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

hypothesis.settings.register_profile("galatea", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("galatea")

_DEVICES = {"gpu": ("cuda", "gpu", "rocm"), "tpu": ("tpu",)}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests whose device or oracle is not there, saying what would run them."""
    for marker, platforms in _DEVICES.items():
        if item.get_closest_marker(marker) and not _has_device(platforms):
            pytest.skip(f"needs a {marker.upper()}: run with JAX_PLATFORMS={platforms[0]},cpu on such a machine")
    if item.get_closest_marker("parity") and importlib.util.find_spec("torch") is None:
        pytest.skip("needs the oracles of the [parity] extra: pip install -e '.[parity]'")


def _has_device(platforms: tuple[str, ...]) -> bool:
    for platform in platforms:
        try:
            if jax.devices(platform):
                return True
        except RuntimeError:
            continue
    return False


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Forgets compiled programs once they hold gigabytes, as those of the whole suite would."""
    yield
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
    if pages * os.sysconf("SC_PAGE_SIZE") > 3 << 30:
        jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key; tests split it as they need."""
    return jax.random.key(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the rows that tests gave to `record_property("table", row)`, whichever process they ran in."""
    tables: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, row in getattr(report, "user_properties", ()):
                if name == "table" and report.when == "call":
                    tables.setdefault(tuple(row), []).append(row)
    for columns, rows in tables.items():
        lines = [columns, *(tuple(str(value) for value in row.values()) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        terminalreporter.write_line("")
        for line in lines:
            terminalreporter.write_line("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
