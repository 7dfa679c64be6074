"""Closeness of arrays where a few entries may differ for a known reason.

Two answers to discontinuous functions computed in two ways. `assert_close` bounds a quantile (a stated share of entries
may be off, by a stated factor at most). `assert_close_with_band` knows where the discontinuities lie: outside the band
everything is tight, inside it entries may flip, but few, and as often up as down: a bias is an error, not a flip.
"""

import numpy as np


def assert_close(
    actual, expected, *, rtol: float = 0.0, atol: float = 0.0, quantile: float = 1.0, worst: float = np.inf
) -> None:
    """At least `quantile` of the entries agree within `atol + rtol |expected|`, the rest within `worst` times that.

    Shapes must be equal and entries finite (or equal infinities).
    """
    actual, expected, excess = _excess(actual, expected, rtol, atol)
    off = excess > 1.0
    if off.mean() > 1.0 - quantile + 1e-12 or np.any(excess > max(worst, 1.0) if quantile < 1.0 else off):
        raise AssertionError(_report("", actual, expected, excess, off))


def assert_close_with_band(
    actual,
    expected,
    band,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    max_fraction: float = 0.01,
    max_jump: float = np.inf,
    sigmas: float = 4.0,
) -> None:
    """Tight outside the band; inside it few entries differ, by at most `max_jump`, without preference of direction.

    Args:
        actual: computed array.
        expected: reference array.
        band: mask over the leading axes of the arrays, True where a rounding error may choose the other branch.
        rtol: relative tolerance of entries that did not flip.
        atol: absolute tolerance of entries that did not flip.
        max_fraction: share of the band's entries that may flip.
        max_jump: largest difference of an entry that flipped.
        sigmas: the difference between flips up and flips down may be this many standard deviations of fair coins.
    """
    actual, expected, excess = _excess(actual, expected, rtol, atol)
    band = np.asarray(band, bool)
    band = np.broadcast_to(band.reshape(band.shape + (1,) * (actual.ndim - band.ndim)), actual.shape)
    off = excess > 1.0
    if np.any(off & ~band):
        raise AssertionError(_report("outside the band ", actual, expected, excess, off & ~band))
    flips, room = int(off.sum()), int(band.sum())
    if flips > max_fraction * room:
        raise AssertionError(f"{flips} of {room} entries in the band differ, allowed {max_fraction:.3g} of them")
    difference = (actual - expected)[off]
    if flips and np.max(np.abs(difference)) > max_jump:
        raise AssertionError(
            f"an entry in the band differs by {np.max(np.abs(difference)):.3g}, allowed {max_jump:.3g}"
        )
    up = int((difference > 0).sum())
    if abs(2 * up - flips) > sigmas * np.sqrt(flips) + 1.0:
        raise AssertionError(f"of {flips} entries that differ in the band {up} are larger: a bias, not rounding")


def _excess(actual, expected, rtol, atol):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shapes differ: actual {actual.shape}, expected {expected.shape}"
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    bad = np.isnan(actual) | np.isnan(expected)
    assert not bad.any(), f"{int(bad.sum())} entries are NaN, first at {np.argwhere(bad)[0].tolist()}"
    with np.errstate(invalid="ignore", divide="ignore"):
        miss = np.where(actual == expected, 0.0, np.abs(actual - expected))
        allowed = atol + rtol * np.abs(expected)
        return actual, expected, np.where(miss == 0.0, 0.0, miss / allowed)


def _report(where, actual, expected, excess, off):
    place = np.unravel_index(np.argmax(np.where(off, excess, -1.0)), excess.shape)
    return (
        f"{int(off.sum())} of {off.size} entries {where}are out of tolerance, worst by a factor {excess[place]:.3g} "
        f"at {[int(i) for i in place]}: actual {actual[place]:.9g}, expected {expected[place]:.9g}"
    )
