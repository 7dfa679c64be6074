"""The mesh rasterizer: geometry that has a formula, laws over all lenses, gradients against differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import camera_center, project, stack_cameras, to_camera_frame
from renderers.cameras.rays import camera_rays, pixel_grid
from renderers.meshes import connectivity
from renderers.meshes import rasterize as r
from renderers.meshes.mesh import face_normals
from tests.helpers.gradients import assert_gradients_match
from tests.renderers.meshes import rasterizer_scenes as shapes


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Without LLVM's costly passes, as for the kernels' tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


OUTPUTS = ("depth", "barycentric", "normal", "attributes")
lenses = pytest.mark.parametrize("lens", shapes.LENSES)


def _hard(vertices, faces, camera, attributes=None, backend=None, **options):
    return r.rasterize_mesh(
        vertices, faces, camera, attributes=attributes, antialias=False, backend=backend, capacity=4096, **options
    )


_render = jax.jit(_hard, static_argnames=("backend", "near"))


@lenses
def test_what_is_interpolated_projects_back_to_the_pixel(lens):
    """Positions as attributes, through the camera again, are pixel centres; depth and distance are theirs."""
    vertices, faces = shapes.soup(60)
    camera = shapes.camera(lens)
    seen = _render(vertices, faces, camera, vertices)
    hit = np.asarray(seen.face_index) >= 0
    assert 0.3 < hit.mean() <= 1
    pixels, depth = project(camera, seen.attributes)
    np.testing.assert_allclose(np.asarray(pixels)[hit], np.asarray(pixel_grid(camera))[hit], atol=2e-4)
    np.testing.assert_allclose(np.asarray(depth)[hit], np.asarray(seen.depth)[hit], rtol=1e-5)
    share = np.asarray(seen.barycentric)
    np.testing.assert_allclose(share.sum(-1), hit, atol=1e-6)
    assert (share >= 0).all()
    np.testing.assert_array_equal(seen.mask, hit)
    for name in OUTPUTS:
        assert not np.asarray(getattr(seen, name))[~hit].any(), f"{name} is 0 where empty"
    normals = np.asarray(face_normals(vertices, faces))[np.asarray(seen.face_index)]
    np.testing.assert_allclose(np.asarray(seen.normal)[hit], normals[hit], atol=1e-5)


@lenses
def test_a_plane_has_the_depth_of_its_equation(lens):
    """A quad in n . X = c is met at t = (c - n . o) / (n . d) of every ray, right to its borders."""
    normal = np.asarray([0.3, -0.2, 1.0]) / np.linalg.norm([0.3, -0.2, 1.0])
    u = np.cross(normal, [0, 1, 0])
    v = np.cross(normal, u)
    corners = 0.8 * np.asarray([-u - v, u - v, u + v, -u + v]) + 0.1 * normal
    camera = shapes.camera(lens, distance=3.0)
    # faces without area fill up to the shapes of the test above, whose program then serves here
    vertices = jnp.zeros((180, 3)).at[:4].set(jnp.asarray(corners, jnp.float32))
    faces = jnp.zeros((60, 3), jnp.int32).at[:2].set(jnp.asarray([[0, 1, 2], [0, 2, 3]]))
    seen = _render(vertices, faces, camera, vertices)
    rays = camera_rays(camera)
    origins, directions = np.asarray(rays.origins, np.float64), np.asarray(rays.directions, np.float64)
    t = (0.1 - origins @ normal) / (directions @ normal)
    points = origins + t[..., None] * directions
    across = np.maximum(np.abs(points @ u), np.abs(points @ v)) / (u @ u)
    hit = np.asarray(seen.face_index) >= 0
    near_border = np.abs(across - 0.8) < 1e-4
    np.testing.assert_array_equal(hit | near_border, (across <= 0.8) | near_border)
    assert 0.1 < hit.mean() < 1
    depth = np.asarray(to_camera_frame(camera, jnp.asarray(points, jnp.float32)))[..., 2]
    np.testing.assert_allclose(np.asarray(seen.depth)[hit], depth[hit], rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.asarray(seen.normal)[hit] @ normal), 1, atol=1e-6)


@pytest.mark.parametrize("lens", ["pinhole", "fisheye"])
def test_a_floor_that_passes_under_the_camera(lens):
    """Two huge triangles reach from far before to far behind: seen below the horizon, from `near` on, at h / d_y."""
    camera = dataclasses.replace(
        shapes.camera(lens, spread=2.0), camera_from_world=jnp.eye(4).at[1, 3].set(1.5)
    )  # 1.5 m above the floor y = 0 (y is down in this world)
    vertices = jnp.asarray([[-900.0, 0, -900], [900, 0, -900], [900, 0, 900], [-900, 0, 900]])
    faces = jnp.asarray([[0, 1, 2], [0, 2, 3]])
    directions = np.asarray(camera_rays(camera).directions, np.float64)
    distance = 1.5 / np.where(directions[..., 1] > 0, directions[..., 1], np.nan)
    depth = distance * directions[..., 2]
    for near in (0.01, 4.0):
        seen = _render(vertices, faces, camera, near=near)
        hit = np.asarray(seen.face_index) >= 0
        nearness = distance if lens == "fisheye" else depth
        np.testing.assert_array_equal(hit, (nearness > near) & (np.abs(distance[..., None] * directions).max(-1) < 900))
        np.testing.assert_allclose(np.asarray(seen.depth)[hit], depth[hit], rtol=3e-5, atol=1e-5)
    assert hit.any() and not hit.all()


def test_nearness_decides_and_behind_is_not_seen():
    camera = shapes.camera("pinhole")
    vertices, faces = shapes.icosphere(1)
    both = jnp.concatenate([1.2 * vertices, vertices, vertices + 2.5 * camera_center(camera)[None]])
    together = jnp.concatenate([faces + k * len(vertices) for k in range(3)])
    seen = _render(both, together, camera)
    assert int(seen.face_index.max()) < len(faces), "of the outer sphere only"
    front = np.sum(np.asarray(seen.normal) * np.asarray(camera_rays(camera).directions), -1)
    assert (front[np.asarray(seen.face_index) >= 0] < 0).all(), "its near side"


def _outputs(faces, camera, vertices, attributes, backend):
    seen = _hard(vertices, faces, camera, attributes, backend)
    return {name: getattr(seen, name) for name in OUTPUTS}


@pytest.mark.parametrize(
    "lens", ["brown", *(pytest.param(n, marks=pytest.mark.slow) for n in ("orthographic", "kannala_brandt"))]
)
def test_gradients_match_differences(lens):
    """Vertices, attributes, pose, focal, principal and distortion, in float64; visibility does not change by 1e-6."""
    with jax.enable_x64(True):
        vertices, faces = shapes.soup(5, seed=1, dtype=np.float64)
        camera = shapes.camera(lens, (7, 8), dtype=np.float64)
        attributes = jnp.asarray(np.random.default_rng(0).normal(size=(15, 2)))

        def run(vertices, attributes, camera):
            return _outputs(faces, camera, vertices, attributes, "xla")

        assert_gradients_match(run, vertices, attributes, camera, max_entries=12, rtol=1e-5, atol=1e-7)


def _weighted(backend, faces, vertices, attributes, camera):
    total = 0.0
    for number, value in enumerate(_outputs(faces, camera, vertices, attributes, backend).values()):
        weights = np.random.default_rng(number).normal(size=value.shape)
        total = total + jnp.sum(value * jnp.asarray(weights, value.dtype))
    return total


@pytest.mark.parametrize(
    "lens",
    [
        "brown",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("pinhole", "orthographic", "fisheye", "kannala_brandt")),
    ],
)
def test_the_host_kernels_have_the_gradients_of_the_definition(lens):
    """Hand-written derivatives of cpu against JAX's of plain jnp; vertices, attributes, pose, lens. Float32."""
    vertices, faces = shapes.icosphere(1)
    attributes = jnp.sin(3 * vertices)
    camera = shapes.camera(lens, (20, 24))
    found, want = (
        jax.jit(jax.grad(functools.partial(_weighted, backend, faces), argnums=(0, 1, 2)))(vertices, attributes, camera)
        for backend in ("cpu", "xla")
    )
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(want), strict=True):
        scale = np.abs(theirs).max() + 1e-3
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-4, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_hostile_faces_leave_finite_gradients(backend):
    """No area, slivers, corners that are not finite, the first vertex NaN, indices outside: nothing becomes NaN."""
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(40, 3)).astype(np.float32)
    faces = rng.integers(0, 40, (60, 3)).astype(np.int32)
    vertices[0], vertices[1, 0], vertices[2, 1] = np.nan, np.inf, 3e38
    vertices[4] = vertices[3] + (vertices[5] - vertices[3]) * 0.5 + 1e-7
    faces[0], faces[1], faces[2], faces[3] = (3, 4, 5), (6, 6, 7), (8, 8, 8), (-5, 9, 40)
    vertices[10] = [0.05, 0.03, 2.6]  # about where the camera is
    camera = shapes.camera("pinhole", (16, 18))
    attributes = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    good = np.isfinite(vertices).all(1) & (np.abs(vertices) < 1e30).all(1)

    def run(vertices, attributes, camera):
        return _outputs(jnp.asarray(faces), camera, vertices, attributes, backend)

    gradients = jax.jit(jax.grad(lambda *a: sum(jnp.sum(v**2) for v in run(*a).values()), argnums=(0, 1, 2)))(
        jnp.asarray(vertices), attributes, camera
    )
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(np.asarray(leaf)).all()
    assert np.abs(np.asarray(gradients[0])[good]).max() > 0


