"""Dense grids: axis order, linear functions, gradients, borders and smoothness."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from renderers.fields.dense_grid import DenseGrid, grid_total_variation, sample_grid, sample_grid_with_gradient


def _ramps(nz=3, ny=4, nx=6):
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in (nz, ny, nx)), indexing="ij")
    return jnp.asarray(np.stack([x + 2 * y + 3 * z, x * y * z], -1), jnp.float32)


def test_the_order_of_axes_and_linear_functions_with_their_gradient():
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (20, 3)), jnp.float32)
    found, gradient = sample_grid_with_gradient(_ramps(), points)
    np.testing.assert_allclose(found[:, 0], points @ jnp.asarray([1.0, 2.0, 3.0]), atol=1e-5)
    np.testing.assert_allclose(found[:, 1], points.prod(1), atol=1e-6)
    np.testing.assert_allclose(gradient[:, 0], np.tile([1.0, 2.0, 3.0], (20, 1)), atol=1e-4)
    np.testing.assert_allclose(gradient[:, 1], points.prod(1)[:, None] / points, atol=1e-4)


def test_beyond_the_border_values_go_on_and_gradients_are_zero():
    outside, border = jnp.asarray([[1.5, 0.5, -2.0]]), jnp.asarray([[1.0, 0.5, 0.0]])
    found, gradient = sample_grid_with_gradient(_ramps(), outside)
    np.testing.assert_array_equal(found, sample_grid(_ramps(), border))
    np.testing.assert_allclose(gradient[0, 0], [0, 2, 0], atol=1e-5)
    np.testing.assert_allclose(sample_grid_with_gradient(_ramps(), border)[1][0, 0], [1, 2, 3], atol=1e-5)


def test_gradients_can_be_differentiated():
    """d/d values of the gradient of x y z at a point, by linearity: the gradient of any other grid."""
    point, other = jnp.asarray([[0.3, 0.6, 0.8]]), _ramps()[..., :1]

    def steep(values):
        return sample_grid_with_gradient(values, point)[1].sum()

    slope = (jax.grad(steep)(_ramps()[..., 1:]) * other).sum()
    np.testing.assert_allclose(slope, 6.0, rtol=1e-4)


def test_total_variation_and_the_module():
    np.testing.assert_allclose(
        grid_total_variation(_ramps()[..., :1]), (1 / 5) ** 2 + (2 / 3) ** 2 + (3 / 2) ** 2, rtol=1e-5
    )
    grid = DenseGrid((3, 4, 6), 2, initial=0.5, rngs=nnx.Rngs(0))
    assert float(grid.total_variation()) == 0 and grid.num_features == 2
    np.testing.assert_allclose(grid(jnp.zeros((2, 5, 3))), np.full((2, 5, 2), 0.5))
