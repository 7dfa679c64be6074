"""Distorted lenses rendered directly: against warped ideal images, before and past the fold, gradients, wide fisheyes.

The derivative of each lens at the centres, antialiasing, extents and degenerate input are checked for distorted lenses
beside the ideal ones in `projection_test.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras import camera as cameras
from renderers.cameras.camera import Camera
from renderers.gaussians import lenses
from renderers.gaussians.formats import read_splats
from renderers.gaussians.projection import project
from renderers.gaussians.rasterize import rasterize
from renderers.gaussians.spherical_harmonics import sh_colors
from tests.helpers.gradients import assert_gradients_match
from tests.helpers.shared import shared_path
from tests.renderers.gaussians import lens_scenes, scenes

GEOMETRY = scenes.NAMES[:4]
COEFFICIENTS = {
    "pinhole": (0.2, -0.1, 0.02, -0.015, 0.05, 0.1, -0.05, 0.02),
    "fisheye": (0.05, -0.02, 0.01, -0.005),
}


def _with(camera, coefficients):
    return dataclasses.replace(camera, distortion=jnp.asarray(coefficients, camera.focal.dtype))


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [1.5, 4.0, 16.0])
def test_through_the_fox_lens_equals_a_dense_pinhole_image_warped(deviation):
    """45 dB are asked for; measured 54 to 64. The rest is the bending of the lens within a Gaussian's own width."""
    camera = lens_scenes.lens("pinhole", lens_scenes.FOX, 0.15)
    arrays = lens_scenes.spread(camera, 400, deviation)
    expected = lens_scenes.warped(arrays, camera)
    direct = lens_scenes.image(arrays, camera)
    found = lens_scenes.decibels(direct, expected)
    without = lens_scenes.decibels(lens_scenes.image(arrays, lens_scenes.ideal(camera)), expected)
    assert found > 53 and found > without + 3, f"{found} dB, {without} without the lens"
    if deviation == 4.0:
        # A box filter is not a point sample: 1/12 pixel^2 less blur makes up for it in each Gaussian, not in products.
        assert lens_scenes.decibels(direct, lens_scenes.warped(arrays, camera, samples=3)) > 50


def test_a_real_scene_through_the_fox_lens_equals_its_dense_pinhole_image_warped():
    scene = read_splats(shared_path("data", "splats", "playbot_lod4_set", "playbot_lod4.ply"))
    pose = np.eye(4)
    pose[2, 3] = 2.0
    camera = lens_scenes.lens("pinhole", lens_scenes.FOX, 0.15, pose)
    values = (
        scene.means,
        scene.quaternions,
        jnp.exp(scene.log_scales),
        jax.nn.sigmoid(scene.opacity_logits),
        jax.jit(functools.partial(sh_colors, degree=2))(scene.sh, scene.means, camera),
    )
    arrays = dict(zip(scenes.NAMES, values, strict=True))
    direct = lens_scenes.image(arrays, camera)
    assert direct[..., 3].mean() > 0.1
    expected = lens_scenes.warped(arrays, camera)
    found = lens_scenes.decibels(direct, expected)
    without = lens_scenes.decibels(lens_scenes.image(arrays, lens_scenes.ideal(camera)), expected)
    assert found > 45 and found > without + 3, f"{found} dB, {without} without the lens"


@pytest.mark.slow
def test_the_corner_of_a_wide_fisheye_equals_the_faces_of_a_cube_warped():
    """From 40 degrees off the axis to 108, where z is negative; 1.5 pixels are half a degree."""
    camera = cameras.crop(lens_scenes.lens("fisheye", lens_scenes.TUM_VI), 0, 0, (160, 160))
    arrays = lens_scenes.spread(camera, 400, 1.5)
    assert lenses.sees_sideways(camera)
    assert (np.asarray(arrays["means"])[:, 2] < 0).sum() > 30
    expected = lens_scenes.warped_cube(arrays, camera)
    direct = lens_scenes.image(arrays, camera, blur=0.0)[..., 3]
    assert lens_scenes.decibels(direct, expected) > 45
    ideal = _with(camera, (0.0,) * 4)
    assert lens_scenes.decibels(lens_scenes.image(arrays, ideal, blur=0.0)[..., 3], expected) < 30


