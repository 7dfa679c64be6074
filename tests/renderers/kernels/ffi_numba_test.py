"""Numba functions as XLA custom calls: any rank and number of buffers, in jit, and never with the code of yesterday."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numba as nb
import numpy as np
import pytest

from renderers.kernels import ffi_numba as ffi
from renderers.kernels import jit_numba
from tests.helpers import programs


def _scale_rows_handler(frame):
    """result[i, j] = a[i, j] * b[i]; the second result counts the rows."""
    if ffi.answered_metadata(frame):
        return 0
    rows, columns = ffi.argument_dim(frame, 0, 0), ffi.argument_dim(frame, 0, 1)
    a = ffi.floats(ffi.argument(frame, 0), (rows, columns))
    b = ffi.floats(ffi.argument(frame, 1), (rows,))
    out = ffi.floats(ffi.result(frame, 0), (rows, columns))
    count = ffi.floats(ffi.result(frame, 1), (ffi.result_dim(frame, 1, 0),))
    for i in range(rows):
        for j in range(columns):
            out[i, j] = a[i, j] * b[i]
    count[0] = np.float32(rows)
    return 0


@pytest.fixture(scope="module")
def scale_rows():
    ffi.register("galatea_test_scale_rows", _scale_rows_handler)

    def call(a, b):
        shapes = (jax.ShapeDtypeStruct(a.shape, a.dtype), jax.ShapeDtypeStruct((1,), a.dtype))
        return jax.ffi.ffi_call("galatea_test_scale_rows", shapes, vmap_method="sequential")(a, b)

    return call


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (200, 7), (0, 4)])
def test_a_handler_sees_its_buffers(scale_rows, shape):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (shape, shape[:1]))
    out, count = jax.jit(lambda a, b: scale_rows(a * 2, b))(a, b)
    np.testing.assert_array_equal(out, 2 * a * b[:, None])
    assert count[0] == shape[0]


def test_a_handler_under_vmap_and_in_a_loop(scale_rows):
    a, b = jnp.arange(12.0).reshape(2, 3, 2), jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(jax.vmap(lambda a, b: scale_rows(a, b)[0])(a, b), a * b[..., None])
    looped = jax.lax.fori_loop(0, 3, lambda _, v: scale_rows(v, b[0])[0], a[0])
    np.testing.assert_array_equal(looped, a[0] * b[0, :, None] ** 3)


def test_the_threading_layer_is_one_that_may_be_entered_twice():
    """XLA runs handlers on several threads at once under shard_map; Numba's own layer would abort the process."""
    assert ffi.thread_safe_layer() in ("tbb", "omp")


def test_machine_code_lies_in_a_folder_of_the_sources_own():
    folder = jit_numba.cache_folder()
    assert folder.name.startswith("numba-") and folder.is_dir()
    before = nb.config.CACHE_DIR
    with jit_numba.own_cache():
        assert nb.config.CACHE_DIR == str(folder)
    assert nb.config.CACHE_DIR == before, "other users' of Numba keep their cache"


def test_a_changed_kernel_is_never_answered_from_the_old_cache(tmp_path):
    """Numba alone would run the old `called` from the cache of `caller`, whose own file is as it was."""
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "jit_numba.py").write_text(pathlib.Path(jit_numba.__file__).read_text())
    (package / "caller.py").write_text(
        "from jit_numba import njit\nfrom called import called\n\n"
        "@njit(cache=True)\ndef caller():\n    return called() + 1\n\nprint(caller())\n"
    )
    answers = []
    for value in (10, 20):
        (package / "called.py").write_text(
            f"from jit_numba import njit\n\n@njit(cache=True)\ndef called():\n    return {value}\n"
        )
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "caller.py"],
                cwd=package,
                env=programs.environment({"NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}),
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            answers.append(int(done.stdout))
    assert answers == [11, 11, 21, 21]


def test_a_read_only_home_and_package_still_give_a_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jit_numba, "_KERNELS", tmp_path / "file")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(nb.config, "CACHE_DIR", "")
    folder = jit_numba.cache_folder.__wrapped__()
    assert folder.is_dir() and not folder.is_relative_to(tmp_path)
    monkeypatch.setattr(nb.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert jit_numba.cache_folder.__wrapped__().is_relative_to(tmp_path / "chosen")
