"""Which backend runs: the whole table of requests, and that an explicit one is met or refused."""

import inspect
import typing

import jax
import jax.numpy as jnp
import pytest

from renderers.kernels import dispatch
from renderers.kernels.composite.api import composite
from renderers.kernels.dispatch import Backend, Unsupported, choose


@pytest.mark.parametrize(
    ("platform", "dtype", "missing", "expected"),
    [
        ("cpu", "float32", False, "cpu"),
        ("cpu", "float32", True, "xla"),
        ("cpu", "float64", False, "xla"),
        ("gpu", "float32", False, "pallas_gpu"),
        ("tpu", "float32", False, "pallas_tpu"),
        ("gpu", "float64", True, "xla"),
    ],
)
def test_default_of_each_platform(monkeypatch, platform, dtype, missing, expected):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: missing)
    assert choose(None, platform, dtype) == expected


@pytest.mark.parametrize("backend", ["reference", "xla"])
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_portable_backends_run_everywhere(monkeypatch, backend, platform, dtype):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: True)
    assert choose(backend, platform, dtype) == backend


@pytest.mark.parametrize(
    ("backend", "platform", "dtype", "missing", "reason"),
    [
        ("cpu", "gpu", "float32", False, "on platform 'gpu'; use 'xla'"),
        ("cpu", "tpu", "float32", False, "on platform 'tpu'; use 'xla'"),
        ("cpu", "cpu", "float64", False, "takes float32, got float64; use 'xla'"),
        ("cpu", "cpu", "float32", True, r"pip install 'galatea3d\[cpu\]'"),
        ("pallas_gpu", "tpu", "float32", False, "on platform 'tpu'; use 'xla'"),
        ("pallas_tpu", "gpu", "float32", False, "on platform 'gpu'; use 'xla'"),
        ("pallas_gpu", "gpu", "float64", False, "takes float32, got float64; use 'xla'"),
    ],
)
def test_an_explicit_request_is_refused_with_a_reason_and_a_remedy(
    monkeypatch, backend, platform, dtype, missing, reason
):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: missing)
    with pytest.raises(Unsupported, match=reason):
        choose(backend, platform, dtype)
    assert choose(None, platform, dtype) != backend, "what refuses an explicit request is never the default"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_operations_without_pallas_kernels_say_so_and_default_to_xla(platform):
    assert choose(None, platform, pallas=False) == "xla"
    with pytest.raises(Unsupported, match="has no 'pallas_gpu' kernel; use 'xla'"):
        choose("pallas_gpu", platform, pallas=False)


def test_operations_with_one_pallas_kernel_refuse_the_other():
    gpu_only: tuple[Backend, ...] = ("pallas_gpu",)
    assert choose(None, "gpu", pallas=gpu_only) == choose("pallas_gpu", "gpu", pallas=gpu_only) == "pallas_gpu"
    assert choose(None, "tpu", pallas=gpu_only) == "xla"
    with pytest.raises(Unsupported, match="has no 'pallas_tpu' kernel; use 'xla'"):
        choose("pallas_tpu", "tpu", pallas=gpu_only)


@pytest.mark.parametrize("backend", ["pallas_gpu", "pallas_tpu"])
def test_pallas_kernels_are_interpreted_on_cpus_on_request_only(backend):
    assert choose(backend, "cpu") == backend
    assert choose(None, "cpu") != backend


def test_the_platform_is_that_of_jax():
    assert choose("cpu") == "cpu"


def test_unknown_names_are_no_backend():
    with pytest.raises(ValueError, match="reference, xla, cpu, pallas_gpu, pallas_tpu; got 'cuda'"):
        inspect.unwrap(choose)("cuda")  # the suite's type checks would speak up first


def _composite(backend):
    """Traced only: that is when a backend is chosen."""

    def run(one, conics):
        return composite(one, conics, one[:, 0], one, one, one[:, 0], size=(2, 2), backend=backend)

    return jax.eval_shape(run, jnp.ones((1, 2)), jnp.ones((1, 3)))


def test_refusals_reach_the_caller_of_the_operation():
    """What `choose` refuses, `composite` refuses; what it accepts is traced."""
    for backend in typing.get_args(Backend):
        try:
            choose(backend)
        except Unsupported:
            with pytest.raises(Unsupported):
                _composite(backend)
        else:
            assert _composite(backend).image.shape == (2, 2, 2)


def test_the_operation_itself_does_not_fall_back(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_missing", lambda: True)
    with pytest.raises(Unsupported, match="Numba"):
        _composite("cpu")
    assert _composite(None).image.shape == (2, 2, 2)


def test_numba_without_a_thread_safe_layer_is_not_used(monkeypatch):
    monkeypatch.setattr(dispatch, "threads_missing", lambda: True)
    assert choose(None, "cpu") == "xla"
    with pytest.raises(Unsupported, match="OpenMP"):
        choose("cpu", "cpu")
