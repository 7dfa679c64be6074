import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from renderers.cameras.camera import Camera
from renderers.gaussians.covariance import covariances
from renderers.gaussians.densification import explore, relocate, share, with_capacity
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.rasterize import render

_DECIMAL = decimal.Context(prec=60).create_decimal


def _scene(n, seed=0, opacity=(0.05, 0.95)):
    rng = np.random.default_rng(seed)
    o = rng.uniform(*opacity, n)
    return Gaussians(
        means=jnp.asarray(rng.uniform(-1, 1, (n, 3)), jnp.float32),
        quaternions=jnp.asarray(rng.normal(size=(n, 4)), jnp.float32),
        log_scales=jnp.asarray(rng.uniform(-2.5, -1.5, (n, 3)), jnp.float32),
        opacity_logits=jnp.asarray(np.log(o / (1 - o)), jnp.float32),
        sh=jnp.asarray(rng.normal(size=(n, 4, 3)) * 0.2, jnp.float32),
    )


@pytest.mark.parametrize("opacity", [0.01, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("n", [1, 2, 5, 20, 51])
def test_share_equals_the_published_double_sum_in_60_digits(opacity, n):
    new = 1 - (1 - _DECIMAL(opacity)) ** (1 / _DECIMAL(n))
    total = sum(
        math.comb(i - 1, k) * _DECIMAL(-1) ** k * new ** (k + 1) / _DECIMAL(k + 1).sqrt()
        for i in range(1, n + 1)
        for k in range(i)
    )
    got_opacity, got_scales = share(jnp.array([opacity], jnp.float32), jnp.full((1, 3), 2.0), jnp.array([n]))
    # float32 rounding of log1p and expm1: a few ulp
    np.testing.assert_allclose(got_opacity[0], float(new), rtol=1e-6)
    np.testing.assert_allclose(got_scales[0], 2 * opacity / float(total), rtol=1e-6)


@pytest.mark.parametrize("n", [2, 7, 51])
def test_shared_copies_keep_the_total_of_alpha_along_a_line(n):
    opacity, scale = 0.8, 0.5
    new_opacity, new_scales = share(jnp.array([opacity]), jnp.full((1, 3), scale), jnp.array([n]))
    o, s = float(new_opacity[0]), float(new_scales[0, 0])
    together = scipy.integrate.quad(lambda x: 1 - (1 - o * math.exp(-(x**2) / (2 * s**2))) ** n, -10, 10, points=[0])[0]
    assert together == pytest.approx(opacity * scale * math.sqrt(2 * math.pi), rel=1e-5)
    assert 1 - (1 - o) ** n == pytest.approx(opacity, rel=1e-5)


def test_relocation_moves_the_dead_in_proportion_to_opacity(key):
    n = 4000
    opacity = np.where(np.arange(n) < 3990, 0.001, np.linspace(0.05, 0.5, n) ** 2 + 0.1)
    scene = _scene(n)
    scene = jax.tree.map(lambda x: x, scene)
    scene = Gaussians(
        means=jnp.arange(3.0 * n).reshape(n, 3),
        quaternions=scene.quaternions,
        log_scales=scene.log_scales,
        opacity_logits=jnp.asarray(np.log(opacity / (1 - opacity)), jnp.float32),
        sh=scene.sh,
    )
    moved, alive, changed = relocate(key, scene, jnp.ones(n, bool), jnp.int32(0))
    assert alive.all()
    source = np.asarray(moved.means[:, 0] / 3).round().astype(int)
    assert (source[:3990] >= 3990).all() and (source[3990:] == np.arange(3990, n)).all()
    counts = np.bincount(source[:3990] - 3990, minlength=10)
    expected = 3990 * opacity[3990:] / opacity[3990:].sum()
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-square of 9 degrees at 0.001
    assert changed.all()


@pytest.mark.slow
def test_relocation_leaves_the_picture_alone_and_births_exactly_what_is_asked(key):
    # copies coincide, and each pixel's product of 1 - alpha is kept to second order
    # in how far the profile departs from a Gaussian: measured 0.012 at the worst
    # pixel for faint splits; opaque ones differ more, as the paper's Fig. 2 shows
    n, free = 60, 40
    scene = _scene(n, opacity=(0.02, 0.25))
    padded = jax.tree.map(lambda rows: with_capacity(rows, n + free), scene)
    alive = jnp.arange(n + free) < n
    grown, now_alive, changed = relocate(key, padded, alive, jnp.int32(25))
    assert int(now_alive.sum()) == n + 25 and bool(now_alive[:n].all())
    pose = jnp.eye(4).at[2, 3].set(4.0)
    camera = Camera(pose, jnp.array([50.0, 50.0]), jnp.array([24.0, 24.0]), (48, 48))
    before = render(scene, camera, backend="xla", capacity=4096).color
    after = render(
        jax.tree.map(lambda rows: rows[np.asarray(now_alive)], grown), camera, backend="xla", capacity=4096
    ).color
    assert float(jnp.abs(after - before).max()) < 0.03
    assert float(jnp.abs(after - before).mean()) < 2e-3
    same = ~np.asarray(changed)
    for a, b in zip(jax.tree.leaves(grown), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(a[same], b[same])
    # 25 births and the Gaussians that they share with; nothing else was touched
    assert 25 < int(changed.sum()) <= 50


@pytest.mark.slow
def test_relocation_without_anyone_alive_changes_nothing(key):
    scene = _scene(10, opacity=(0.001, 0.004))
    moved, alive, changed = relocate(key, scene, jnp.ones(10, bool).at[3].set(False), jnp.int32(1))
    assert not changed.any() and not alive[3]
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(scene), strict=True):
        np.testing.assert_array_equal(a, b)


def test_relocation_is_capped_by_free_rows_and_repeats_bit_for_bit(key):
    scene = _scene(32)
    alive = jnp.arange(32) < 20
    one, alive_one, _ = relocate(key, scene, alive, jnp.int32(1000))
    two, _, _ = relocate(key, scene, alive, jnp.int32(1000))
    assert int(alive_one.sum()) == 32
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_exploration_spreads_by_the_squared_covariance_and_spares_the_opaque(key):
    n = 60_000
    quaternion, log_scale = np.array([0.9, 0.1, -0.4, 0.2]), np.log([0.2, 0.05, 0.4])
    logits = np.where(np.arange(n) < n // 2, -20.0, 3.0)
    scene = Gaussians(
        means=jnp.zeros((n, 3)),
        quaternions=jnp.asarray(np.tile(quaternion, (n, 1)), jnp.float32),
        log_scales=jnp.asarray(np.tile(log_scale, (n, 1)), jnp.float32),
        opacity_logits=jnp.asarray(logits, jnp.float32),
        sh=jnp.zeros((n, 1, 3)),
    )
    walked = np.asarray(explore(key, scene, jnp.float32(3.0)).means)
    sigma = np.asarray(covariances(scene.quaternions[:1], jnp.exp(scene.log_scales[:1]))[0], np.float64)
    faint = 1 / (1 + math.exp(-100 * 0.005))
    expected = (3 * faint) ** 2 * sigma @ sigma
    measured = np.cov(walked[: n // 2].T)
    # standard error of a covariance of 30,000 draws is 0.8%; six of them
    np.testing.assert_allclose(measured, expected, atol=0.05 * expected.max())
    assert np.abs(walked[n // 2 :]).max() < 1e-30


def test_capacity_is_padded_with_zero_rows():
    grown = with_capacity(jnp.arange(6.0).reshape(3, 2), 5)
    np.testing.assert_array_equal(grown, [[0, 1], [2, 3], [4, 5], [0, 0], [0, 0]])