@pytest.mark.slow
def test_a_wide_fisheye_orders_by_distance_and_a_narrow_one_by_depth():
    wide = cameras.crop(lens_scenes.lens("fisheye", lens_scenes.TUM_VI), 0, 0, (64, 64))
    directions, _ = lens_scenes.sight(wide)
    ray = directions[8, 8]
    assert ray[2] < -0.1
    arrays = {
        "means": np.stack([3.0 * ray, 2.0 * ray]),
        "quaternions": [[1.0, 0, 0, 0]] * 2,
        "scales": [[0.2] * 3] * 2,
        "opacities": [0.9] * 2,
        "colors": [[1.0, 0, 0], [0, 1.0, 0]],
    }
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    seen = np.asarray(lens_scenes.image(arrays, wide))[8, 8]
    np.testing.assert_allclose(seen, [0.09, 0.9, 0, 0.99], atol=2e-3)
    depths = np.asarray(_project(tuple(arrays[name] for name in GEOMETRY), wide).depths)
    np.testing.assert_allclose(depths, [3.0, 2.0], rtol=1e-6)
    narrow = _with(scenes.camera("fisheye"), COEFFICIENTS["fisheye"])
    assert not lenses.sees_sideways(narrow)
    seen = _project(tuple(scenes.splats()[name] for name in GEOMETRY), narrow)
    z = cameras.project(narrow, scenes.splats()["means"])[1]
    shown = np.asarray(seen.radii[:, 0]) > 0
    np.testing.assert_allclose(np.asarray(seen.depths)[shown], np.asarray(z)[shown], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_zero_coefficients_are_the_ideal_lens(model):
    arrays, camera = scenes.splats(), scenes.camera(model)
    for coefficients in [(0.0,) * 4, (0.0,) * 8][: 2 if model == "pinhole" else 1]:
        bent = lens_scenes.image(arrays, _with(camera, coefficients))
        np.testing.assert_allclose(bent, lens_scenes.image(arrays, camera), atol=1e-6)


@pytest.mark.parametrize("model", ["pinhole", pytest.param("fisheye", marks=pytest.mark.slow)])
def test_backends_agree_through_a_distorted_lens(model):
    arrays, camera = scenes.splats(16), _with(scenes.camera(model), COEFFICIENTS[model])
    render = jax.jit(rasterize, static_argnames="backend")
    cpu, xla, reference = (
        render(*(arrays[name] for name in scenes.NAMES), camera, backend=backend)
        for backend in ("cpu", "xla", "reference")
    )
    for other in (xla, reference):
        np.testing.assert_allclose(cpu.color, other.color, atol=5e-6)
        np.testing.assert_allclose(cpu.depth, other.depth, atol=2e-5)


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("pinhole", 8),
        ("fisheye", 4),
        pytest.param("pinhole", 4, marks=pytest.mark.slow),
        pytest.param("pinhole", 5, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_images_equal_central_differences(model, count):
    """Gaussians, pose, focal lengths, principal point and every coefficient."""
    with jax.enable_x64(True):
        arrays, camera = scenes.splats(12, dtype=np.float64), scenes.camera(model, (20, 28), dtype=np.float64)
        coefficients = jnp.asarray(COEFFICIENTS[model][:count])

        def images(arrays, pose, focal, principal, coefficients):
            lens = Camera(pose, focal, principal, camera.size, model, coefficients)
            seen = rasterize(*(arrays[name] for name in scenes.NAMES), lens, antialias=True, backend="reference")
            return seen.color, seen.alpha, seen.depth

        arguments = (arrays, camera.camera_from_world, camera.focal, camera.principal, coefficients)
        assert_gradients_match(images, *arguments, rtol=1e-6, atol=1e-7, max_entries=16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["pinhole", pytest.param("pinhole, wide of the view", marks=pytest.mark.slow), "fisheye past 90 degrees"]
)
def test_gradients_of_the_projection_in_both_modes(case):
    """Reverse mode against differences, forward mode against reverse: also where the Jacobian is clamped, and z < 0."""
    with jax.enable_x64(True):
        arrays = scenes.splats(12, dtype=np.float64)
        camera = _with(
            scenes.camera(case.split()[0].strip(","), dtype=np.float64), COEFFICIENTS[case.split()[0].strip(",")]
        )
        if "wide" in case:
            arrays |= {"means": arrays["means"] * jnp.asarray([[6.0, 4.0, 0.5]]), "scales": arrays["scales"] * 8}
        if "past" in case:
            camera = lens_scenes.lens("fisheye", lens_scenes.TUM_VI, 0.1, dtype=np.float64)
            rng = np.random.default_rng(3)
            turn, off_axis = rng.uniform(0.6, 1.0, 12), rng.uniform(1.5, 1.85, 12)  # into one corner
            rays = [np.cos(turn) * np.sin(off_axis), np.sin(turn) * np.sin(off_axis), np.cos(off_axis)]
            arrays |= {"means": jnp.asarray(np.stack(rays, -1) * rng.uniform(1, 3, (12, 1)))}
        geometry = tuple(arrays[name] for name in GEOMETRY)
        seen = _project(geometry, camera)
        assert (np.asarray(seen.radii)[:, 0] > 0).sum() >= 6

        def columns(geometry, pose, focal, principal, coefficients):
            lens = Camera(pose, focal, principal, camera.size, camera.model, coefficients)
            seen = project(*geometry, lens, antialias=True)
            return seen.means2d, seen.conics, seen.depths, seen.opacities

        arguments = (geometry, camera.camera_from_world, camera.focal, camera.principal, camera.distortion)
        assert_gradients_match(columns, *arguments, rtol=2e-6, atol=1e-7, max_entries=8)
        rng = np.random.default_rng(4)
        tangents = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), arguments)

        @jax.jit
        def both(arguments, tangents):
            out, pushed = jax.jvp(columns, arguments, tangents)
            weights = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(float(leaf.size)) + 1).reshape(leaf.shape), out)
            pulled = jax.vjp(columns, *arguments)[1](weights)
            return _dot(weights, pushed), _dot(pulled, tangents)

        np.testing.assert_allclose(*both(arguments, tangents), rtol=1e-10)


