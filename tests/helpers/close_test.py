"""The assertion helpers themselves: each must accept what it promises to and catch what it is there to catch."""

import numpy as np
import pytest

from tests.helpers.close import assert_close, assert_close_with_band

EXPECTED = np.linspace(-1.0, 1.0, 1000)


def _with_changes(places, by):
    actual = EXPECTED.copy()
    actual[places] += by
    return actual


def test_all_entries_must_agree_by_default():
    assert_close(EXPECTED + 1e-7, EXPECTED, atol=2e-7)
    with pytest.raises(AssertionError, match=r"1 of 1000 .*\[7\]"):
        assert_close(_with_changes([7], 1e-3), EXPECTED, atol=2e-7)


def test_relative_tolerance_is_of_the_expected_value():
    assert_close([101.0], [100.0], rtol=0.0101)
    with pytest.raises(AssertionError):
        assert_close([101.0], [100.0], rtol=0.0099)
    assert_close([0.0, np.inf], [0.0, np.inf])


def test_quantile_allows_its_share_and_no_more():
    assert_close(_with_changes(slice(0, 10), 1e-3), EXPECTED, atol=1e-6, quantile=0.99)
    with pytest.raises(AssertionError, match="11 of 1000"):
        assert_close(_with_changes(slice(0, 11), 1e-3), EXPECTED, atol=1e-6, quantile=0.99)


def test_worst_bounds_the_entries_beyond_the_quantile():
    assert_close(_with_changes([3], 5e-6), EXPECTED, atol=1e-6, quantile=0.99, worst=10.0)
    with pytest.raises(AssertionError):
        assert_close(_with_changes([3], 5e-5), EXPECTED, atol=1e-6, quantile=0.99, worst=10.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_entries_never_pass(bad):
    with pytest.raises(AssertionError):
        assert_close(_with_changes([0], bad), EXPECTED, atol=1e9, quantile=0.5, worst=1e9)


def test_shapes_are_not_broadcast():
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(np.zeros((3, 1)), np.zeros(3), atol=1.0)


BAND = np.arange(1000) < 200


def test_band_tolerates_balanced_flips():
    places = np.arange(0, 200, 10)
    assert_close_with_band(_with_changes(places, np.tile([0.1, -0.1], 10)), EXPECTED, BAND, atol=1e-6, max_fraction=0.1)


def test_band_catches_an_error_outside():
    with pytest.raises(AssertionError, match="outside the band"):
        assert_close_with_band(_with_changes([500], 1e-5), EXPECTED, BAND, atol=1e-6)


def test_band_catches_too_many_flips():
    places = np.arange(0, 200, 10)
    with pytest.raises(AssertionError, match="20 of 200"):
        assert_close_with_band(_with_changes(places, np.tile([0.1, -0.1], 10)), EXPECTED, BAND, max_fraction=0.09)


def test_band_catches_a_bias():
    with pytest.raises(AssertionError, match="bias"):
        assert_close_with_band(_with_changes(np.arange(0, 200, 8), 0.1), EXPECTED, BAND, max_fraction=0.5)


def test_band_bounds_the_jump_and_spans_channels():
    actual, expected = np.zeros((4, 3)), np.zeros((4, 3))
    actual[1, 2] = 0.5
    band = np.array([False, True, False, False])
    assert_close_with_band(actual, expected, band, max_fraction=0.5, max_jump=0.6)
    with pytest.raises(AssertionError, match="differs by 0.5"):
        assert_close_with_band(actual, expected, band, max_fraction=0.5, max_jump=0.4)
