"""Curved axes: exact inverses, ends, and where they put even samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes.spacing import metric_distances, normalized_distances

SPACINGS = ["linear", "disparity", "log", "power"]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_axes_are_inverses_that_reach_from_near_to_far(spacing):
    near, far = jnp.array([0.05, 1.0, 2.0]), jnp.array([1.0, 6.0, 1e3])
    s = jnp.broadcast_to(jnp.linspace(0, 1, 33), (3, 33))
    t = metric_distances(s, near, far, spacing)
    assert (jnp.diff(t) > 0).all()
    np.testing.assert_allclose(t[:, [0, -1]], jnp.stack([near, far], -1), rtol=1e-4)
    np.testing.assert_allclose(normalized_distances(t, near, far, spacing), s, atol=2e-5)


def test_known_places():
    one, nine, half = jnp.array([1.0]), jnp.array([9.0]), jnp.array([[0.5]])
    for spacing, middle in (("linear", 5.0), ("disparity", 1.8), ("log", 3.0)):
        np.testing.assert_allclose(metric_distances(half, one, nine, spacing), middle, rtol=1e-6)
    # Zip-NeRF: g(x) = |a - 1| / a ((x / |a - 1| + 1)^a - 1) of 2 t with a = -1.5, from 0 to 1e6: g(far) = 5/3
    t = metric_distances(half, jnp.array([0.0]), jnp.array([1e6]), "power")
    np.testing.assert_allclose(t, 1.25 * (0.5 ** (-1 / 1.5) - 1), rtol=1e-4)


def test_disparity_reaches_infinity():
    t = metric_distances(jnp.array([[0.0, 0.5, 1.0]]), jnp.array([2.0]), jnp.array([jnp.inf]), "disparity")
    np.testing.assert_array_equal(t, [[2.0, 4.0, np.inf]])


def test_unknown_names_are_refused():
    with pytest.raises(Exception, match="spacing"):
        metric_distances(jnp.zeros((1, 1)), jnp.ones(1), jnp.ones(1), "cubic")  # pyright: ignore
