"""Sixteen lanes against numpy, and the exponential over its whole domain."""

import numba as nb
import numpy as np

from renderers.kernels import lanes_numba as lanes
from renderers.kernels.lanes_numba import WIDTH

RNG = np.random.default_rng(0)
A, B = (RNG.normal(0, 3, WIDTH).astype(np.float32) for _ in range(2))


@nb.njit
def _exponentials(x, out):
    for i in range(0, x.size, WIDTH):
        lanes.store(out, i, lanes.exp_negative(lanes.load(x, i)))


def test_exponential_is_that_of_float64_to_the_rounding_of_its_argument():
    x = np.concatenate([np.linspace(0, 87, 160_000), np.logspace(-30, 1, 16_000)]).astype(np.float32)
    out = np.empty_like(x)
    _exponentials(x, out)
    exact = np.exp(-x.astype(np.float64))
    # the series to 2^-23, and x / ln 2, off by half a unit of its last place: relative to the result, x * 2^-24
    assert (np.abs(out / exact - 1) <= 2.3e-7 + 1.3 * x * 2.0**-24).all()
    assert out[0] == 1.0 and (np.diff(out[:160_000:100]) < 0).all()


@nb.njit
def _arithmetic(a, b, out):
    x, y, s = lanes.load(a, 0), lanes.load(b, 0), np.float32(1.5)
    lanes.store(out, 0 * WIDTH, x + y)
    lanes.store(out, 1 * WIDTH, x - y)
    lanes.store(out, 2 * WIDTH, x * y)
    lanes.store(out, 3 * WIDTH, x / y)
    lanes.store(out, 4 * WIDTH, s - x)
    lanes.store(out, 5 * WIDTH, x - s)
    lanes.store(out, 6 * WIDTH, s / x)
    lanes.store(out, 7 * WIDTH, x * s)
    lanes.store(out, 8 * WIDTH, lanes.absolute(x))
    lanes.store(out, 9 * WIDTH, lanes.where_greater(x, y, x, lanes.splat(np.float32(7))))
    lanes.store(out, 10 * WIDTH, lanes.where_at_least(x, x, y, x))
    lanes.store(out, 11 * WIDTH, lanes.clamp(x, lanes.splat(np.float32(-1)), lanes.splat(np.float32(2))))
    lanes.store(out, 12 * WIDTH, lanes.ramp())
    return lanes.total(x), lanes.any_positive(x), lanes.any_positive(lanes.splat(np.float32(0)) - lanes.absolute(y))


def test_arithmetic_is_lane_by_lane():
    out = np.empty(13 * WIDTH, np.float32)
    total, some, none = _arithmetic(A, B, out)
    s = np.float32(1.5)
    expected = [A + B, A - B, A * B, A / B, s - A, A - s, s / A, A * s, np.abs(A)]
    expected += [np.where(A > B, A, 7), B, np.clip(A, -1, 2), np.arange(WIDTH)]
    np.testing.assert_array_equal(out.reshape(13, WIDTH), np.stack(expected).astype(np.float32))
    np.testing.assert_allclose(total, A.astype(np.float64).sum(), rtol=1e-6)
    assert some and not none


@nb.njit
def _compare(a, out):
    x, one, zero = lanes.load(a, 0), lanes.splat(np.float32(1)), lanes.splat(np.float32(0))
    lanes.store(out, 0, lanes.where_greater(x, zero, one, zero))
    lanes.store(out, WIDTH, lanes.where_at_least(x, zero, one, zero))
    return lanes.any_positive(x)


def test_nan_compares_false():
    out = np.full(2 * WIDTH, 9, np.float32)
    assert not _compare(np.full(WIDTH, np.nan, np.float32), out)
    assert not out.any()


@nb.njit
def _shifted(a, out, at):
    lanes.store(out, at, lanes.load(a, at))


def test_unaligned_windows_touch_nothing_else():
    a, out = np.arange(64, dtype=np.float32), np.full(64, -1, np.float32)
    _shifted(a, out, 7)
    np.testing.assert_array_equal(out[7 : 7 + WIDTH], a[7 : 7 + WIDTH])
    assert (np.delete(out, np.s_[7 : 7 + WIDTH]) == -1).all()
