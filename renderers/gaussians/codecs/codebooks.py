"""Codebooks for lossy splat files: the values that stand for many."""

import numpy as np
from jaxtyping import Float, Int

_SIZE = 256
_MAX_PALETTE = 65536
# Above this many rows a palette is a k-means: one entry for a dozen rows or so, since larger palettes cost minutes.
_TRAINED_PALETTE = 4096
_ROWS_AT_ONCE = 4096
_ROUNDS = 4


def scalar_codebook(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " 256"]:
    """256 ascending values that represent the given ones with little squared error (Lloyd's rounds from quantiles).

    The extremes are kept exactly; up to 256 different values all are.
    """
    flat = np.unique(values.astype(np.float64))
    if len(flat) <= _SIZE:
        return np.pad(flat, (0, _SIZE - len(flat)), mode="edge") if len(flat) else np.zeros(_SIZE)
    data = np.sort(values.astype(np.float64), axis=None)
    # Half of the entries follow the data, half the range: tails of few large values matter too.
    even = np.linspace(data[0], data[-1], _SIZE // 2)
    book = np.sort(np.concatenate([np.quantile(data, np.linspace(0, 1, _SIZE // 2 + 2)[1:-1]), even]))
    sums = np.concatenate([[0.0], np.cumsum(data)])
    for _ in range(8 * _ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(data, 0.5 * (book[1:] + book[:-1])), [len(data)]])
        counts = np.diff(edges)
        book = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), book)
    book[0], book[-1] = data[0], data[-1]
    return np.sort(book)


def nearest(codebook: Float[np.ndarray, " c"], values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Index of the entry of an ascending codebook that is nearest to each value."""
    return np.searchsorted(0.5 * (codebook[1:] + codebook[:-1]), values)


def palette(rows: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "p d"], Int[np.ndarray, " n"]]:
    """A palette of rows and, for each row, the entry that stands for it.

    Up to 65,536 rows stand for themselves. More are clustered by k-means from an even sample, deterministically.
    """
    if len(rows) <= _MAX_PALETTE:
        return rows.astype(np.float64), np.arange(len(rows))
    rows = rows.astype(np.float32)
    entries = rows[np.linspace(0, len(rows) - 1, _TRAINED_PALETTE).astype(int)]
    for _ in range(_ROUNDS):
        labels = _assign(rows, entries)
        counts = np.bincount(labels, minlength=len(entries))
        sums = np.stack([np.bincount(labels, rows[:, d], len(entries)) for d in range(rows.shape[1])], axis=1)
        means = sums / np.maximum(counts, 1)[:, None]
        entries = np.where(counts[:, None] > 0, means, entries).astype(np.float32)
    return entries.astype(np.float64), _assign(rows, entries)


def _assign(rows: np.ndarray, entries: np.ndarray) -> np.ndarray:
    norms = 0.5 * (entries**2).sum(axis=1)
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    return np.concatenate([np.argmin(norms - rows[i : i + _ROWS_AT_ONCE] @ entries.T, axis=1) for i in starts])