def _dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# -- the fold ----------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("near", "far"))
def _project(geometry, camera, near=0.01, far=1e10):
    return project(*geometry, camera, near=near, far=far)


# Radii of the ideal point, or angles, of one Gaussian before and one past the fold, both imaged within the picture.
FOLDS = {
    "pinhole": ((-0.3,), np.sqrt(1 / 0.9)),
    "fisheye": ((-0.1,), np.sqrt(1 / 0.3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_gaussians_past_the_fold_are_culled_and_not_mirrored_into_the_image(model):
    (k1,), fold = FOLDS[model]
    view = Camera(jnp.eye(4), jnp.asarray([50.0, 50.0]), jnp.asarray([64.0, 64.0]), (128, 128), model)
    camera = _with(view, (k1, 0.0, 0.0, 0.0))
    places = fold * np.asarray([0.3, 0.97, 0.999, 1.001, 1.03, 1.4])
    if model == "pinhole":
        means = np.stack([places, 0 * places, 1 + 0 * places], -1) * 2.0
    else:
        means = np.stack([np.sin(places), 0 * places, np.cos(places)], -1) * 2.0
    mirrored = np.asarray(cameras.project(camera, jnp.asarray(means, jnp.float32))[0])
    assert (mirrored[:, 0] < 128).all(), "the polynomial itself puts all of them in the image"
    n = len(places)
    geometry = tuple(
        jnp.asarray(value, jnp.float32)
        for value in (means, np.tile([1.0, 0.1, 0, 0], (n, 1)), np.full((n, 3), 0.05), np.full(n, 0.8))
    )
    seen = _project(geometry, camera)
    np.testing.assert_array_equal(np.asarray(seen.radii[:, 0]) > 0, places < fold)

    def total(geometry, camera):
        seen = project(*geometry, camera, antialias=True)
        return seen.means2d.sum() + seen.conics.sum() + seen.depths.sum() + seen.opacities.sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))(geometry, camera)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for leaf in gradients[0][:3]:  # the quaternion's own gradient is zero for a ball
        assert not np.asarray(leaf)[places > fold].any()
    assert np.asarray(gradients[0][0])[places < fold].all(0)[0]


@pytest.mark.slow
def test_huge_gaussians_around_the_camera_stay_finite_through_every_lens():
    """Centres in front of, beside and behind the camera, reaching past the fold and through the camera's plane."""
    rng = np.random.default_rng(0)
    n = 60
    geometry = (
        rng.normal(size=(n, 3)),
        rng.normal(size=(n, 4)),
        10 ** rng.uniform(-1, 12, (n, 3)),
        rng.uniform(0, 1, n),
    )
    geometry = tuple(jnp.asarray(value, jnp.float32) for value in geometry)
    strong = _with(scenes.camera(), (-0.3, 0.0, 0.01, -0.02))
    for camera in (strong, lens_scenes.lens("fisheye", lens_scenes.TUM_VI, 0.1)):
        camera = dataclasses.replace(camera, camera_from_world=jnp.eye(4))

        def total(geometry, camera):
            seen = project(*geometry, camera, antialias=True)
            return seen.means2d.sum() + seen.conics.sum() + seen.depths.sum() + seen.opacities.sum(), seen

        (_, seen), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(geometry, camera)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((seen, gradients)))
        gone = np.asarray(seen.radii)[:, 0] == 0
        assert 0 < gone.sum() < n - 5
        assert all(not np.asarray(leaf)[gone].any() for leaf in gradients[0])


@pytest.mark.slow
def test_lenses_of_several_lengths_in_one_stack():
    arrays = scenes.splats(8)
    geometry = tuple(arrays[name] for name in GEOMETRY)
    views = [scenes.camera(), _with(scenes.camera(turn=0.1), (0.1, 0.05, 0.0, 0.01)), _with(scenes.camera(), [0.1] * 8)]
    batched = jax.jit(jax.vmap(lambda camera: project(*geometry, camera)))(cameras.stack_cameras(views))
    for i, camera in enumerate(views):
        alone = _project(geometry, camera)
        for a, b in zip(jax.tree.leaves(batched), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-5, atol=1e-5)


def test_coefficients_that_no_lens_has_are_refused():
    geometry = tuple(scenes.splats(2)[name] for name in GEOMETRY)
    with pytest.raises(ValueError, match="no distortion coefficients for an orthographic camera"):
        project(*geometry, _with(scenes.camera("orthographic"), (0.0,) * 4))
    with pytest.raises(ValueError, match="at most 4 coefficients"):
        project(*geometry, _with(scenes.camera("fisheye"), (0.0,) * 5))
