"""Projection against the camera's own mapping and its derivative, limits between lenses, culling and extents."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renderers.cameras import camera as cameras
from renderers.gaussians.covariance import covariances
from renderers.gaussians.projection import MIN_COMPENSATION, Projected, project
from tests.helpers.gradients import assert_finite_gradients
from tests.helpers.records import assert_record
from tests.renderers.gaussians import scenes

# Distorted ones without a fold in these scenes; folds are in distorted_test.py.
DISTORTIONS = {"distorted pinhole": (0.03, 0.004, 0.002, -0.001), "distorted fisheye": (0.02, -0.004, 0.001, -0.0001)}
MODELS = ("pinhole", "orthographic", "fisheye", *DISTORTIONS)
GEOMETRY = scenes.NAMES[:4]


@functools.partial(jax.jit, static_argnames=("antialias", "blur", "near", "far"))
def _project(arrays, camera, antialias=False, blur=0.3, near=0.01, far=1e10):
    return project(*arrays, camera, antialias=antialias, blur=blur, near=near, far=far)


def _run(arrays, camera, **options) -> Projected:
    with jax.enable_x64(True):
        seen = _project(tuple(arrays[name] for name in GEOMETRY), camera, **options)
        assert_record(seen)
        return jax.tree.map(np.asarray, seen)


def _splats(n=40, **changes):
    with jax.enable_x64(True):
        arrays = scenes.splats(n, dtype=np.float64)
        return dict(arrays, **{name: jnp.asarray(value, jnp.float64) for name, value in changes.items()})


def _camera(model="pinhole", dtype=np.float64, **options):
    """Of scenes.py, with the coefficients that go with the model's name."""
    with jax.enable_x64(dtype == np.float64):
        camera = scenes.camera(model.split()[-1], dtype=dtype, **options)
        coefficients = jnp.asarray(DISTORTIONS[model], dtype) if model in DISTORTIONS else None
        return dataclasses.replace(camera, distortion=coefficients)


def _covariances_from(conics):
    a, b, c = conics.T
    return np.stack([c, -b, a], 1) / (a * c - b * b)[:, None]


def _pushed_forward(arrays, camera):
    """Centres and J Sigma J^T with J from automatic differentiation of the camera's own projection."""
    with jax.enable_x64(True):
        pixels, depths = cameras.project(camera, arrays["means"])
        jacobian = jax.vmap(jax.jacfwd(lambda point: cameras.project(camera, point)[0]))(arrays["means"])
        pushed = jacobian @ covariances(arrays["quaternions"], arrays["scales"]) @ jacobian.swapaxes(1, 2)
        return np.asarray(pixels), np.asarray(depths), np.asarray(pushed)


def _inside(pixels):
    """Which centres lie in the image, where no clamp of the Jacobian is near."""
    return ((pixels > 0) & (pixels < np.asarray(scenes.SIZE)[::-1])).all(1)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_centres_and_covariances_are_the_cameras_mapping_to_first_order(model):
    arrays, camera = _splats(), _camera(model)
    seen = _run(arrays, camera)
    pixels, depths, pushed = _pushed_forward(arrays, camera)
    shown = (seen.radii[:, 0] > 0) & _inside(pixels)
    assert shown.sum() > 30
    np.testing.assert_allclose(seen.means2d[shown], pixels[shown], rtol=1e-9)
    np.testing.assert_allclose(seen.depths[shown], depths[shown], rtol=1e-12)
    expected = np.stack([pushed[:, 0, 0] + 0.3, pushed[:, 0, 1], pushed[:, 1, 1] + 0.3], 1)
    # gsplat's fisheye adds 1e-7 to x^2, about 1e-6 of it for Gaussians near the axis
    rtol = 2e-5 if "fisheye" in model else 1e-10
    np.testing.assert_allclose(_covariances_from(seen.conics[shown]), expected[shown], rtol=rtol, atol=rtol)


