"""Laws of rendering surfels: geometry, what must not change, gradients by differences, degenerate input, refusals."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renderers.cameras.camera import Camera
from renderers.gaussians.surfels import SurfelRendering, rasterize_surfels
from renderers.kernels.dispatch import Unsupported
from tests.helpers.gradients import assert_gradients_match
from tests.helpers.records import assert_record
from tests.renderers.gaussians import scenes

IMAGES = ("color", "alpha", "depth", "normal", "distortion", "median_depth")
ATOL = 5e-6  # float32 images of numbers in 0 .. 1: some 40 roundings a pixel


@functools.partial(jax.jit, static_argnames=("backend", "near", "far", "capacity"))
def _rasterize(arrays, camera, background=None, **options):
    return rasterize_surfels(*(arrays[name] for name in scenes.NAMES), camera, background=background, **options)


def _images(seen: SurfelRendering):
    return {name: np.asarray(getattr(seen, name)) for name in IMAGES}


def _one(mean, rotation, scales, opacity=0.9, dtype=np.float32):
    """Arrays of one surfel of one channel, 1."""
    return {
        "means": jnp.asarray([mean], dtype),
        "quaternions": jnp.asarray([rotation.as_quat(scalar_first=True)], dtype),
        "scales": jnp.asarray([[*scales, 1.0]], dtype),
        "opacities": jnp.asarray([opacity], dtype),
        "colors": jnp.ones((1, 1), dtype),
    }


def _identity_camera(size=(30, 40), focal=40.0, dtype=np.float32):
    middle = np.asarray(size[::-1]) / 2
    arrays = (np.eye(4), np.asarray([focal, focal]), middle)
    return Camera(*(jnp.asarray(a, dtype) for a in arrays), size)


def _pixels(size):
    y, x = np.meshgrid(*(np.arange(length) + 0.5 for length in size), indexing="ij")
    return np.stack([x, y], -1)


def _pixel_directions(camera):
    """Rays of pixel centres in the camera's frame, of unit z."""
    plane = (_pixels(camera.size) - np.asarray(camera.principal)) / np.asarray(camera.focal)
    return np.concatenate([plane, np.ones((*camera.size, 1))], -1)


# -- geometry ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_frontal_disc_is_the_gaussian_of_the_distance_on_the_image():
    camera = _identity_camera()
    seen = _rasterize(_one([0.2, -0.1, 4.0], Rotation.identity(), (0.4, 0.4)), camera)
    directions = _pixel_directions(camera)
    squared = ((4.0 * directions[..., :2] - [0.2, -0.1]) ** 2).sum(-1)
    alpha = 0.9 * np.exp(-squared / (2 * 0.4**2))
    drawn = alpha > 1.01 / 255
    assert drawn.sum() > 300
    np.testing.assert_allclose(seen.alpha[drawn], alpha[drawn], atol=ATOL)
    assert not np.asarray(seen.alpha)[alpha < 0.99 / 255].any()
    np.testing.assert_allclose(seen.color[..., 0], seen.alpha, atol=1e-7)
    np.testing.assert_allclose(seen.normal[drawn], alpha[drawn][:, None] * np.asarray([0, 0, -1]), atol=ATOL)


