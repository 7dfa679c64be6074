"""Which implementation of a kernel runs: an explicit request, or the platform's default.

An explicit request is met or refused with a reason, never replaced. Decided while tracing, from static facts only.
"""

import functools
import importlib.util
from typing import Literal

import jax

Backend = Literal["reference", "xla", "cpu", "pallas_gpu", "pallas_tpu"]


class Unsupported(NotImplementedError):
    """The requested backend cannot run this call; the message says why and what can."""


def numba_missing() -> bool:
    """Whether the package behind the cpu backend is absent."""
    return importlib.util.find_spec("numba") is None


@functools.cache
def threads_missing() -> bool:
    """Whether the installed Numba has no thread-safe threading layer (OpenMP or TBB), which XLA's threads need."""
    from renderers.kernels.ffi_numba import thread_safe_layer  # imports Numba, an extra

    return thread_safe_layer() is None


def choose(backend: Backend | None = None, platform: str | None = None, dtype: str = "float32") -> Backend:
    """Name of the implementation to run.

    Args:
      backend: an explicit request, or None for the platform's default: cpu on CPUs where Numba and
        OpenMP or TBB are installed, else xla.
      platform: "cpu", "gpu" or "tpu"; None takes JAX's default backend.
      dtype: of the arrays; the cpu kernels take float32 only.

    Raises:
      Unsupported: the explicit request cannot be met.
      ValueError: no such backend.
    """
    platform = platform or jax.default_backend()
    if backend is None:
        native = platform == "cpu" and dtype == "float32" and not numba_missing() and not threads_missing()
        return "cpu" if native else "xla"
    if backend in ("reference", "xla"):
        return backend
    if backend == "cpu":
        if platform != "cpu":
            raise Unsupported(f"backend 'cpu' was asked for on platform {platform!r}; use 'xla' there")
        if dtype != "float32":
            raise Unsupported(f"backend 'cpu' takes float32, got {dtype}; use 'xla' or 'reference'")
        if numba_missing():
            raise Unsupported("backend 'cpu' needs Numba: pip install 'galatea3d[cpu]', or use 'xla'")
        if threads_missing():
            raise Unsupported("backend 'cpu' needs OpenMP (libgomp) or TBB (pip install tbb) for Numba; or use 'xla'")
        return backend
    if backend in ("pallas_gpu", "pallas_tpu"):
        raise Unsupported(f"this operation has no {backend!r} kernel; use 'xla', which runs on every device")
    raise ValueError(f"expected a backend among reference, xla, cpu, pallas_gpu, pallas_tpu; got {backend!r}")
