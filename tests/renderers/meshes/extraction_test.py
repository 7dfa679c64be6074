"""Marching cubes on spheres, grids in chunks, and the surface of a single splat in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes.connectivity import euler_characteristic, is_watertight
from renderers.meshes.extraction import grid_points, marching_cubes, sample_grid, splat_box, splat_density
from renderers.meshes.mesh import enclosed_volume, face_normals

BOX = np.array([[-1.0, -1.1, -1.2], [1.2, 1.3, 1.0]])
NODES = (30, 33, 31)
CENTER = np.array([0.1, 0.05, -0.1])


def ball(points, radius=0.7):
    return jnp.linalg.norm(points - jnp.asarray(CENTER, points.dtype)[None], axis=-1) - radius


@pytest.mark.parametrize(("sign", "inside"), [(1.0, "below"), (-1.0, "above")])
def test_sphere_is_found_in_world_units_with_normals_outward(sign, inside):
    values = sample_grid(lambda x: sign * ball(x), BOX, NODES)
    mesh = marching_cubes(values, BOX, level=0.0, inside=inside)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    assert is_watertight(faces) and euler_characteristic(faces) == 2
    radii = np.linalg.norm(vertices - CENTER, axis=-1)
    spacing = 0.08
    assert np.abs(radii - 0.7).max() < spacing**2 / (4 * 0.7) * 1.5  # linear interpolation: h^2 / (8 r) along each axis
    assert abs(enclosed_volume(mesh.vertices, mesh.faces) / (4 / 3 * np.pi * 0.7**3) - 1) < 0.01
    outward = vertices[faces].mean(1) - CENTER
    assert (np.einsum("fd,fd->f", np.asarray(face_normals(mesh.vertices, mesh.faces)), outward) > 0).all()


def test_error_falls_with_the_square_of_the_spacing():
    errors = []
    for nodes in (12, 24, 48):
        mesh = marching_cubes(sample_grid(ball, BOX, nodes), BOX, level=0.0, inside="below")
        errors.append(np.abs(np.linalg.norm(np.asarray(mesh.vertices) - CENTER, axis=-1) - 0.7).mean())
    order = np.log(errors[0] / errors[2]) / np.log(47 / 11)
    assert 1.7 < order < 2.4


def test_the_level_and_the_border():
    values = sample_grid(ball, BOX, 25)
    larger = marching_cubes(values, BOX, level=0.2, inside="below")
    np.testing.assert_allclose(np.linalg.norm(np.asarray(larger.vertices) - CENTER, axis=-1).mean(), 0.9, atol=0.01)
    cut = marching_cubes(values, BOX, level=0.75, inside="below")  # radius 1.45 runs out of the box
    assert is_watertight(np.asarray(cut.faces))
    assert (np.asarray(cut.vertices) >= BOX[0] - 1e-6).all() and (np.asarray(cut.vertices) <= BOX[1] + 1e-6).all()
    assert not is_watertight(
        np.asarray(marching_cubes(values, BOX, level=0.75, inside="below", close_at_border=False).faces)
    )
    full = marching_cubes(values, BOX, level=9.0, inside="below")
    np.testing.assert_allclose(enclosed_volume(full.vertices, full.faces), np.prod(BOX[1] - BOX[0]), rtol=0.01)


def test_values_exactly_at_the_level_give_a_watertight_surface():
    points = grid_points(np.array([[-1.0] * 3, [1.0] * 3]), 9)
    octahedron = np.abs(points).sum(-1) - np.float32(0.75)  # many nodes are exactly zero
    assert (octahedron == 0).sum() > 10
    mesh = marching_cubes(octahedron, np.array([[-1.0] * 3, [1.0] * 3]), level=0.0, inside="below")
    assert is_watertight(np.asarray(mesh.faces)) and euler_characteristic(np.asarray(mesh.faces)) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((4, 4, 4)), r"no surface at level 0.*all of the grid is outside"),
        (np.full((4, 4, 4), np.nan), "the field must be finite"),
        (np.ones((1, 4, 4)), "at least 2 x 2 x 2"),
    ],
)
def test_fields_without_a_surface_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        marching_cubes(values, BOX, level=0.0, inside="below")
    with pytest.raises(ValueError, match="no surface at level"):
        marching_cubes(-np.ones((4, 4, 4)), BOX, level=0.0, inside="below", close_at_border=False)


def test_a_grid_is_evaluated_in_equal_chunks_with_progress():
    sizes, seen = [], []

    def field(points):
        sizes.append(len(points))
        return points * 2.0

    values = sample_grid(field, BOX, (4, 5, 6), chunk=50, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(values, 2 * grid_points(BOX, (4, 5, 6)), atol=1e-6)
    np.testing.assert_allclose(values[-1, -1, -1], 2 * BOX[1], rtol=1e-6)
    assert sizes == [50, 50, 50] and seen == [(50, 120), (100, 120), (120, 120)]


def test_splat_density_is_the_sum_over_all_splats():
    rng = np.random.default_rng(0)
    means, scales = rng.uniform(-0.8, 0.8, (6, 3)), rng.uniform(0.05, 0.4, (6, 3))
    quaternions, opacities = rng.normal(size=(6, 4)), np.array([0.9, 0.004, 0.3, 0.7, 1.0, 0.2])
    box = np.array([[-1.0, -1.0, -1.0], [1.0, 0.8, 1.2]])
    found = splat_density(means, quaternions, scales, opacities, box, (17, 12, 19), reach=8.0)
    points = grid_points(box, (17, 12, 19)).astype(np.float64)
    expected = 0.0
    for i in (0, 2, 3, 4, 5):  # the second is too faint
        w, x, y, z = quaternions[i] / np.linalg.norm(quaternions[i])
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = np.eye(3) + 2 * w * skew + 2 * skew @ skew
        precision = np.linalg.inv(rotation @ np.diag(scales[i] ** 2) @ rotation.T)
        offset = points - means[i]
        expected = expected + opacities[i] * np.exp(-0.5 * np.einsum("...i,ij,...j->...", offset, precision, offset))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    cut = splat_density(means, quaternions, scales, opacities, box, (17, 12, 19))
    assert 0 < np.abs(cut - expected).max() < 6 * np.exp(-4.5) and (cut <= found + 1e-6).all()


def test_the_surface_of_equal_splats_is_a_sphere_of_known_radius():
    # n coinciding splats of opacity o: d = 1 at r = s sqrt(2 ln(n o))
    box = splat_box(np.array([[0.3, 0.2, 0.1], [0.5, 0.2, 0.1]]), fill=0.1)
    means, scales = np.full((4, 3), [0.4, 0.2, 0.1]), np.full((4, 3), 0.3)
    np.testing.assert_allclose(box, means[:2] + [[-1.0], [1.0]])
    density = splat_density(means, np.eye(4)[:1].repeat(4, 0), scales, np.full(4, 0.9), box, 40)
    mesh = marching_cubes(density, box, level=1.0, inside="above")
    radius = 0.3 * np.sqrt(2 * np.log(3.6))
    np.testing.assert_allclose(np.linalg.norm(np.asarray(mesh.vertices) - means[0], axis=-1), radius, atol=0.003)


def test_no_splats_give_zero_density():
    empty = splat_density(np.zeros((2, 3)), np.zeros((2, 4)), np.ones((2, 3)), np.zeros(2), BOX, 9)
    assert empty.shape == (9, 9, 9) and not empty.any()
