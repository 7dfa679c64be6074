"""ICON's and ECON's numbers on shapes whose distances are known."""

import jax
import jax.numpy as jnp
import numpy as np

from renderers.meshes.legacy_metrics import econ_errors, icon_errors, icon_normal_error

KEY = jax.random.key(0)


def plates(gap, n=6, side=1.0):
    """Two parallel square plates of n x n x 2 triangles, `gap` apart."""
    x, z = np.meshgrid(side * np.arange(n + 1.0) / n, side * np.arange(n + 1.0) / n, indexing="ij")
    vertices = np.stack([x, 0 * x, z], -1).reshape(-1, 3)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
    faces = np.concatenate(
        [np.c_[corner, corner + 1, corner + n + 1], np.c_[corner + 1, corner + n + 2, corner + n + 1]]
    )
    faces = jnp.asarray(faces, jnp.int32)
    return jnp.asarray(vertices, jnp.float32), faces, jnp.asarray(vertices + [0, gap, 0], jnp.float32), faces


def test_parallel_plates_are_their_gap_apart_times_a_hundred():
    for errors in (icon_errors, econ_errors):
        found = errors(KEY, *plates(0.03, n=6))  # triangles of area 0.014, above ECON's limit
        np.testing.assert_allclose(found, (3.0, 3.0), rtol=1e-5)


def test_econ_sees_small_triangles_as_wires():
    # legs h = 0.08, area 0.0032 < 0.005: the mean distance to the wires of a plane at no gap is a third of the inradius
    meshes = plates(0.0, n=12, side=0.96)
    assert icon_errors(KEY, *meshes)[0] < 1e-4
    inradius = 0.08 / (2 + np.sqrt(2))
    np.testing.assert_allclose(econ_errors(KEY, *meshes), 100 * inradius / 3, rtol=0.05)


def test_normal_error_by_hand():
    normals, truth = np.zeros((4, 2, 2, 3)), np.zeros((4, 2, 2, 3))
    truth[0, 0, 0], normals[0, 0, 0] = [0, 0, 1.0], [0, 3.0, 0]  # renormalised, perpendicular: sum of squares 2 / 4
    truth[1, 0, 0] = [1.0, 0, 0]  # against background: 1 / 4
    np.testing.assert_allclose(icon_normal_error(normals, truth), 4 * (0.5 + 0.25) / 16)
    assert icon_normal_error(truth, truth) == 0.0
