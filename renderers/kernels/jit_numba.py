"""Numba's compiler, with a disk cache that is never stale.

Functions are freed from what an import hook wrapped them in.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import numba as nb

_KERNELS = pathlib.Path(__file__).parent


def njit(**options) -> Callable[[Callable], Callable]:
    """`numba.njit(**options)` of the function as it was written, cached in a folder of this source's own.

    Run-time type checkers (jaxtyping's hook, which the tests and some users install) put a Python wrapper around every
    function of a package; Numba reads byte code and needs the function inside.
    """

    def compile_lazily(function):
        with own_cache():
            return nb.njit(**options)(inspect.unwrap(function))

    return compile_lazily


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """Functions that are decorated inside with `cache=True` keep their machine code in `cache_folder`.

    Numba invalidates a cached function when its own file changes, but not when one that it calls does, nor a constant
    that it imports: after an update the old kernels would go on running.
    """
    previous = nb.config.CACHE_DIR
    nb.config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        nb.config.CACHE_DIR = previous


@functools.cache
def cache_folder() -> pathlib.Path:
    """Folder of the machine code, named by a hash of every source file below `kernels`.

    The first that can be written of $NUMBA_CACHE_DIR, this package, ~/.cache/galatea3d, and a temporary folder.
    """
    digest = hashlib.sha256()
    for path in sorted(_KERNELS.rglob("*.py")):
        digest.update(path.read_bytes())
    candidates = [_KERNELS / "__pycache__", pathlib.Path(os.path.expanduser("~/.cache/galatea3d"))]
    if nb.config.CACHE_DIR:
        candidates.insert(0, pathlib.Path(nb.config.CACHE_DIR))
    for candidate in candidates:
        folder = candidate / f"numba-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return pathlib.Path(tempfile.mkdtemp(prefix="galatea3d-numba-"))