def test_wide_of_the_view_the_jacobian_stays_that_of_the_border():
    """gsplat's limits, measured from the principal point: 0.15 image widths beyond each border."""
    camera = _camera(turn=0.0)
    with jax.enable_x64(True):
        camera = cameras.Camera(jnp.eye(4), camera.focal, camera.principal, camera.size)
    (fx, fy), (cx, cy), (height, width) = np.asarray(camera.focal), np.asarray(camera.principal), camera.size
    limits = {
        (1, 0): ((width - cx) / fx + 0.15 * width / fx, 0.0),
        (-1, 0): (-(cx / fx + 0.15 * width / fx), 0.0),
        (0, 1): (0.0, (height - cy) / fy + 0.15 * height / fy),
        (0, -1): (0.0, -(cy / fy + 0.15 * height / fy)),
    }
    for (x, y), (limit_x, limit_y) in limits.items():
        mean = np.asarray([[2.0 * x, 2.0 * y, 1.0]])  # far outside, but wide enough to be seen
        arrays = _splats(1, means=mean, scales=np.full((1, 3), 0.9), quaternions=[[1.0, 0, 0, 0]], opacities=[0.9])
        seen = _run(arrays, camera)
        jacobian = np.asarray([[fx, 0, -fx * limit_x], [0, fy, -fy * limit_y]])
        expected = 0.81 * jacobian @ jacobian.T + 0.3 * np.eye(2)
        assert seen.radii[0, 0] > 0
        a, b, c = _covariances_from(seen.conics)[0]
        np.testing.assert_allclose([[a, b], [b, c]], expected, rtol=1e-9)
        np.testing.assert_allclose(seen.means2d[0], [fx * 2 * x + cx, fy * 2 * y + cy], rtol=1e-12)


def test_orthographic_is_the_limit_of_a_far_pinhole():
    arrays = _splats()
    ortho = _camera("orthographic")
    near = _run(arrays, ortho)
    errors = []
    for distance in (1e3, 1e4):
        with jax.enable_x64(True):
            pose = ortho.camera_from_world.at[2, 3].set(distance)
            pinhole = cameras.Camera(pose, ortho.focal * distance, ortho.principal, ortho.size)
        seen = _run(arrays, pinhole)
        errors.append(np.abs(seen.means2d - near.means2d).max() + np.abs(seen.conics - near.conics).max())
    assert errors[0] < 0.1 and 8 < errors[0] / errors[1] < 12, "first order in the inverse distance"


def test_extents_end_where_alpha_falls_below_the_threshold():
    arrays, camera = _splats(opacities=np.linspace(0.0045, 0.9, 40)), _camera()
    seen = _run(arrays, camera)
    for i in np.flatnonzero(seen.radii[:, 0]):
        a, b, c = seen.conics[i]
        turn = np.linspace(0, 2 * np.pi, 20001)
        directions = np.stack([np.cos(turn), np.sin(turn)], 1)
        sigma = (a * directions[:, 0] ** 2 + c * directions[:, 1] ** 2) / 2 + b * directions.prod(1)
        reach = np.sqrt(np.log(255 * seen.opacities[i]) / sigma)[:, None] * directions
        np.testing.assert_allclose(seen.extents[i], reach.max(0), rtol=1e-5)
        np.testing.assert_array_equal(seen.radii[i], np.ceil(seen.extents[i]))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_antialias_keeps_the_integral_of_opacity(model):
    """Blurring spreads a Gaussian over sqrt(det(cov + blur) / det(cov)) times the area; opacity makes up for it."""
    arrays, camera = _splats(), _camera(model)
    plain, kept = _run(arrays, camera), _run(arrays, camera, antialias=True)
    pixels, _, pushed = _pushed_forward(arrays, camera)
    raw = np.linalg.det(pushed)
    blurred = np.linalg.det(pushed + 0.3 * np.eye(2))
    rtol = 1e-5 if "fisheye" in model else 1e-9
    shown = (kept.radii[:, 0] > 0) & _inside(pixels)
    expected = np.asarray(arrays["opacities"]) * np.sqrt(raw / blurred)
    np.testing.assert_allclose(kept.opacities[shown], expected[shown], rtol=rtol)
    np.testing.assert_array_equal(kept.conics[shown], plain.conics[shown])


def test_antialias_limits():
    camera = _camera()
    big = _splats(scales=np.full((40, 3), 30.0))
    np.testing.assert_allclose(_run(big, camera, antialias=True).opacities, big["opacities"], rtol=1e-4)
    without = _run(_splats(), camera, antialias=True, blur=0.0)
    shown = without.radii[:, 0] > 0
    np.testing.assert_allclose(without.opacities[shown], np.asarray(_splats()["opacities"])[shown], rtol=1e-6)
    dots = _splats(scales=np.full((40, 3), 1e-9), opacities=np.full(40, 1.0))
    seen = _run(dots, camera, antialias=True)
    np.testing.assert_allclose(seen.opacities[seen.radii[:, 0] > 0], MIN_COMPENSATION, rtol=1e-9)