def test_a_tilted_disc_is_seen_where_rays_meet_its_plane():
    """In the world, without M: where origin + t direction lies on the plane, by coordinates along the axes."""
    camera = scenes.camera()
    turn = Rotation.from_euler("xyz", [0.9, 0.5, 0.3])
    arrays = _one([0.3, -0.2, 0.4], turn, (0.6, 0.35))
    seen = _rasterize(arrays, camera)
    pose = np.asarray(camera.camera_from_world, np.float64)
    origin, directions = -pose[:3, :3].T @ pose[:3, 3], _pixel_directions(camera) @ pose[:3, :3]
    axes, mean = turn.as_matrix(), np.asarray([0.3, -0.2, 0.4])
    t = (axes[:, 2] @ (mean - origin)) / (directions @ axes[:, 2])
    on_plane = (origin + t[..., None] * directions - mean) @ axes[:, :2] / [0.6, 0.35]
    squared = (on_plane**2).sum(-1)
    alpha = 0.9 * np.exp(-squared / 2)
    # the filter is wider than the disc only within a pixel or so of its middle
    wide = (alpha > 1.01 / 255) & (squared < 2 * ((_pixels(camera.size) - np.asarray(seen.means2d)[0]) ** 2).sum(-1))
    assert wide.sum() > 150
    np.testing.assert_allclose(seen.alpha[wide], alpha[wide], atol=2e-5)
    towards = -axes[:, 2] if axes[:, 2] @ (mean - origin) > 0 else axes[:, 2]
    np.testing.assert_allclose(seen.normal[wide], alpha[wide][:, None] * towards, atol=2e-5)


def test_a_disc_has_two_sides_that_look_alike():
    arrays, camera = scenes.splats(), scenes.camera()
    over = Rotation.from_rotvec([np.pi, 0, 0])  # about the first axis: the normal turns around
    turned = Rotation.from_quat(np.asarray(arrays["quaternions"]), scalar_first=True) * over
    flipped = dict(arrays, quaternions=jnp.asarray(turned.as_quat(scalar_first=True), jnp.float32))
    before, after = _images(_rasterize(arrays, camera)), _images(_rasterize(flipped, camera))
    for name in IMAGES:
        np.testing.assert_allclose(before[name], after[name], atol=2e-5, err_msg=name)


def test_rotating_world_and_camera_together_turns_the_normals_only():
    arrays, camera = scenes.splats(), scenes.camera()
    turn = Rotation.from_rotvec([0.5, 2.0, -1.0])
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn.as_matrix(), [3.0, -2.0, 0.5]
    quaternions = turn * Rotation.from_quat(np.asarray(arrays["quaternions"]), scalar_first=True)
    turned = dict(
        arrays,
        means=jnp.asarray(np.asarray(arrays["means"]) @ world[:3, :3].T + world[:3, 3], jnp.float32),
        quaternions=jnp.asarray(quaternions.as_quat(scalar_first=True), jnp.float32),
    )
    pose = jnp.asarray(np.asarray(camera.camera_from_world, np.float64) @ np.linalg.inv(world), jnp.float32)
    before = _images(_rasterize(arrays, camera))
    after = _images(_rasterize(turned, Camera(pose, camera.focal, camera.principal, camera.size)))
    after["normal"] = after["normal"] @ turn.as_matrix()
    for name in IMAGES:
        np.testing.assert_allclose(before[name], after[name], atol=1e-4, err_msg=name)


def test_scaling_the_world_scales_depths_only():
    arrays, camera = scenes.splats(), scenes.camera()
    larger = dict(arrays, means=4 * arrays["means"], scales=4 * arrays["scales"])
    pose = camera.camera_from_world.at[:3, 3].multiply(4)
    before = _images(_rasterize(arrays, camera))
    after = _images(_rasterize(larger, Camera(pose, camera.focal, camera.principal, camera.size)))
    for name in IMAGES:
        factor = 4 if name in ("depth", "distortion", "median_depth") else 1
        np.testing.assert_allclose(factor * before[name], after[name], atol=2e-5, err_msg=name)


def test_the_record_is_what_it_says():
    arrays, camera = scenes.splats(), scenes.camera()
    seen = _rasterize(arrays, camera)
    assert_record(seen)
    assert seen.color.shape == (*scenes.SIZE, 3) and 0.2 < seen.alpha.mean() < 0.99
    np.testing.assert_allclose(seen.expected_depth * seen.alpha, seen.depth, atol=1e-5)
    shown = np.asarray(seen.alpha) > 0.01
    z = (
        np.asarray(arrays["means"]) @ np.asarray(camera.camera_from_world)[2, :3]
        + np.asarray(camera.camera_from_world)[2, 3]
    )
    gaps = np.abs(np.asarray(seen.median_depth)[shown][:, None] - z[None]).min(1)
    assert gaps.max() < 1e-5, "a median depth is one of the centres'"
    assert (np.asarray(seen.distortion) > -1e-5).all() and np.asarray(seen.distortion).max() > 0.05
    assert (np.linalg.norm(seen.normal, axis=-1) <= np.asarray(seen.alpha) + 1e-5).all()


