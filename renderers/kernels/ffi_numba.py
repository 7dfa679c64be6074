"""Numba kernels as typed XLA FFI handlers: native code that XLA:CPU calls directly, with no Python, GIL or compiler.

XLA hands a handler one pointer, an XLA_FFI_CallFrame. The layouts below are those of xla/ffi/api/c_api.h, API version
0.x (`jax.ffi.include_dir()` holds the header), in units of 8-byte words:

    call frame   [0] size  [1] extension  [2] api  [3] context  [4] stage  [5..9] arguments  [10..14] results  ...
    arguments    [0] size  [1] extension  [2] count  [3] types  [4] pointer to the buffer pointers    (results alike)
    buffer       [0] size  [1] extension  [2] dtype  [3] data  [4] rank  [5] pointer to the dimensions
    extension    [0] size  [1] type (low 32 bits)  [2] next  [3] metadata
    metadata     [0] size  [1] extension  [2..3] api version: size, extension, (major, minor)  ...
"""

import ctypes
import importlib
import inspect
from collections.abc import Callable

import jax
import numba as nb
import numpy as np
from numba import carray, types
from numba.core import cgutils

from renderers.kernels.jit_numba import njit, own_cache

_METADATA_EXTENSION = 1
_API_MAJOR, _API_MINOR = 0, 3


@nb.extending.intrinsic
def _as_pointer(typing_context, address):
    """Turn an integer address into a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.intp), generate


@njit(inline="always")
def _words(address, count):
    """The 8-byte words at an address."""
    return carray(_as_pointer(address), (count,), dtype=np.int64)


@njit()
def answered_metadata(frame):
    """Answer XLA's question for the API version, which it asks once before the first call.

    False if this is a real call.
    """
    extension = _words(frame, 2)[1]
    if extension == 0 or (_words(extension, 2)[1] & 0xFFFFFFFF) != _METADATA_EXTENSION:
        return False
    metadata = _words(_words(extension, 4)[3], 6)
    metadata[3] = (_API_MINOR << 32) | _API_MAJOR
    metadata[4] = 0  # traits
    metadata[5] = 0  # no state
    return True


@njit(inline="always")
def _buffer(frame, base, index):
    return _words(_words(_words(frame, 15)[base + 4], index + 1)[index], 6)


@njit(inline="always")
def argument(frame, index):
    """Address of the data of an argument."""
    return _buffer(frame, 5, index)[3]


@njit(inline="always")
def result(frame, index):
    """Address of the data of a result."""
    return _buffer(frame, 10, index)[3]


@njit(inline="always")
def argument_dim(frame, index, axis):
    """Length of an axis of an argument."""
    return _words(_buffer(frame, 5, index)[5], axis + 1)[axis]


@njit(inline="always")
def result_dim(frame, index, axis):
    """Length of an axis of a result."""
    return _words(_buffer(frame, 10, index)[5], axis + 1)[axis]


@njit(inline="always")
def floats(address, shape):
    """float32 array over memory that XLA owns."""
    return carray(_as_pointer(address), shape, dtype=np.float32)


@njit(inline="always")
def integers(address, shape):
    """int32 array over memory that XLA owns."""
    return carray(_as_pointer(address), shape, dtype=np.int32)


def register(name: str, handler: Callable[[int], int]) -> None:
    """Compile a handler (or load it from Numba's disk cache) and make it known to XLA:CPU under a name of its own.

    Handlers run on XLA's threads, several at once under `shard_map`, so that Numba needs a thread-safe threading layer.

    Args:
      name: of the custom call's target; no other target may have it.
      handler: a Python function of the address of the call frame that returns 0.
    """
    nb.config.THREADING_LAYER = "threadsafe"
    nb.get_num_threads()  # starts the threads: code loaded from the disk cache refers to symbols that this defines
    with own_cache():
        compiled = nb.cfunc(types.intp(types.intp), cache=True)(inspect.unwrap(handler))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new(compiled.address, b"xla._CUSTOM_CALL_TARGET", None)
    jax.ffi.register_ffi_target(name, capsule, platform="cpu", api_version=1)
    _KEPT.append(compiled)  # the machine code lives as long as the object


_KEPT: list = []


def thread_safe_layer() -> str | None:
    """Name of the threading layer that handlers would run on, "tbb" or "omp"; None if Numba has neither here."""
    for layer, module in (("tbb", "tbbpool"), ("omp", "omppool")):
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        return layer
    return None