CULLED = {
    "behind": dict(means=[0, 0, -1.0]),
    "in the camera's plane": dict(means=[0.1, 0, 0.0]),
    "at near": dict(means=[0, 0, 0.01]),
    "at far": dict(means=[0, 0, 100.0]),
    "beyond far": dict(means=[0, 0, 200.0]),
    "left of the image": dict(means=[-30.0, 0, 3.0]),
    "below the image": dict(means=[0, 30.0, 3.0]),
    "opacity 0": dict(opacities=0.0),
    "opacity under 1/255": dict(opacities=0.999 / 255),
    "scale whose variance overflows": dict(scales=[1e20, 1e20, 1e20]),
    "not finite": dict(means=[np.inf, 0, 3.0]),
}
KEPT = {
    "just before near": dict(means=[0, 0, 0.0101], scales=[1e-4, 1e-4, 1e-4]),
    "zero quaternion": dict(quaternions=[0, 0, 0, 0]),
    "zero scale": dict(scales=[0, 0, 0]),
    "huge scale": dict(scales=[1e10, 1e10, 1e10]),
    "one huge scale": dict(scales=[1e10, 1e-3, 1e-3]),
    "opacity 1": dict(opacities=1.0),
    "opacity just over 1/255": dict(opacities=1.001 / 255),
    "outside, reaching in": dict(means=[-5.0, 0, 3.0], scales=[2.0, 2.0, 2.0]),
}


def _one(changes):
    base = dict(means=[0, 0, 3.0], quaternions=[1.0, 0.2, 0, 0], scales=[0.1, 0.2, 0.1], opacities=0.5)
    return {name: jnp.asarray([value], jnp.float32) for name, value in (base | changes).items()}


def _forward_camera(model):
    return dataclasses.replace(_camera(model, np.float32), camera_from_world=jnp.eye(4))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", [*CULLED, *KEPT])
def test_culled_entries_are_zero_and_all_gradients_finite(case, model):
    arrays, camera = _one((CULLED | KEPT)[case]), _forward_camera(model)
    if "fisheye" in model and case == "left of the image":
        arrays["scales"] /= 1000  # 84 degrees off the axis, the image of this Gaussian is wide
    geometry = tuple(arrays[name] for name in GEOMETRY)
    seen = jax.tree.map(np.asarray, _project(geometry, camera, antialias=False, far=100.0))
    for name in ("means2d", "conics", "depths", "opacities", "extents"):
        value = getattr(seen, name)
        assert np.isfinite(value).all(), name
        if case in CULLED:
            assert not value.any(), f"{name} of a culled Gaussian is {value}"
    assert (seen.radii > 0).all() if case in KEPT else not seen.radii.any()
    gradient = _gradients(geometry, camera)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert case in KEPT or not np.asarray(leaf).any(), "nothing flows to or through a culled Gaussian"


@jax.jit
def _gradients(geometry, camera):
    def total(geometry, camera):
        seen = project(*geometry, camera, antialias=True, far=100.0)
        # conics of a huge Gaussian are tiny: weigh by what multiplies them in an image
        return seen.means2d.sum() + seen.conics.sum() + seen.depths.sum() + seen.opacities.sum()

    return jax.grad(total, argnums=(0, 1))(geometry, camera)


def test_gradients_on_the_axis_of_a_fisheye_are_finite():
    arrays, camera = _one(dict(means=[0.0, 0.0, 2.0])), _forward_camera("fisheye")
    geometry = tuple(arrays[name] for name in GEOMETRY)
    assert_finite_gradients(lambda *g: project(*g, camera).means2d, *geometry)
    moved = _one(dict(means=[1e-3, 0.0, 2.0]))
    left, right = (_project(tuple(a[name] for name in GEOMETRY), camera) for a in (arrays, moved))
    np.testing.assert_allclose(left.conics, right.conics, rtol=1e-3, atol=1e-4)


def test_nothing_flows_through_extents_and_radii():
    arrays, camera = scenes.splats(5), scenes.camera()
    others = [arrays[name] for name in GEOMETRY[1:]]
    gradient = jax.jit(jax.grad(lambda means: project(means, *others, camera).extents.sum()))(arrays["means"])
    assert not np.asarray(gradient).any()


def test_rotating_world_and_camera_together_changes_nothing():
    arrays, camera = _splats(), _camera()
    turn = Rotation.from_rotvec([0.5, 2.0, -1.0])
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn.as_matrix(), [3.0, -2.0, 0.5]
    quaternions = turn * Rotation.from_quat(np.asarray(arrays["quaternions"]), scalar_first=True)
    with jax.enable_x64(True):
        turned = dict(
            arrays,
            means=arrays["means"] @ moved[:3, :3].T + moved[:3, 3][None],
            quaternions=jnp.asarray(quaternions.as_quat(scalar_first=True)),
        )
        pose = camera.camera_from_world @ jnp.asarray(np.linalg.inv(moved))
        elsewhere = cameras.Camera(pose, camera.focal, camera.principal, camera.size)
    for before, after in zip(
        jax.tree.leaves(_run(arrays, camera)), jax.tree.leaves(_run(turned, elsewhere)), strict=True
    ):
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-11)
