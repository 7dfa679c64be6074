"""Which implementation of a kernel runs: an explicit request, or the platform's default.

An explicit request is met or refused with a reason, never replaced. Decided while tracing, from static facts only.
"""

import functools
import importlib.util
from typing import Literal

import jax

Backend = Literal["reference", "xla", "cpu", "pallas_gpu", "pallas_tpu"]


_PALLAS: dict[str, Backend] = {"gpu": "pallas_gpu", "tpu": "pallas_tpu"}


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


def choose(
    backend: Backend | None = None,
    platform: str | None = None,
    dtype: str = "float32",
    *,
    pallas: bool | tuple[Backend, ...] = True,
) -> Backend:
    """Name of the implementation to run.

    Args:
      backend: an explicit request, or None for the platform's default: in float32, cpu on CPUs where Numba and OpenMP
        or TBB are installed, pallas_gpu on GPUs, pallas_tpu on TPUs; xla for everything else. The Pallas kernels also
        run on CPUs, interpreted: slow, and the way to check them without the device.
      platform: "cpu", "gpu" or "tpu"; None takes JAX's default backend.
      dtype: of the arrays; the cpu and Pallas kernels take float32 only.
      pallas: whether the operation has Pallas kernels, or the names of those that it has.

    Raises:
      Unsupported: the explicit request cannot be met.
      ValueError: no such backend.
    """
    platform = platform or jax.default_backend()
    kernels = (tuple(_PALLAS.values()) if pallas else ()) if isinstance(pallas, bool) else pallas
    if backend is None:
        if dtype != "float32":
            return "xla"
        if platform == "cpu":
            return "xla" if numba_missing() or threads_missing() else "cpu"
        default = _PALLAS.get(platform, "xla")
        return default if default in kernels else "xla"
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
    if backend in _PALLAS.values():
        if backend not in kernels:
            raise Unsupported(f"this operation has no {backend!r} kernel; use 'xla', which runs on every device")
        if dtype != "float32":
            raise Unsupported(f"backend {backend!r} takes float32, got {dtype}; use 'xla' or 'reference'")
        if platform != "cpu" and _PALLAS.get(platform) != backend:
            raise Unsupported(f"backend {backend!r} was asked for on platform {platform!r}; use 'xla' there")
        return backend
    raise ValueError(f"expected a backend among reference, xla, cpu, pallas_gpu, pallas_tpu; got {backend!r}")