@pytest.mark.parametrize("backend", ["cpu", *(pytest.param(b, marks=pytest.mark.slow) for b in ("reference", "xla"))])
def test_no_faces_at_all(backend):
    camera = shapes.camera("pinhole", (5, 6))
    seen = _render(jnp.zeros((0, 3)), jnp.zeros((0, 3), jnp.int32), camera, jnp.zeros((0, 2)), backend)
    assert (np.asarray(seen.face_index) == -1).all() and not np.asarray(seen.depth).any()
    assert seen.attributes.shape == (5, 6, 2) and seen.overflow == 0


def test_other_faces_may_index_what_is_interpolated():
    """Texture coordinates with faces of their own; interpolation is linear in values and passes gradients on."""
    vertices, faces = shapes.icosphere(1)
    camera = shapes.camera("pinhole", (20, 24))
    seen = _render(vertices, faces, camera)
    corners = vertices[faces].reshape(-1, 3)[:, :2]
    cut = jnp.arange(3 * len(faces)).reshape(-1, 3)
    for backend in ("cpu", "xla"):
        at = jax.jit(functools.partial(r.interpolate, backend=backend))
        same = at(vertices[:, :2], faces, seen)
        image, pull = jax.vjp(lambda v, at=at: at(v, cut, seen), corners)
        np.testing.assert_allclose(image, same, atol=1e-6)
        np.testing.assert_allclose(np.vdot(pull(same)[0], corners), np.vdot(same, same), rtol=1e-4)


