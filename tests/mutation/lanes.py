"""Vector registers as NumPy rows: what Numba's intrinsics do, so that kernels that use them run as plain Python."""

import numpy as np

from renderers.kernels import lanes_numba
from renderers.kernels.hash_encode import cpu_lanes
from renderers.kernels.hash_encode.levels import PRIMES

_WIDTH = lanes_numba.WIDTH


def _load(array, at):
    return array.reshape(-1)[at : at + _WIDTH].copy()


def _store(array, at, value):
    array.reshape(-1)[at : at + _WIDTH] = value


def _splat(value):
    return np.full(_WIDTH, value, np.float32)


def _where_greater(a, b, chosen, otherwise):
    return np.where(a > b, chosen, otherwise)


def _where_at_least(a, b, chosen, otherwise):
    return np.where(a >= b, chosen, otherwise)


def _store_rows(rows, at, row_of_corner, offset, width):
    stretch = len(rows) // 8
    for corner in range(8):
        begins = (row_of_corner(corner & 1, corner >> 1 & 1, corner >> 2) + int(offset)) * int(width)
        rows[corner * stretch + at : corner * stretch + at + _WIDTH] = begins


def _store_dense(rows, at, x, y, z, nx, ny, offset, width):
    x, y, z = (a.astype(np.int64) for a in (x, y, z))
    _store_rows(rows, at, lambda i, j, k: x + i + int(nx) * (y + j + int(ny) * (z + k)), offset, width)


def _store_hashed(rows, at, x, y, z, mask, offset, width):
    x, y, z = (a.astype(np.int64) for a in (x, y, z))

    def row(i, j, k):
        mixed = (x + i) * PRIMES[0] ^ (y + j) * PRIMES[1] ^ (z + k) * PRIMES[2]
        return mixed & int(mask)

    _store_rows(rows, at, row, offset, width)


PLAIN = {
    lanes_numba: dict(
        load=_load,
        store=_store,
        splat=_splat,
        where_greater=_where_greater,
        where_at_least=_where_at_least,
        total=np.sum,
    ),
    cpu_lanes: dict(floor=np.floor, prefetch=lambda *_: None, store_dense=_store_dense, store_hashed=_store_hashed),
}
