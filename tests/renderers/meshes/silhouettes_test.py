"""Outlines: areas and gradients against exact polygon clipping, occlusion, and poses found from masks alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trimesh

from renderers.cameras.camera import Camera, project, stack_cameras
from renderers.cameras.trajectories import look_at
from renderers.meshes import connectivity
from renderers.meshes.rasterize import rasterize_mesh
from renderers.meshes.silhouettes import antialias_image, silhouette_edges

SIZE = (22, 26)
FLAT = Camera(jnp.eye(4), jnp.ones(2), jnp.zeros(2), SIZE, "orthographic")
CUBE = np.asarray([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
CUBE_FACES = np.asarray(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]]
    + [[2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)
OCTAHEDRON = np.asarray([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
OCTAHEDRON_FACES = np.asarray([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])


def clipped_area(polygon, column, row):
    """Area of a simple polygon within a pixel, Sutherland-Hodgman; clockwise or not."""
    points = list(np.asarray(polygon, float))
    for axis, limit, sign in ((0, column, 1), (0, column + 1, -1), (1, row, 1), (1, row + 1, -1)):
        kept = []
        for before, point in zip(points[-1:] + points[:-1], points, strict=True):
            a, b = sign * (before[axis] - limit), sign * (point[axis] - limit)
            if (a >= 0) != (b >= 0):
                kept.append(before + (point - before) * a / (a - b))
            if b >= 0:
                kept.append(point)
        points = kept
        if not points:
            return 0.0
    x, y = np.asarray(points).T
    return abs(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def exact_mask(polygon, size=SIZE):
    low, high = np.floor(np.min(polygon, 0)).astype(int), np.ceil(np.max(polygon, 0)).astype(int)
    mask = np.zeros(size)
    for row in range(max(low[1], 0), min(high[1], size[0])):
        for column in range(max(low[0], 0), min(high[0], size[1])):
            mask[row, column] = clipped_area(polygon, column, row)
    return mask


def hull(points):
    """Corners of the convex hull in order (Andrew's monotone chain)."""
    points = sorted(map(tuple, points))

    def half(points):
        chain = []
        for p in points:
            while len(chain) > 1:
                (ax, ay), (bx, by) = np.subtract(chain[-1], chain[-2]), np.subtract(p, chain[-1])
                if ax * by - ay * bx > 0:
                    break
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return np.asarray(half(points) + half(points[::-1]))


def differences(function, point, step=1e-5):
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        moved = [np.array(point), np.array(point)]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


def fan(count):
    return np.asarray([[0, k, k + 1] for k in range(1, count - 1)])


def mask_of(vertices, faces, camera):
    exact = "reference" if vertices.dtype == jnp.float64 else None
    return rasterize_mesh(vertices, faces, camera, backend=exact).mask


def flat_mask(polygon, faces):
    vertices = jnp.concatenate([jnp.asarray(polygon), jnp.full((len(polygon), 1), 2.0)], 1)
    return mask_of(vertices, faces, cast(FLAT, vertices.dtype))


def cast(camera, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), camera)


@jax.jit
def flat_mask_and_gradient(polygon, weights, faces):
    """The mask and the gradient of its weighted sum, in one program."""
    mask, pull = jax.vjp(lambda polygon: flat_mask(polygon, faces), polygon)
    return mask, pull(weights)[0]


def convex(seed, corners=5):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.7, corners)) / corners
    around = np.stack([9.4 * np.cos(angles), 8.2 * np.sin(angles)], 1)
    return around + [13, 11] + rng.uniform(-0.5, 0.5, 2)


POLYGONS = {
    "random a": convex(0),
    "random b": convex(1),
    "axes through centres": np.asarray([[5, 5], [20, 5], [20, 17], [12, 18], [6, 15]]) + 0.5,
    "on pixel borders": np.asarray([[5.0, 5], [20, 5], [20, 17], [12, 18], [6, 15]]),
    "inside one pixel": convex(2) * 0.03 + [13.3, 11.2],
    "a strip between centres": np.asarray([[4.3, 9.6], [15.2, 9.62], [22.7, 10.1], [22.6, 10.3], [4.4, 10.2]]),
    "out of the image": convex(3) * 1.6 - [8, 3],
}