@pytest.mark.parametrize(
    "lens", ["brown", *(pytest.param(n, marks=pytest.mark.slow) for n in ("orthographic", "fisheye"))]
)
def test_derivatives_by_the_pixel_are_those_of_a_moved_principal_point(lens):
    """d b / d pixel, exact; a ray moved one way is a principal point moved the other."""
    with jax.enable_x64(True):
        vertices, faces = shapes.soup(12, seed=2, dtype=np.float64)
        camera = shapes.camera(lens, (9, 10), dtype=np.float64)
        run = jax.jit(functools.partial(_hard, backend="xla"))
        seen = run(vertices, faces, camera)
        found = np.asarray(jax.jit(r.barycentric_derivatives)(seen, vertices, faces, camera))
        assert np.abs(found).max() > 1e-3
        for axis, step in enumerate(1e-6 * np.eye(2)):
            moved = [
                run(vertices, faces, dataclasses.replace(camera, principal=camera.principal - s * step))
                for s in (1, -1)
            ]
            same = np.asarray((moved[0].face_index == seen.face_index) & (moved[1].face_index == seen.face_index))
            difference = np.asarray(moved[0].barycentric - moved[1].barycentric) / 2e-6
            np.testing.assert_allclose(found[..., axis][same], difference[same], rtol=1e-5, atol=1e-7)
            assert same.mean() > 0.95


