import numpy as np
import pytest
from scipy import sparse

from renderers.meshes import smooth_distance as module
from renderers.meshes.extraction import grid_points, marching_cubes
from renderers.meshes.smooth_distance import smooth_distance

BOX = np.array([[-1.0] * 3, [1.0] * 3])


def on_sphere(count, *, lowest=-1.0, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(4 * count, 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return points[points[:, 1] > lowest][:count]


def test_plane_goes_on_straight():
    # A plane bends nowhere: every term of the energy is 0 for its distance, also beside the points.
    normal = np.array([0.6, 0.0, 0.8])
    rng = np.random.default_rng(1)
    points = 0.5 * rng.uniform(-1, 1, (200, 3))
    points -= (points @ normal - 0.1)[:, None] * normal
    field = smooth_distance(points, np.tile(normal, (200, 1)), np.ones(200), BOX, 9)
    expected = grid_points(BOX, 9) @ normal - 0.1
    near = np.abs(expected) < 0.6
    np.testing.assert_allclose(field[near], expected[near], atol=0.02)


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_sphere_through_noise_and_outliers(outliers):
    normals = on_sphere(800)
    rng = np.random.default_rng(2)
    points = 0.6 * normals + rng.normal(size=normals.shape) * 0.01
    wrong = rng.random(800) < outliers
    points[wrong] += 0.25 * normals[wrong]  # they float outside and face outward
    field = smooth_distance(points, normals, np.ones(800), BOX, 32)
    mesh = marching_cubes(field, BOX, level=0.0, inside="below")
    radius = np.linalg.norm(np.asarray(mesh.vertices), axis=-1)
    shell = radius < 0.75
    assert abs(np.median(radius) - 0.6) < 0.01
    assert np.percentile(np.abs(radius[shell] - 0.6), 95) < 0.03


def test_unseen_part_closes_and_respects_bounds():
    # Only the upper two thirds are seen; below, the field goes on smoothly, but not beneath the ground.
    normals = on_sphere(800, lowest=-0.4)
    ground = -0.45

    def above(nodes, spacing):
        return ground - nodes[..., 1]

    free = smooth_distance(0.6 * normals, normals, np.ones(len(normals)), BOX, 32)
    cut = smooth_distance(0.6 * normals, normals, np.ones(len(normals)), BOX, 32, at_least=above)
    lowest = {}
    for name, field in (("free", free), ("cut", cut)):
        mesh = marching_cubes(field, BOX, level=0.0, inside="below")
        lowest[name] = float(np.asarray(mesh.vertices)[:, 1].min())
    assert -0.75 < lowest["free"] < -0.5
    assert abs(lowest["cut"] - ground) < 0.02


def test_solution_is_that_of_the_normal_equations():
    rng = np.random.default_rng(3)
    nodes, shape = 5, (5, 5, 5)
    places = rng.uniform(0, 4, (20, 3))
    normals = rng.normal(size=(20, 3)).astype(np.float32)
    trust = rng.uniform(0.2, 1, 20).astype(np.float32)
    bound = np.where(rng.random(shape) < 0.2, 1.0, -np.inf).astype(np.float32)
    start = rng.normal(size=shape).astype(np.float32)
    values, slopes = module._interpolation(places, nodes)
    found = module._solved(start, values, slopes, normals, trust, bound, 0.1, 400)
    # The same energy as dense rows: residuals of data, bounds, what was there, and second differences
    identity = np.eye(125)
    rows: list[np.ndarray] = [np.sqrt(trust)[:, None] * values.toarray()]
    wanted: list[np.ndarray] = [np.zeros(20)]
    for k, slope in enumerate(slopes):
        rows.append(np.sqrt(trust)[:, None] * slope.toarray())
        wanted.append(np.sqrt(trust) * normals[:, k])
    active = (start < bound).ravel()
    rows += [identity[active], np.sqrt(1e-4) * identity]
    wanted += [bound.ravel()[active], np.sqrt(1e-4) * start.ravel()]
    grids = identity.reshape(125, *shape)
    for axis in range(1, 4):
        rows.append(np.sqrt(0.1) * np.diff(grids, 2, axis=axis).reshape(125, -1).T)
    for first, other in ((1, 2), (1, 3), (2, 3)):
        rows.append(np.sqrt(0.2) * np.diff(np.diff(grids, axis=first), axis=other).reshape(125, -1).T)
    wanted += [np.zeros(len(block)) for block in rows[len(wanted) :]]
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]
    np.testing.assert_allclose(found.ravel(), expected, atol=5e-3)


def test_interpolation_is_exact_for_trilinear_functions():
    nodes = grid_points(np.array([[0.0] * 3, [5.0] * 3]), 6).astype(np.float64)

    def function(p):
        return 1 + 2 * p[..., 0] - p[..., 1] + 3 * p[..., 2] + 0.5 * p[..., 0] * p[..., 1] * p[..., 2]

    places = np.random.default_rng(4).uniform(0, 5, (50, 3))
    values, slopes = module._interpolation(places, 6)
    assert sparse.issparse(values)
    np.testing.assert_allclose(values @ function(nodes).ravel(), function(places), rtol=1e-5)
    step = 1e-6 * np.eye(3)
    for k in range(3):
        # within a cell the function is trilinear itself: slopes are its derivatives there
        inside = np.floor(places) == np.floor(places + step[k])
        slope = (function(places + step[k]) - function(places)) / 1e-6
        good = inside.all(-1)
        cell_bias = np.abs(slopes[k] @ function(nodes).ravel() - slope)[good]
        assert cell_bias.max() < 1e-3


def test_bad_input_is_refused():
    point, normal, one = np.zeros((1, 3)), np.array([[0.0, 1.0, 0.0]]), np.ones(1)
    with pytest.raises(ValueError, match="none of 1 points"):
        smooth_distance(point + 5, normal, one, BOX, 16)
    with pytest.raises(ValueError, match="cube"):
        smooth_distance(point, normal, one, BOX * np.array([1.0, 2.0, 1.0]), 16)
