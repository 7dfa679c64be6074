"""Samples are where areas are, uniform within triangles, and differentiable; even samples keep their distance."""

import jax
import jax.numpy as jnp
import numpy as np

from renderers.meshes.sampling import sample_surface, sample_surface_even

KEY = jax.random.key(3)
# areas 0.5, 1.5, 0 (degenerate) and 2
VERTICES = jnp.array(
    [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3], [2, 2, 0], [0, 0, 0.0], [4, 0, 5], [0, 0, 5], [0, 1, 5]]
)
FACES = jnp.array([[0, 1, 2], [0, 1, 3], [0, 0, 4], [7, 6, 8]])
_sample = jax.jit(sample_surface, static_argnames=("count", "stratified"))


def test_faces_are_chosen_by_area_and_points_lie_on_them():
    samples = _sample(KEY, VERTICES, FACES, 8000)
    share = np.bincount(samples.face_index, minlength=4) / 8000
    expected = np.array([0.5, 1.5, 0, 2]) / 4
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 8000))
    corners = np.asarray(VERTICES)[np.asarray(FACES)[samples.face_index]]
    np.testing.assert_allclose(samples.points, np.einsum("nk,nkd->nd", samples.barycentric, corners), atol=1e-6)
    assert (np.asarray(samples.barycentric) >= 0).all()
    np.testing.assert_allclose(np.sum(samples.barycentric, -1), 1.0, atol=1e-6)
    last = np.asarray(samples.face_index) == 3
    np.testing.assert_allclose(np.asarray(samples.normals)[last], np.tile([[0, 0, 1.0]], (last.sum(), 1)), atol=1e-6)


def test_points_are_uniform_in_a_triangle():
    # uniform weights have mean 1/3, variance 1/18, covariance -1/36
    weights = np.asarray(_sample(KEY, VERTICES, FACES, 8000).barycentric, np.float64)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.011)
    np.testing.assert_allclose(np.cov(weights.T), np.eye(3) / 12 - 1 / 36, atol=0.004)


def test_stratified_samples_are_spread_to_within_one_point():
    samples = _sample(KEY, VERTICES, FACES, 8000, stratified=True)
    counts = np.bincount(samples.face_index, minlength=4)
    assert np.abs(counts - 8000 * np.array([0.5, 1.5, 0, 2]) / 4).max() <= 1


def test_points_move_with_their_vertices():
    def mean_height(vertices):
        return jnp.mean(_sample(KEY, vertices, FACES, 8000).points[:, 2])

    gradient = np.asarray(jax.grad(mean_height)(VERTICES))
    np.testing.assert_allclose(gradient[:, 2].sum(), 1.0, rtol=1e-5)  # a shift of all moves the mean with it
    assert np.isfinite(gradient).all() and not gradient[:, :2].any() and gradient[4, 2] == 0


def test_even_samples_keep_their_distance():
    samples = sample_surface_even(KEY, VERTICES, FACES, 100)
    points = np.asarray(samples.points)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 9 * np.eye(len(points))
    assert len(points) == 100 and gaps.min() >= np.sqrt(4.0 / 300) - 1e-6
    plain = np.asarray(_sample(KEY, VERTICES, FACES, 8000).points)[:100]
    assert (np.linalg.norm(plain[:, None] - plain[None], axis=-1) + 9 * np.eye(100)).min() < 0.05


def test_a_surface_without_area_gives_its_first_face():
    samples = _sample(KEY, jnp.zeros((9, 3)), FACES, 5)
    assert not np.asarray(samples.face_index).any() and np.isfinite(np.asarray(samples.points)).all()