def test_all_at_one_depth_distort_nothing():
    arrays = scenes.splats()
    arrays["means"] = arrays["means"].at[:, 2].set(0.0)
    camera = _identity_camera()
    camera = Camera(camera.camera_from_world.at[2, 3].set(3.0), camera.focal, camera.principal, camera.size)
    seen = _rasterize(arrays, camera)
    assert seen.alpha.max() > 0.9
    np.testing.assert_allclose(seen.distortion, 0.0, atol=1e-5)
    np.testing.assert_allclose(seen.median_depth[seen.alpha > 0], 3.0, rtol=1e-6)


def test_order_of_the_surfels_and_the_third_scale_do_not_matter():
    arrays, camera = scenes.splats(), scenes.camera()
    order = np.random.default_rng(0).permutation(40)
    shuffled = {name: array[order] for name, array in arrays.items()}
    before, after = _images(_rasterize(arrays, camera)), _images(_rasterize(shuffled, camera))
    without = _images(_rasterize(dict(arrays, scales=arrays["scales"][:, :2]), camera))
    for name in IMAGES:
        np.testing.assert_array_equal(before[name], after[name])
        np.testing.assert_array_equal(before[name], without[name])


def test_background_and_mask():
    arrays, camera = scenes.splats(), scenes.camera()
    background = jnp.asarray([0.2, 0.5, 0.9])
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=scenes.SIZE) < 0.5)
    without, shown = _rasterize(arrays, camera), _rasterize(arrays, camera, background)
    expected = np.asarray(without.color) + (1 - np.asarray(without.alpha))[..., None] * np.asarray(background)
    np.testing.assert_allclose(shown.color, expected, atol=1e-6)
    masked = _rasterize(arrays, camera, background, mask=mask)
    for name, image in _images(shown).items():
        np.testing.assert_array_equal(getattr(masked, name)[mask], image[mask])
        empty = background[None] if name == "color" else jnp.zeros((1,) * (image.ndim - 1))
        np.testing.assert_array_equal(getattr(masked, name)[~mask], np.broadcast_to(empty, image[~mask].shape))


def test_near_and_far_are_outside():
    """gsplat's surfels are drawn strictly between both; its Gaussians at them too."""
    arrays, camera = _one([0, 0, 2.0], Rotation.identity(), (0.3, 0.3)), _identity_camera()
    for near, far, drawn in ((2.0, 9.0, False), (1.999, 9.0, True), (0.1, 2.0, False), (0.1, 2.001, True)):
        seen = _rasterize(arrays, camera, near=near, far=far)
        assert bool(seen.alpha.any()) == drawn == bool(seen.radii.any())


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", pytest.param("xla", marks=pytest.mark.slow)])
def test_gradients_to_every_input_equal_central_differences(backend):
    with jax.enable_x64(True):
        arrays, camera = scenes.splats(12, dtype=np.float64), scenes.camera("pinhole", (20, 28), dtype=np.float64)
        arrays["scales"] = arrays["scales"].at[:4].multiply(0.2)  # below the filter's size
        background = jnp.asarray([0.3, -0.2, 0.9])

        def images(arrays, pose, focal, principal, background):
            seen = _rasterize(arrays, Camera(pose, focal, principal, camera.size), background, backend=backend)
            return {name: getattr(seen, name) for name in IMAGES}

        arguments = (arrays, camera.camera_from_world, camera.focal, camera.principal, background)
        assert_gradients_match(images, *arguments, rtol=1e-6, atol=1e-7, max_entries=8)