@pytest.mark.parametrize("name", POLYGONS)
def test_areas_are_those_of_exact_clipping_and_gradients_those_of_its_differences(name):
    polygon = POLYGONS[name]
    weights = np.random.default_rng(5).normal(size=SIZE)
    with jax.enable_x64(True):
        mask, found = flat_mask_and_gradient(jnp.asarray(polygon), jnp.asarray(weights), jnp.asarray(fan(len(polygon))))
        np.testing.assert_allclose(mask, exact_mask(polygon), atol=1e-9)
        if "borders" not in name:  # where differences meet the kink of a corner
            expected = differences(lambda p: np.sum(exact_mask(p) * weights), polygon)
            np.testing.assert_allclose(found, expected, atol=1e-6 * max(1, np.abs(expected).max()))


def test_concave_outlines_are_exact_to_their_inner_corners():
    letter = np.asarray([[4.2, 3.1], [21.3, 3.4], [21.1, 9.3], [11.2, 8.9], [10.9, 18.2], [4.4, 17.8]])
    faces = [[0, 1, 3], [1, 2, 3], [0, 3, 5], [3, 4, 5]]
    triangles = [letter[face] for face in faces]
    expected = sum(exact_mask(triangle) for triangle in triangles)
    found, gradient = flat_mask_and_gradient(jnp.asarray(letter, jnp.float32), jnp.ones(SIZE), jnp.asarray(faces))
    np.testing.assert_allclose(found, expected, atol=3e-5)
    x, y = letter.T
    area = 0.5 * np.stack([np.roll(y, -1) - np.roll(y, 1), np.roll(x, 1) - np.roll(x, -1)], 1)
    np.testing.assert_allclose(np.abs(gradient), np.abs(area), rtol=0.02, atol=0.05)


def test_batches_of_float32_masks_are_exact_to_the_rounding_of_coordinates():
    polygons = [convex(seed) for seed in (0, 1, 4)]
    faces = jnp.asarray(fan(5))
    found = jax.jit(jax.vmap(lambda polygon: flat_mask(polygon, faces)))(jnp.asarray(np.stack(polygons), jnp.float32))
    np.testing.assert_allclose(found, np.stack([exact_mask(polygon) for polygon in polygons]), atol=3e-5)


def looking(size=(40, 44), model="pinhole", distortion=None, dtype=jnp.float64):
    focal = 34.0 if model == "fisheye" else 46.0 if model == "pinhole" else 9.0
    pose = look_at(jnp.asarray([1.1, 0.8, 3.6], dtype), jnp.zeros(3, dtype))
    return Camera(
        pose,
        jnp.asarray([focal, focal * 1.1], dtype),
        jnp.asarray([size[1] / 2 + 0.3, size[0] / 2], dtype),
        size,
        model,
        distortion,
    )


@pytest.mark.parametrize("shape", ["cube", pytest.param("octahedron", marks=pytest.mark.slow)])
def test_gradients_to_corners_of_solids_are_within_two_percent(shape):
    """Each corner's gradient of sum(mask) against float64 differences of the exact area of the projected hull."""
    points, faces = (0.8 * CUBE, CUBE_FACES) if shape == "cube" else (1.3 * OCTAHEDRON, OCTAHEDRON_FACES)
    vertices = points + 0.05 * np.random.default_rng(0).normal(size=points.shape)
    with jax.enable_x64(True):
        camera = looking()
        project_all = jax.jit(lambda v: project(camera, v)[0])

        def area(v):
            corners = hull(np.asarray(project_all(jnp.asarray(v))))
            x, y = corners.T
            return abs(0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))

        wanted, expected = area(vertices), differences(area, vertices)

    def total(v):
        return jnp.sum(mask_of(v, jnp.asarray(faces), looking(dtype=jnp.float32)))

    value, found = jax.jit(jax.value_and_grad(total))(jnp.asarray(vertices, jnp.float32))
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst < 1e-3, f"relative error {worst:.2e} of the largest gradient"


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("orthographic", None),
        pytest.param("pinhole", (-0.15, 0.03, 0.002, -0.001), marks=pytest.mark.slow),
        ("fisheye", (0.03, -0.01, 0.0, 0.0)),
    ],
)
def test_areas_move_with_the_camera_under_every_lens(model, distortion):
    """Sum of the mask by focal length and pose: its own differences, and a rise of focal by 1% makes 2% more area."""
    lens = None if distortion is None else jnp.asarray(distortion, jnp.float32)
    camera = looking(model=model, distortion=lens, dtype=jnp.float32)
    vertices, faces = jnp.asarray(0.8 * OCTAHEDRON, jnp.float32), jnp.asarray(OCTAHEDRON_FACES)

    def total(focal, shift):
        pose = camera.camera_from_world.at[:3, 3].add(shift)
        return jnp.sum(mask_of(vertices, faces, Camera(pose, focal, camera.principal, camera.size, model, lens)))

    both = jax.jit(jax.value_and_grad(total, (0, 1)))
    value, (of_focal, of_shift) = both(camera.focal, jnp.zeros(3))
    # area scales with the product of both focal lengths, but for the chords of curved edges
    assert float(of_focal @ camera.focal) == pytest.approx(2 * float(value), rel=2e-3)
    step = 4e-3
    for axis in range(3):
        shift = jnp.zeros(3).at[axis].set(step)
        expected = (both(camera.focal, shift)[0] - both(camera.focal, -shift)[0]) / (2 * step)
        assert float(of_shift[axis]) == pytest.approx(float(expected), rel=5e-3, abs=1e-3 * float(value))


