"""How long a jitted call takes once it is warm."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def median_ms(call: Callable[[], Any], *, repeats: int = 15, warmup: int = 2) -> float:
    """Median wall time of a call in milliseconds, waiting for its result."""
    for _ in range(warmup):
        jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def paired_ms(first: Callable[[], Any], second: Callable[[], Any], *, repeats: int = 9) -> tuple[float, float, float]:
    """Median times of two calls run in turn, and the median of their ratios second / first, pair by pair."""
    rows = []
    for _ in range(repeats + 1):
        rows.append((median_ms(first, repeats=1, warmup=0), median_ms(second, repeats=1, warmup=0)))
    rows = rows[1:]  # the first pair compiles
    ratios = [b / a for a, b in rows]
    return statistics.median(a for a, _ in rows), statistics.median(b for _, b in rows), statistics.median(ratios)
