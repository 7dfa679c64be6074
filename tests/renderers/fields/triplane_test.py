"""Tri-planes: which axes lie on which plane, aggregations, borders, smoothness."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renderers.fields.triplane import TriPlane, plane_coordinates, planes_total_variation, sample_triplane

N = 8
CENTRES = (np.arange(N) + 0.5) / N * 2 - 1


def _own_coordinates():
    """Planes that hold (coordinate along the width, along the height) of each texel."""
    v, u = np.meshgrid(CENTRES, CENTRES, indexing="ij")
    return jnp.asarray(np.broadcast_to(np.stack([u, v], -1), (3, N, N, 2)), jnp.float32)


def test_the_axes_of_the_planes_are_those_of_the_corrected_eg3d():
    """(x, y), (x, z), (z, y); the first runs along the width."""
    point = jnp.asarray([[0.1, -0.4, 0.7]])
    found = sample_triplane(_own_coordinates(), point)
    np.testing.assert_allclose(found[0], [0.1, -0.4, 0.1, 0.7, 0.7, -0.4], atol=1e-6)
    np.testing.assert_array_equal(plane_coordinates(point)[:, 0], np.array([[0.1, -0.4], [0.1, 0.7], [0.7, -0.4]], "f"))


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", [0.9, -0.1]), ("mean", [0.3, -0.1 / 3]), ("product", [0.1 * 0.1 * 0.7, 0.4 * 0.7 * 0.4])],
)
def test_aggregations(aggregation, expected):
    found = sample_triplane(_own_coordinates(), jnp.asarray([[0.1, -0.4, 0.7]]), aggregation=aggregation)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_features_are_zero_outside_and_resolutions_are_joined():
    grid = TriPlane((4, 8), 5, rngs=nnx.Rngs(0))
    points = jnp.asarray([[[0.0, 0.1, 0.2]], [[3.0, 3.0, 3.0]]])
    found = grid(points)
    assert found.shape == (2, 1, grid.num_features) and grid.num_features == 30
    assert np.asarray(found[0]).all() and not np.asarray(found[1]).any()
    np.testing.assert_array_equal(found[0, :, 15:], sample_triplane(grid.planes[1][...], points[0]))
    product = TriPlane((4,), 2, aggregation="product", rngs=nnx.Rngs(0))
    assert product.num_features == 2 and 0.1**3 <= float(product(jnp.zeros((1, 3))).min()) <= 0.5**3


def test_total_variation_of_a_ramp():
    """Steps of 2 / n along one axis each; constants and single texels cost nothing."""
    np.testing.assert_allclose(planes_total_variation(_own_coordinates()), (2 / N) ** 2, rtol=1e-5)
    assert float(planes_total_variation(jnp.ones((3, 4, 4, 2)))) == 0
    assert float(planes_total_variation(jnp.ones((3, 1, 1, 2)))) == 0