@pytest.mark.slow
def test_an_outline_before_a_surface_softens_colours_but_not_the_mask():
    square = np.asarray([[7.3, 6.2], [18.4, 6.6], [18.1, 15.7], [7.7, 15.2]])
    wall = np.asarray([[-5.0, -5], [40, -5], [40, 40], [-5, 40]])
    vertices = jnp.asarray(np.concatenate([np.c_[square, np.full(4, 2.0)], np.c_[wall, np.full(4, 3.0)]]), jnp.float32)
    faces = jnp.asarray([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    rendering = rasterize_mesh(vertices, faces, FLAT)
    np.testing.assert_array_equal(rendering.mask, 1.0)
    white = jnp.where(rendering.face_index < 2, 1.0, 0.0)[..., None]
    soften = jax.jit(lambda *scene: antialias_image(*scene, FLAT))
    image = soften(white, rendering, vertices, faces)
    # where a corner ends between centres no pixel next to it shows the surface: its colour is not known there
    exact, corner = exact_mask(square), np.zeros(SIZE, bool)
    corner[tuple(square.astype(int).T[::-1])] = True
    found = np.asarray(image[..., 0])
    np.testing.assert_allclose(found[~corner], exact[~corner], atol=3e-5)
    assert (found[corner] <= exact[corner] + 1e-3).all()
    hidden = vertices.at[4:, 2].set(1.0)  # the wall in front
    rendering = rasterize_mesh(hidden, faces, FLAT, antialias=False)
    pattern = jnp.asarray(np.random.default_rng(0).uniform(size=(*SIZE, 1)), jnp.float32)
    np.testing.assert_array_equal(soften(pattern, rendering, hidden, faces), pattern)


def test_colours_and_vertices_have_the_gradients_of_the_blend():
    polygon = POLYGONS["random b"]
    rng = np.random.default_rng(0)
    faces, weights = jnp.asarray(fan(5)), jnp.asarray(rng.normal(size=(*SIZE, 2)), jnp.float32)
    vertices = jnp.asarray(np.c_[polygon, np.full(5, 2.0)], jnp.float32)
    rendering = rasterize_mesh(vertices, faces, FLAT, antialias=False)
    inside = (rendering.face_index >= 0)[..., None]
    image = jnp.where(inside, jnp.asarray([0.9, 0.2]), jnp.asarray([0.1, 0.6]))

    def total(image, vertices):
        return jnp.sum(weights * antialias_image(image, rendering, vertices, faces, FLAT))

    both = jax.jit(jax.value_and_grad(total, (0, 1)))
    _, (of_image, of_vertices) = both(image, vertices)
    direction = 0.05 * jnp.asarray(rng.normal(size=image.shape), jnp.float32)  # the blend is linear in colours
    slope = (both(image + direction, vertices)[0] - both(image - direction, vertices)[0]) / 2
    assert float(jnp.sum(of_image * direction)) == pytest.approx(float(slope), abs=1e-3)
    expected = differences(lambda v: float(both(image, jnp.asarray(v, jnp.float32))[0]), np.asarray(vertices), 5e-3)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(of_vertices, expected, atol=1e-2)


@pytest.mark.parametrize(("center", "count"), [((0.3, 0.4, 5.0), 4), ((3.0, 0.4, 5.0), 6), ((3.0, 2.5, 5.0), 6)])
def test_silhouettes_of_a_cube_are_its_hull(center, count):
    """One side is seen, two, three: the hull of their corners has four corners, or six."""
    opposite = jnp.asarray(connectivity.opposite_vertices(CUBE_FACES))
    points = jnp.asarray(CUBE + center, jnp.float32)
    edges = jax.jit(silhouette_edges)(points, jnp.asarray(CUBE_FACES), opposite, looking(dtype=jnp.float32))
    assert int(jnp.sum(edges)) == count


@functools.cache
def sphere():
    """Corners of a unit sphere of 320 faces, its faces, and the vertices across their edges."""
    ball = trimesh.creation.icosphere(2)
    opposite = connectivity.opposite_vertices(np.asarray(ball.faces))
    return np.float32(ball.vertices), np.int32(ball.faces), opposite


def sphere_masks(state, cameras):
    """Masks of the sphere with centre state[:3] and radius exp(state[3])."""
    points, faces, opposite = map(jnp.asarray, sphere())
    vertices = jnp.exp(state[3]) * points + state[None, :3]
    return jax.lax.map(lambda camera: rasterize_mesh(vertices, faces, camera, opposite=opposite).mask, cameras)


@jax.jit
def descended(cameras, truth, start, free):
    """What Adam makes of a start, given the masks of the truth; `free` is 1 for the numbers that are not known."""
    adam = optax.adam(optax.cosine_decay_schedule(0.1, 120))
    target = sphere_masks(truth, cameras)

    def step(_, carried):
        state, moments = carried
        gradient = jax.grad(lambda state: jnp.sum((sphere_masks(state, cameras) - target) ** 2))(state)
        updates, moments = adam.update(gradient, moments)
        return state + free * updates, moments

    return jax.lax.fori_loop(0, 120, step, (start, adam.init(start)))[0]


def cameras_from(eyes, target, focal):
    poses = [look_at(jnp.asarray(eye, jnp.float32), jnp.asarray(target, jnp.float32)) for eye in eyes]
    return stack_cameras([Camera(pose, jnp.full(2, focal), jnp.asarray([18.0, 16.0]), (32, 36)) for pose in poses])


def test_a_sphere_is_found_from_its_masks_alone():
    """Centre and radius to less than 1% by plain descent, from half the radius and a centre farther off than that."""
    cameras = cameras_from([(0.4, 0.8, 3.6), (3.7, -0.3, -0.2)], (0, 0, 0), 40.0)
    truth = jnp.asarray([0.25, -0.2, 0.15, np.log(0.8)], jnp.float32)
    found = descended(cameras, truth, jnp.asarray([-0.35, 0.3, -0.35, np.log(0.4)], jnp.float32), jnp.ones(4))
    assert float(jnp.linalg.norm(found[:3] - truth[:3])) < 0.01 * 0.8
    assert float(jnp.exp(found[3] - truth[3])) == pytest.approx(1.0, abs=0.01)


def test_a_single_mask_gives_a_sphere_up_to_the_one_number_that_it_does_not_hold():
    """Off the axis of a wide lens. A mask fixes the cone around the sphere: centre and radius scale together."""
    cameras = cameras_from([(0, 0, 0)] * 2, (0, 0, 9), 18.0)  # one, twice: the program of the test above
    truth = jnp.asarray([1.3, -0.9, 3.0, np.log(0.8)], jnp.float32)
    start = jnp.asarray([0.6, -0.2, 3.9, np.log(0.6)], jnp.float32)
    # with its size known, the centre, depth included
    placed = descended(cameras, truth, start.at[3].set(truth[3]), jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    assert float(jnp.linalg.norm(placed[:3] - truth[:3])) < 0.01 * 0.8
    # with nothing known, the direction and the angular radius: the size, once the distance is known
    found = descended(cameras, truth, start, jnp.ones(4))
    distances = jnp.linalg.norm(found[:3]), jnp.linalg.norm(truth[:3])
    np.testing.assert_allclose(found[:3] / distances[0], truth[:3] / distances[1], atol=2e-3)
    assert float(jnp.exp(found[3]) * distances[1] / distances[0]) == pytest.approx(0.8, rel=5e-3)
    # and no more than that, by any method
    larger = truth.at[:3].multiply(1.5).at[3].add(np.log(1.5))
    masks = jax.jit(sphere_masks)
    np.testing.assert_allclose(masks(larger, cameras), masks(truth, cameras), atol=1e-5)