def test_probe_is_the_sum_over_pixels_of_absolute_gradients_through_the_filter():
    """Pixel by pixel and channel by channel the sums have one term each; backward_test.py checks the terms."""
    arrays, camera = scenes.splats(6, channels=1), scenes.camera(size=(7, 9))
    arrays["scales"] = arrays["scales"].at[:3].multiply(0.02)

    @jax.jit
    def whole_and_by_pixel(probe):
        def image(probe):
            seen = rasterize_surfels(*(arrays[name] for name in scenes.NAMES), camera, means2d_probe=probe)
            return seen.color[..., 0]

        pull = jax.vjp(image, probe)[1]
        units = jnp.eye(63).reshape(63, 7, 9)
        return pull(jnp.ones((7, 9)))[0], jax.lax.map(lambda unit: pull(unit)[0], units)

    whole, by_pixel = whole_and_by_pixel(jnp.zeros((6, 2)))
    assert (np.asarray(by_pixel) >= 0).all() and (np.asarray(whole) > 1e-4).any()
    np.testing.assert_allclose(whole, by_pixel.sum(0), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_vmap_over_cameras_equals_a_loop():
    arrays = scenes.splats(15)
    turns = (-0.4, 0.1, 0.5)
    views = [scenes.camera(turn=turn).camera_from_world for turn in turns]
    base = scenes.camera()

    def loss(arrays, pose):
        seen = _rasterize(arrays, Camera(pose, base.focal, base.principal, base.size))
        return (seen.color**2).sum() + seen.distortion.sum() + (seen.normal * seen.depth[..., None]).sum()

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    batched = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)), (None, 0)))(arrays, jnp.stack(views))
    for i, pose in enumerate(views):
        single = gradient(arrays, pose)
        for a, b in zip(jax.tree.leaves(batched), jax.tree.leaves(single), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


# -- degenerate input --------------------------------------------------------------------------------------------------


def _hostile(dtype):
    """Ordinary surfels, then one of every kind of degenerate one: arrays, and how many of them are ordinary."""
    arrays = {name: np.asarray(array, dtype) for name, array in scenes.splats(10).items()}
    camera = scenes.camera()
    pose = np.asarray(camera.camera_from_world, np.float64)
    centre = -pose[:3, :3].T @ pose[:3, 3]
    along = Rotation.align_vectors([-centre], [[1.0, 0, 0]])[0].as_quat(scalar_first=True)  # edge-on at the origin
    nan, inf = np.nan, np.inf
    middle, unit, size = [0, 0, 0], [1, 0, 0, 0], [0.2, 0.2, 0.2]
    rows = [
        (middle, unit, [0, 0, 0], 0.9),
        (middle, unit, [0, 0.3, 1], 0.9),
        (middle, unit, [1e-20, 0.3, 1], 0.9),
        (middle, unit, [1e-8, 1e-8, 1], 0.9),
        (middle, [0, 0, 0, 0], size, 0.9),
        (middle, along, size, 0.9),
        (2 * centre, unit, size, 0.9),  # behind
        (centre, unit, size, 0.9),  # in the camera
        (middle, unit, [1e6, 1e6, 1], 0.9),
        (middle, unit, [1e20, 1e20, 1], 0.9),
        (middle, unit, [3e37, 1e-3, 1], 0.9),
        ([1e30, 0, 0], unit, size, 0.9),
        ([nan, 0, 0], unit, size, 0.9),
        ([inf, 0, 0], unit, size, 0.9),
        (middle, [nan, 0, 0, 0], size, 0.9),
        (middle, [inf, 0, 0, 1], size, 0.9),
        (middle, unit, [nan, 1, 1], 0.9),
        (middle, unit, [0.1, inf, 1], 0.9),
        (middle, unit, size, nan),
        (middle, unit, size, 0.0),
        (middle, unit, size, 1.0),
    ]
    for name, column in zip(("means", "quaternions", "scales", "opacities"), zip(*rows, strict=True), strict=True):
        arrays[name] = np.concatenate([arrays[name], np.asarray(column, dtype)])
    arrays["colors"] = np.concatenate([arrays["colors"], np.ones((len(rows), 3), dtype)])
    return {name: jnp.asarray(array) for name, array in arrays.items()}, camera


@pytest.mark.parametrize("backend", ["reference", "xla", "cpu"])
def test_degenerate_surfels_give_finite_images_and_gradients(backend):
    arrays, camera = _hostile(np.float32)

    @jax.jit
    def evaluate(arrays, camera):
        def images(arrays, camera):
            seen = rasterize_surfels(*(arrays[name] for name in scenes.NAMES), camera, capacity=1024, backend=backend)
            return {name: getattr(seen, name) for name in IMAGES}

        seen, pull = jax.vjp(images, arrays, camera)
        return seen, pull(jax.tree.map(jnp.ones_like, seen))

    seen, gradients = evaluate(arrays, camera)
    for path, leaf in jax.tree_util.tree_leaves_with_path((seen, gradients)):
        bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
        assert bad.size == 0, f"{jax.tree_util.keystr(path)} is not finite at {bad[:5].tolist()}"
    assert np.abs(gradients[0]["means"][:10]).max() > 0.1


def test_surfels_that_are_no_numbers_change_nothing():
    arrays, camera = scenes.splats(10), scenes.camera()
    bad = {name: jnp.concatenate([array, jnp.full((1, *array.shape[1:]), jnp.nan)]) for name, array in arrays.items()}
    bad["colors"] = bad["colors"].at[10].set(1.0)
    before, after = _images(_rasterize(arrays, camera)), _images(_rasterize(bad, camera))
    for name in IMAGES:
        np.testing.assert_array_equal(before[name], after[name])


def test_no_surfels_show_the_background():
    camera, background = scenes.camera(), jnp.asarray([0.1, 0.2, 0.3])
    nothing = {name: array[:0] for name, array in scenes.splats().items()}
    seen = _rasterize(nothing, camera, background)
    np.testing.assert_array_equal(seen.color, np.broadcast_to(background, (*scenes.SIZE, 3)))
    assert not any(np.asarray(getattr(seen, name)).any() for name in IMAGES[1:])


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["orthographic", "fisheye"])
def test_other_lenses_are_refused(model):
    arrays = scenes.splats()
    with pytest.raises(ValueError, match=f"surfels need an ideal pinhole camera, got a {model} camera: .*`rasterize`"):
        rasterize_surfels(*(arrays[name] for name in scenes.NAMES), scenes.camera(model))


