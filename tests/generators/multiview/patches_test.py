import jax.numpy as jnp
import numpy as np
import pytest

from generators.multiview.patches import fold, unfold

SIZES = [(8, 12, 4, 0), (8, 12, 4, 1), (12, 8, 4, 2), (6, 6, 2, 1)]


@pytest.mark.parametrize(("h", "w", "patch", "rim"), SIZES)
def test_a_cell_is_the_picture_around_it_with_zeros_beyond_the_border(h, w, patch, rim):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, h, w, 3)), jnp.float32)
    cells = np.asarray(unfold(images, patch, rim)).reshape(2, h // patch, w // patch, patch + 2 * rim, -1, 3)
    wide = np.pad(np.asarray(images), ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    for row in range(h // patch):
        for column in range(w // patch):
            y, x, side = row * patch, column * patch, patch + 2 * rim
            np.testing.assert_array_equal(cells[:, row, column], wide[:, y : y + side, x : x + side])


@pytest.mark.parametrize(("h", "w", "patch", "rim"), SIZES)
def test_fold_is_the_transpose_of_unfold(h, w, patch, rim):
    """<unfold(x), y> = <x, fold(y)> for all x and y."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, h, w, 3)).astype(np.float32)
    cells = np.asarray(unfold(jnp.asarray(images), patch, rim))
    others = rng.normal(size=cells.shape).astype(np.float32)
    folded = np.asarray(fold(jnp.asarray(others), (h, w), patch, rim))
    np.testing.assert_allclose(np.vdot(cells, others), np.vdot(images, folded), rtol=1e-4, atol=1e-3)


def test_without_rims_fold_inverts_unfold_and_with_them_it_counts_who_sees_a_pixel():
    images = jnp.arange(64.0).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(fold(unfold(images, 4, 0), (8, 8), 4, 0), images)
    seen = fold(unfold(jnp.ones((1, 8, 8, 1)), 4, 1), (8, 8), 4, 1)[0, :, :, 0]
    along = np.array([1, 1, 1, 2, 2, 1, 1, 1])  # the two pixels beside the seam are seen by both cells
    np.testing.assert_array_equal(seen, np.outer(along, along))
