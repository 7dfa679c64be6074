"""Every backend against float64 geometry on hard scenes; closed surfaces have no holes, ties go to the lower index."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.triangle_raster import api
from renderers.kernels.triangle_raster.api import visible_faces
from tests.renderers.kernels.triangle_raster import scenes

BACKENDS = ("reference", "xla", "cpu", "pallas_gpu")
backends = pytest.mark.parametrize("backend", BACKENDS)
# by default every backend and every projection, and every projection of cpu, which has code of its own for each
_DEFAULT = {"perspective": BACKENDS, "parallel": ("xla", "cpu"), "spherical": ("reference", "cpu")}
rows = pytest.mark.parametrize(
    ("backend", "projection"),
    [
        pytest.param(b, p, marks=[] if b in _DEFAULT[p] else pytest.mark.slow)
        for p in scenes.PROJECTIONS
        for b in BACKENDS
    ],
)
CAPACITY = 16 * scenes.NUM_FACES  # all tiles each, rounded up


@functools.cache
def _compiled(backend, projection):
    return jax.jit(functools.partial(visible_faces, projection=projection, capacity=CAPACITY, backend=backend))


@functools.cache
def _allowed(name, projection):
    return scenes.allowed(*scenes.scene(name), scenes.rays(projection), projection)


def _whole_image(count):
    return jnp.tile(jnp.asarray([[0, 0, scenes.SIZE[1], scenes.SIZE[0]]], jnp.int32), (count, 1))


def _seen(backend, projection, points, faces, rays=None):
    rays = scenes.rays(projection) if rays is None else rays
    index, overflow = _compiled(backend, projection)(points, faces, rays, _whole_image(len(faces)), scenes.NEAR)
    assert int(overflow) == 0
    return np.asarray(index)


@rows
def test_what_is_seen_is_what_float64_geometry_allows(backend, projection):
    for name in scenes.SCENES:
        index = _seen(backend, projection, *scenes.scene(name))
        good = np.take_along_axis(_allowed(name, projection), index[..., None] % (scenes.NUM_FACES + 1), -1)[..., 0]
        bad = np.argwhere(~good)
        assert len(bad) == 0, f"{name}: pixels {bad[:5].tolist()} see {index[tuple(bad[:5].T)].tolist()}"


def test_the_scenes_decide_most_pixels():
    """The yardstick itself: in most pixels one answer only is allowed, and every scene but one is seen."""
    for name in scenes.SCENES:
        choices = _allowed(name, "perspective").sum(-1)
        assert (choices >= 1).all()
        if name != "ties":
            assert (choices == 1).mean() > 0.9, name
        assert _allowed(name, "perspective")[..., -1].all() == (name == "behind"), name


@rows
def test_of_coinciding_faces_the_lowest_index_is_seen(backend, projection):
    index = _seen(backend, projection, *scenes.scene("ties"))
    assert (index[index >= 0] % 4 == 0).all() and (index >= 0).sum() > 50


def _lattice(projection):
    """A square of 64 faces whose vertices lie on the rays of pixel centres; its corner pixels (y, x) inclusive."""
    steps = np.arange(33).reshape(-1)[::4][:5] + 2  # pixels 2, 6, 10, 14, 18
    rays = scenes.rays(projection).astype(np.float64)
    at = rays[steps][:, steps].copy()
    if projection == "parallel":
        at[..., 2] = 3.0
    else:
        at *= 3.0
    number = np.arange(25).reshape(5, 5)
    a, b, c, d = (v.reshape(-1) for v in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([c, b, d], 1)])
    faces = np.concatenate([faces, faces])  # 64: each twice
    points = np.zeros((3 * scenes.NUM_FACES, 3))
    points[:25] = at.reshape(-1, 3)
    return points.astype(np.float32), faces.astype(np.int32), (2, 18)


@rows
def test_pixel_centres_on_edges_and_vertices_see_the_surface(backend, projection):
    """Rays are exact: vertices, edges and diagonals pass through pixel centres, and the border counts as inside.

    A fisheye's are not, to rounding: there the border may go either way.
    """
    points, faces, (first, last) = _lattice(projection)
    index = _seen(backend, projection, points, faces)
    covered = np.zeros(scenes.SIZE, bool)
    covered[first : last + 1, first : last + 1] = True
    if projection == "spherical":
        inner = slice(first + 1, last)
        assert (index[inner, inner] >= 0).all() and not (index >= 0)[~covered].any()
    else:
        np.testing.assert_array_equal(index >= 0, covered)


def _closed_surface(rng, projection):
    """Octahedron, its corners on rays of pixels (to rounding), around the camera; turned at random."""
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    corners = corners @ turn.T * rng.uniform(0.5, 4.0, (6, 1))
    faces = [[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    return corners, np.asarray(faces)


@pytest.mark.parametrize(
    "backend", ["reference", "cpu", *(pytest.param(b, marks=pytest.mark.slow) for b in ("xla", "pallas_gpu"))]
)
def test_a_closed_surface_has_no_holes(backend):
    """From inside every ray of a fisheye meets it; its vertices and edges are made to lie on rays."""
    rng = np.random.default_rng(1)
    rays = scenes.rays("spherical").astype(np.float64)
    for _ in range(4):
        corners, faces = _closed_surface(rng, "spherical")
        # rays of pixels aimed at vertices and at points of edges, so that rounding decides
        a, b = corners[rng.integers(0, 6, 800)], corners[rng.integers(0, 6, 800)]
        opposite = np.abs(a + b).max(1, keepdims=True) < 0.5
        aimed = a + np.where(opposite, 0.0, rng.choice([0.0, 0.25, 0.5, rng.uniform()], (800, 1))) * (b - a)
        aimed = aimed / np.linalg.norm(aimed, axis=1, keepdims=True)
        rays.reshape(-1, 3)[:800] = aimed
        points = np.zeros((3 * scenes.NUM_FACES, 3), np.float32)
        points[:6] = corners
        padded = np.zeros((scenes.NUM_FACES, 3), np.int32)
        padded[:8] = faces
        index = _seen(backend, "spherical", points, padded, rays.astype(np.float32))
        assert (index >= 0).all(), f"{(index < 0).sum()} holes"
        assert (index < 8).all(), "faces without area are not seen"


@backends
def test_indices_out_of_range_and_blind_pixels_see_nothing(backend):
    points, faces = scenes.scene("random")
    want = _seen(backend, "perspective", points, faces)
    faces = faces.copy()
    faces[0, 1], faces[1, 2], faces[2, 0] = -1, len(points), 2**31 - 1
    rays = scenes.rays("perspective")
    rays[3:9] = np.nan
    index = _seen(backend, "perspective", points, faces, rays)
    assert not np.isin(index, [0, 1, 2]).any() and np.isin(want, [0, 1, 2]).any()
    assert (index[3:9] == -1).all() and (want[3:9] >= 0).any()
    untouched = ~np.isin(want, [0, 1, 2])
    untouched[3:9] = False
    np.testing.assert_array_equal(index[untouched], want[untouched])


def test_what_does_not_fit_is_counted_and_what_is_counted_fits():
    points, faces = (jnp.asarray(array) for array in scenes.scene("big"))
    rays, boxes = jnp.asarray(scenes.rays("perspective")), _whole_image(len(faces))
    run = functools.partial(visible_faces, near=scenes.NEAR, backend="xla")
    short = jax.jit(functools.partial(run, capacity=512))
    assert int(short(points, faces, rays, boxes)[1]) == 9 * scenes.NUM_FACES - 512
    assert api._capacity(boxes, scenes.SIZE) == 1024, "outside a trace: counted, to the next power of two"
    assert int(jax.jit(run)(points, faces, rays, boxes)[1]) == 0, "inside a trace: a bound"


@pytest.mark.parametrize("backend", ["xla", "cpu", pytest.param("pallas_gpu", marks=pytest.mark.slow)])
def test_scenes_of_a_batch_are_those_alone(backend):
    pairs = [scenes.scene(name) for name in ("random", "crossing")]
    points = jnp.stack([jnp.asarray(points) for points, _ in pairs])
    faces, rays = jnp.asarray(pairs[0][1]), jnp.asarray(scenes.rays("perspective"))
    boxes = _whole_image(len(faces))

    def one(points):
        return visible_faces(points, faces, rays, boxes, scenes.NEAR, capacity=CAPACITY, backend=backend)[0]

    together = jax.jit(jax.vmap(one))(points)
    for index, (alone, _) in zip(together, pairs, strict=True):
        np.testing.assert_array_equal(index, _seen(backend, "perspective", alone, faces))


def test_float64_is_decided_in_float64():
    """A gap between two faces that float32 cannot see."""
    with jax.enable_x64(True):
        gap = 1e-9
        points = jnp.asarray([[-1, -1, 1], [gap, -1, 1], [gap, 1, 1], [-1, 1, 1]], jnp.float64)
        rays = jnp.asarray([[[0.0, 0.0, 1.0], [2 * gap, 0.0, 1.0]]], jnp.float64)
        faces = jnp.asarray([[0, 1, 2], [0, 2, 3]], jnp.int32)
        boxes = jnp.asarray([[0, 0, 2, 1]] * 2, jnp.int32)
        for backend in ("reference", "xla"):
            run = functools.partial(visible_faces, near=0.1, capacity=1024, backend=backend)
            index, _ = jax.jit(run)(points, faces, rays, boxes)
            assert index.dtype == jnp.int32
            assert (np.asarray(index)[0] >= 0).tolist() == [True, False]