def test_distortion_is_refused():
    arrays, camera = scenes.splats(), scenes.camera()
    bent = Camera(camera.camera_from_world, camera.focal, camera.principal, camera.size, "pinhole", jnp.full(4, 0.1))
    with pytest.raises(ValueError, match="got a pinhole camera with distortion coefficients: undistort"):
        rasterize_surfels(*(arrays[name] for name in scenes.NAMES), bent)


def test_shapes_that_do_not_fit_are_refused():
    arrays, camera = scenes.splats(), scenes.camera()
    plain = inspect.unwrap(rasterize_surfels)  # the suite's own shape checks would speak up first
    with pytest.raises(ValueError, match="expected a background of 3 channels like the colors, got 2"):
        plain(*(arrays[name] for name in scenes.NAMES), camera, background=jnp.zeros(2))
    arrays["scales"] = arrays["scales"][:, :1]
    with pytest.raises(ValueError, match="expected scales of 2 or 3 columns, got 1"):
        plain(*(arrays[name] for name in scenes.NAMES), camera)


def test_pallas_is_refused_with_a_reason():
    with pytest.raises(Unsupported, match="no 'pallas_gpu' kernel; use 'xla'"):
        _rasterize(scenes.splats(), scenes.camera(), backend="pallas_gpu")
