import zlib

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import keys

seeds = st.integers(0, 2**32 - 1)


def philox_4x64(counter, key):
    """Philox4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), in Python integers."""
    mask = 2**64 - 1
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(second >> 64) ^ c[1] ^ k[0], second & mask, (first >> 64) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_a_key_is_the_seed_folded_with_the_name_and_the_step():
    expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), zlib.crc32(b"sds")), 3)
    assert (jax.random.key_data(keys.key(7, "sds", 3)) == jax.random.key_data(expected)).all()


def test_a_traced_step_gives_the_same_key():
    traced = jax.jit(lambda step: jax.random.key_data(keys.key(1, "noise", step)))(41)
    assert (traced == jax.random.key_data(keys.key(1, "noise", 41))).all()


def test_streams_steps_and_seeds_are_independent():
    draws = [
        jax.random.normal(keys.key(seed, stream, step), (4096,))
        for seed in (0, 1)
        for stream in ("a", "b")
        for step in (0, 1)
    ]
    correlation = np.corrcoef(np.stack(draws)) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(4096)  # Five standard deviations.


@given(seeds, st.integers(0, 2**64 - 1))
def test_host_numbers_are_philox_at_the_documented_counter(seed, step):
    # numpy steps the 256-bit counter before each block.
    block = philox_4x64([1, 0, 0, step], [seed, zlib.crc32(b"views")])
    drawn = keys.host_rng(seed, "views", step).bit_generator.random_raw(4)
    assert list(map(int, drawn)) == block


@given(seeds, st.integers(0, 1000), st.integers(1, 300))
def test_an_epoch_visits_every_item_once(seed, epoch, n):
    assert sorted(keys.epoch_order(seed, epoch, n)) == list(range(n))


def test_orders_are_uniform():
    n, epochs = 5, 4000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), keys.epoch_order(3, epoch, n)] += 1
    statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    # 16 degrees of freedom; the 99.99% quantile of chi-squared is 45.9.
    assert statistic < 45.9


def test_positions_run_through_the_epochs_without_state():
    n = 7
    walked = [keys.index_at(5, step, n) for step in range(3 * n)]
    assert walked == [int(i) for epoch in range(3) for i in keys.epoch_order(5, epoch, n)]
    assert keys.index_at(5, 17, n) == walked[17]
    assert walked[:n] != walked[n : 2 * n]


def test_orders_cannot_be_changed_by_their_readers():
    with pytest.raises(ValueError):
        keys.epoch_order(0, 0, 4)[0] = 9


@pytest.mark.parametrize("call", [lambda: keys.key(-1, "a"), lambda: keys.host_rng(2**32, "a")])
def test_seeds_outside_32_bits_are_refused(call):
    with pytest.raises(ValueError, match="seed must be"):
        call()


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="at least one item"):
        keys.epoch_order(0, 0, 0)
    with pytest.raises(ValueError, match="step must be"):
        keys.host_rng(0, "a", -1)