def test_faces_and_vertices_that_are_seen():
    vertices, faces = shapes.torus()
    seen = _render(vertices, faces, shapes.camera("pinhole"))
    index = np.unique(np.asarray(seen.face_index))
    want = np.isin(np.arange(len(faces)), index)
    np.testing.assert_array_equal(r.visible_faces_mask(seen, faces), want)
    corners = np.isin(np.arange(len(vertices)), np.asarray(faces)[want])
    np.testing.assert_array_equal(r.visible_vertices(seen, faces, len(vertices)), corners)
    assert 0.2 < want.mean() < 0.6


@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_views_of_a_batch_are_those_alone_with_their_gradients(backend):
    vertices, faces = shapes.icosphere(1)
    views = [shapes.camera("pinhole", (12, 13), distance=d) for d in (2.0, 3.0)]

    def loss(vertices, camera):
        seen = _hard(vertices, faces, camera, vertices, backend)
        return jnp.sum(seen.depth**2) + jnp.sum(seen.attributes * seen.normal)

    together = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(vertices, stack_cameras(views))
    alone = jax.jit(jax.value_and_grad(loss))
    for k, camera in enumerate(views):
        value, gradient = alone(vertices, camera)
        np.testing.assert_allclose(together[0][k], value, rtol=1e-5)
        np.testing.assert_allclose(together[1][k], gradient, atol=1e-4)


def test_float32_stays_float32_with_x64_on():
    vertices, faces = shapes.icosphere(0)
    camera = shapes.camera("pinhole", (8, 9))
    plain = _render(vertices, faces, camera, vertices, backend="cpu")
    with jax.enable_x64(True):
        for backend in ("xla", "cpu"):
            seen = jax.eval_shape(functools.partial(_hard, backend=backend), vertices, faces, camera, vertices)
            kinds = {name: getattr(seen, name).dtype for name in (*OUTPUTS, "mask")}
            assert set(kinds.values()) == {jnp.dtype("float32")}, kinds
            assert seen.face_index.dtype == jnp.int32
        again = jax.jit(functools.partial(_hard, backend="cpu"))(vertices, faces, camera, vertices)
    np.testing.assert_array_equal(plain.face_index, again.face_index)


def test_neighbours_are_found_in_and_outside_of_a_trace():
    _, faces = shapes.icosphere(0)
    want = connectivity.opposite_vertices(np.asarray(faces))
    np.testing.assert_array_equal(r.opposite_vertices(faces), want)
    np.testing.assert_array_equal(jax.jit(r.opposite_vertices)(faces), want)


def test_antialiasing_changes_the_mask_only_and_makes_it_the_covered_area():
    """A square of 10.6 by 7.4 pixels that lies across the lattice: 78.44 pixels are covered, not 77 or 88."""
    camera = dataclasses.replace(
        shapes.camera("orthographic", (16, 20)),
        camera_from_world=jnp.eye(4),
        focal=jnp.asarray([10.0, 10.0]),
        principal=jnp.zeros(2),
    )
    left, top, right, bottom = 0.317, 0.441, 1.377, 1.181
    vertices = jnp.asarray([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    faces = jnp.asarray([[0, 1, 2], [0, 2, 3]])
    hard, soft = _render(vertices, faces, camera), jax.jit(r.rasterize_mesh)(vertices, faces, camera)
    for name in (*OUTPUTS, "face_index"):
        np.testing.assert_array_equal(getattr(hard, name), getattr(soft, name))
    np.testing.assert_allclose(float(soft.mask.sum()), 10.6 * 7.4, rtol=1e-4)
    assert abs(float(hard.mask.sum()) - 10.6 * 7.4) > 0.3


def test_a_near_plane_in_the_camera_is_refused():
    vertices, faces = shapes.icosphere(0)
    with pytest.raises(ValueError, match="near > 0 for a pinhole camera, got 0.0"):
        _hard(vertices, faces, shapes.camera("pinhole", (8, 9)), near=0.0)
