"""Images to overlapping patches and back: cells that also see a rim of their neighbours, and predictions that add up.

`fold` is the transpose of `unfold`: a cell's prediction for its rim is added to its neighbours', so no seams show
between the cells. Beyond the border cells see zeros, and what they predict there is dropped.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def unfold(images: Float[Array, "b h w c"], patch: int, rim: int) -> Float[Array, "b n f"]:
    """One row of features per cell, cells in reading order; f = (patch + 2 rim)^2 c."""
    b, h, w, c = images.shape
    wide = _with_rims(_with_rims(images, 1, patch, rim), 3, patch, rim)  # [b, rows, side, columns, side, c]
    side = patch + 2 * rim
    return wide.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // patch) * (w // patch), side * side * c)


def fold(cells: Float[Array, "b n f"], size: tuple[int, int], patch: int, rim: int) -> Float[Array, "b h w c"]:
    """The image that cells add up to."""
    b, (h, w), side = cells.shape[0], size, patch + 2 * rim
    wide = cells.reshape(b, h // patch, w // patch, side, side, -1).transpose(0, 1, 3, 2, 4, 5)
    return _added_up(_added_up(wide, 3, patch, rim), 1, patch, rim)


def _with_rims(x, axis, patch, rim):
    """An axis of pixels split in two, cells and their pixels, each cell with `rim` pixels of its neighbours."""
    count = x.shape[axis] // patch
    cells = x.reshape(*x.shape[:axis], count, patch, *x.shape[axis + 1 :])
    if not rim:
        return cells
    before = _moved(_cut(cells, axis + 1, patch - rim, patch), axis, 1)
    after = _moved(_cut(cells, axis + 1, 0, rim), axis, -1)
    return jnp.concatenate([before, cells, after], axis=axis + 1)


def _added_up(x, axis, patch, rim):
    """The transpose of `_with_rims`."""
    cells = _cut(x, axis + 1, rim, rim + patch)
    if rim:
        to_previous = _moved(_cut(x, axis + 1, 0, rim), axis, -1)
        to_next = _moved(_cut(x, axis + 1, rim + patch, patch + 2 * rim), axis, 1)
        first = _cut(cells, axis + 1, 0, rim) + to_next
        last = _cut(cells, axis + 1, patch - rim, patch) + to_previous
        cells = jnp.concatenate([first, _cut(cells, axis + 1, rim, patch - rim), last], axis=axis + 1)
    return cells.reshape(*x.shape[:axis], x.shape[axis] * patch, *x.shape[axis + 2 :])


def _cut(x, axis, low, high):
    return x[(slice(None),) * axis + (slice(low, high),)]


def _moved(x, axis, by):
    """Cells moved by one along an axis, zeros entering."""
    empty = jnp.zeros_like(_cut(x, axis, 0, 1))
    if by > 0:
        return jnp.concatenate([empty, _cut(x, axis, 0, x.shape[axis] - 1)], axis=axis)
    return jnp.concatenate([_cut(x, axis, 1, x.shape[axis]), empty], axis=axis)
