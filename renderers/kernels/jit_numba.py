"""Numba's compiler for functions that an import hook may have wrapped.

Run-time type checkers (jaxtyping's hook, which the tests and some users install) put a Python wrapper around every function
of a package. Numba reads byte code, so that it must be given the function inside.
"""

import inspect
from collections.abc import Callable

import numba as nb


def njit(**options) -> Callable[[Callable], Callable]:
    """`numba.njit(**options)` of the function as it was written."""
    return lambda function: nb.njit(**options)(inspect.unwrap(function))
