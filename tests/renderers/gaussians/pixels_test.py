"""Rendering at positions against whole images, gradients against theirs and by differences, rays, the image's edge."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.cameras.rays import camera_rays, pixel_grid
from renderers.gaussians.pixels import PixelRendering, pixels_of_rays, rasterize_pixels, render_pixels
from renderers.gaussians.rasterize import rasterize, render
from renderers.kernels.dispatch import Unsupported
from tests.helpers.gradients import assert_gradients_match
from tests.helpers.records import assert_record
from tests.renderers.gaussians import scenes

ATOL = 5e-6  # as in rasterize_test.py: some 40 roundings a pixel
BACKGROUND = jnp.asarray([0.1, 0.5, 0.8])
NAMES = ("color", "alpha", "depth", "expected_depth")
fast_backends = pytest.mark.parametrize("backend", [pytest.param("xla", marks=pytest.mark.slow), "cpu"])
backends = pytest.mark.parametrize("backend", ["reference", "xla", "cpu"])


@functools.partial(jax.jit, static_argnames=("backend", "capacity", "antialias"))
def _at(arrays, camera, pixels, background=None, **options):
    return rasterize_pixels(*(arrays[name] for name in scenes.NAMES), camera, pixels, background=background, **options)


@functools.partial(jax.jit, static_argnames=("backend", "capacity", "antialias"))
def _whole(arrays, camera, background=None, **options):
    return rasterize(*(arrays[name] for name in scenes.NAMES), camera, background=background, **options)


def _some_centres(camera, count=60, seed=0):
    """Rows and columns of pixels, no two the same, and the positions of their centres."""
    height, width = camera.size
    rows, columns = np.divmod(np.random.default_rng(seed).permutation(height * width)[:count], width)
    return rows, columns, jnp.asarray(np.stack([columns, rows], 1) + 0.5, jnp.float32)


@backends
def test_pixel_centres_see_what_the_image_has_there(backend):
    arrays, camera = scenes.splats(), scenes.camera()
    rows, columns, centres = _some_centres(camera)
    seen = _at(arrays, camera, centres, BACKGROUND, backend=backend)
    whole = _whole(arrays, camera, BACKGROUND, backend="reference")
    assert_record(seen)
    assert seen.overflow == 0 and 0.2 < seen.alpha.mean() < 0.99
    for name in NAMES:
        # expected depth is a quotient of small numbers where hardly anything is seen
        kept = np.asarray(seen.alpha) > 0.02 if name == "expected_depth" else slice(None)
        expected = np.asarray(getattr(whole, name))[rows, columns][kept]
        np.testing.assert_allclose(np.asarray(getattr(seen, name))[kept], expected, atol=ATOL * 10, err_msg=name)
    for name in ("radii", "means2d"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(whole, name))


def test_all_pixels_are_the_image_and_keep_their_axes():
    arrays, camera = scenes.splats(), scenes.camera("orthographic")
    seen = _at(arrays, camera, pixel_grid(camera), BACKGROUND, antialias=True)
    whole = _whole(arrays, camera, BACKGROUND, antialias=True)
    assert_record(seen)
    for name in NAMES[:3]:
        np.testing.assert_allclose(getattr(seen, name), getattr(whole, name), atol=ATOL, err_msg=name)


def test_positions_between_centres_are_those_of_a_finer_image():
    """Of three times the resolution: its Gaussians, blurred alike, are the same functions of the position."""
    arrays, camera = scenes.splats(), scenes.camera()
    fine = Camera(camera.camera_from_world, camera.focal * 3, camera.principal * 3, (90, 123))
    options = dict(background=BACKGROUND, near=0.01)
    inputs = [arrays[name] for name in scenes.NAMES]
    whole = jax.jit(lambda *a: rasterize(*a, fine, blur=2.7, **options))(*inputs)  # 0.3 coarse pixels^2 are 2.7 fine
    seen = jax.jit(lambda *a: rasterize_pixels(*a, camera, pixel_grid(fine) / 3, blur=0.3, **options))(*inputs)
    np.testing.assert_allclose(seen.color, whole.color, atol=5e-5)
    np.testing.assert_allclose(seen.alpha, whole.alpha, atol=5e-5)


@fast_backends
def test_outside_the_image_is_background(backend):
    arrays, camera = scenes.splats(), scenes.camera()
    arrays |= {"scales": arrays["scales"] * 20}  # nothing inside is empty
    height, width = camera.size
    out = [[-0.1, 5], [5, -0.1], [width, 5], [5, height], [-1e9, 1e9], [np.nan, 5], [5, np.inf]]
    held = [[0, 0], [0.01, 5], [width - 0.01, height - 0.01]]

    def loss(arrays, pixels, background):
        seen = rasterize_pixels(
            *(arrays[n] for n in scenes.NAMES), camera, pixels, background=background, backend=backend, capacity=1024
        )
        return seen.color.sum() + seen.depth.sum(), seen

    pixels = jnp.asarray(out + held, jnp.float32)
    gradients, seen = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(arrays, pixels, BACKGROUND)
    np.testing.assert_array_equal(seen.alpha[: len(out)], 0)
    np.testing.assert_array_equal(seen.color[: len(out)], np.broadcast_to(BACKGROUND, (len(out), 3)))
    assert (np.asarray(seen.alpha)[len(out) :] > 0.5).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert not np.asarray(gradients[1])[: len(out)].any() and np.asarray(gradients[1])[len(out) :].any()


@pytest.mark.slow
@fast_backends
def test_gradients_are_those_of_the_same_pixels_of_the_image(backend):
    """Gaussians, camera, background and probe."""
    arrays, camera = scenes.splats(), scenes.camera()
    rows, columns, centres = _some_centres(camera)
    weights = [jnp.asarray(np.random.default_rng(i).normal(size=(60, 3 - 2 * i)), jnp.float32) for i in (0, 1)]
    probe = jnp.zeros((40, 2))

    def loss(color, alpha, depth):
        return (color * weights[0]).sum() + ((alpha + depth) * weights[1][:, 0]).sum()

    def of_pixels(arrays, camera, background, probe):
        inputs = (arrays[name] for name in scenes.NAMES)
        options = dict(background=background, means2d_probe=probe, capacity=512, backend=backend)
        seen = rasterize_pixels(*inputs, camera, centres, **options)
        return loss(seen.color, seen.alpha, seen.depth)

    def of_image(arrays, camera, background, probe):
        inputs = (arrays[name] for name in scenes.NAMES)
        seen = rasterize(*inputs, camera, background=background, means2d_probe=probe, backend="reference")
        return loss(seen.color[rows, columns], seen.alpha[rows, columns], seen.depth[rows, columns])

    found, expected = (
        jax.jit(jax.grad(f, (0, 1, 2, 3)))(arrays, camera, BACKGROUND, probe) for f in (of_pixels, of_image)
    )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        scale = float(np.abs(b).max())
        np.testing.assert_allclose(a, b, atol=2e-5 * scale, rtol=0, err_msg=jax.tree_util.keystr(path))


def test_gradients_equal_central_differences():
    """Of every input, the positions included, in float64."""
    with jax.enable_x64(True):
        arrays, camera = scenes.splats(10, dtype=np.float64), scenes.camera(size=(20, 28), dtype=np.float64)
        pixels = jnp.asarray(np.random.default_rng(0).uniform(1, 19, (9, 2)))

        def images(arrays, pose, focal, principal, background, pixels):
            moved = Camera(pose, focal, principal, camera.size)
            inputs = (arrays[name] for name in scenes.NAMES)
            seen = rasterize_pixels(*inputs, moved, pixels, background=background, backend="xla", capacity=64)
            return seen.color, seen.alpha, seen.depth

        arguments = (arrays, camera.camera_from_world, camera.focal, camera.principal, jnp.asarray([0.3, -0.2, 0.9]))
        assert_gradients_match(images, *arguments, pixels, rtol=1e-6, atol=1e-7, max_entries=10)


def test_want_of_capacity_is_reported_and_tiles_without_positions_take_no_room():
    arrays, camera = scenes.splats(400), scenes.camera()
    centres = _some_centres(camera)[2]
    short = _at(arrays, camera, centres, BACKGROUND, backend="xla", capacity=64)
    one_tile = _at(arrays, camera, 0 * centres + 3.5, BACKGROUND, backend="xla", capacity=64)
    assert short.overflow > one_tile.overflow >= 0


def test_a_batch_of_scenes_and_positions_is_a_loop():
    several = [scenes.splats(seed=seed) for seed in (0, 1)]
    camera = scenes.camera()
    positions = jnp.stack([_some_centres(camera, seed=seed)[2] for seed in (0, 1)])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    for backend in ("xla", "cpu"):
        one = functools.partial(_at, backend=backend)
        batched = jax.vmap(one, (0, None, 0, None))(stacked, camera, positions, BACKGROUND)
        for i in range(2):
            alone = one(several[i], camera, positions[i], BACKGROUND)
            np.testing.assert_allclose(batched.color[i], alone.color, atol=1e-6)


@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_rays_meet_the_pixels_that_they_come_from(model):
    camera = scenes.camera(model)
    pixels = jnp.asarray(np.random.default_rng(0).uniform(0, 30, (20, 2)), jnp.float32)
    directions = camera_rays(camera, pixels).directions
    np.testing.assert_allclose(pixels_of_rays(camera, 7.5 * directions), pixels, atol=1e-3)
    behind = np.asarray(pixels_of_rays(camera, -directions))
    assert ((behind < 0) | (behind > np.asarray(camera.size)[::-1])).any(1).all()


def test_rays_past_the_fold_of_a_lens_are_not_mirrored_into_the_image():
    """k1 = -0.3 turns back at tan = 1.05: a ray at tan 1.7 would land where one at tan 0.25 does."""
    eye = jnp.eye(4)
    camera = Camera(eye, jnp.full(2, 20.0), jnp.full(2, 16.0), (32, 32), distortion=jnp.asarray([-0.3, 0, 0, 0]))
    pixels = pixels_of_rays(camera, jnp.asarray([[0.25, 0, 1], [1.7, 0, 1]]))
    np.testing.assert_allclose(pixels[0], [16 + 20 * 0.25 * (1 - 0.3 * 0.25**2), 16], rtol=1e-6)
    assert (np.asarray(pixels[1]) < 0).all()


@pytest.mark.slow
def test_a_ray_fixed_in_the_world_sees_the_same_when_the_camera_turns_about_its_axis():
    arrays, camera = scenes.splats(), scenes.camera("fisheye")
    arrays |= {"scales": arrays["scales"] * 4}
    camera = Camera(camera.camera_from_world, jnp.full(2, 55.0), camera.principal, camera.size, "fisheye")
    rng = np.random.default_rng(0)
    near_axis = camera.principal[None] + jnp.asarray(rng.uniform(-8, 8, (30, 2)), jnp.float32)
    directions = camera_rays(camera, near_axis).directions

    def color(pose, directions):
        moved = Camera(pose, camera.focal, camera.principal, camera.size, "fisheye")
        return _at(arrays, moved, pixels_of_rays(moved, directions)).color

    turn = np.eye(4, dtype=np.float32)
    turn[:2, :2] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    before, after = (color(pose, directions) for pose in (camera.camera_from_world, turn @ camera.camera_from_world))
    np.testing.assert_allclose(after, before, atol=2e-4)
    gradient = np.asarray(jax.grad(lambda d: color(camera.camera_from_world, d)[:, 0].sum())(directions))
    assert np.abs(gradient).max() > 0.1
    along = (gradient * np.asarray(directions)).sum(-1)
    np.testing.assert_allclose(along, 0, atol=1e-4 * np.abs(gradient).max(), err_msg="length does not matter")


def test_render_pixels_activates_and_colours():
    gaussians, camera = scenes.gaussians(), scenes.camera()
    rows, columns, centres = _some_centres(camera)
    seen = jax.jit(lambda g: render_pixels(g, camera, centres, background=BACKGROUND))(gaussians)
    whole = jax.jit(lambda g: render(g, camera, background=BACKGROUND))(gaussians)
    np.testing.assert_allclose(seen.color, np.asarray(whole.color)[rows, columns], atol=ATOL)


def test_none_of_either():
    arrays, camera = scenes.splats(), scenes.camera()
    nothing = _at(scenes.splats(0), camera, jnp.zeros((4, 2)) + 3, BACKGROUND)
    np.testing.assert_array_equal(nothing.color, np.broadcast_to(BACKGROUND, (4, 3)))
    nowhere = _at(arrays, camera, jnp.zeros((2, 0, 2)), BACKGROUND)
    assert nowhere.color.shape == (2, 0, 3) and isinstance(nowhere, PixelRendering)


def test_what_cannot_be_is_refused_with_a_reason():
    arrays, camera = scenes.splats(), scenes.camera()
    inputs = [arrays[name] for name in scenes.NAMES]
    with pytest.raises(Unsupported, match="use 'xla'"):
        rasterize_pixels(*inputs, camera, jnp.zeros((1, 2)), backend="pallas_gpu")
    with pytest.raises(ValueError, match="background of 3 channels"):
        inspect.unwrap(rasterize_pixels)(*inputs, camera, jnp.zeros((1, 2)), background=jnp.zeros(2))
    with pytest.raises(ValueError, match="orthographic"):
        pixels_of_rays(scenes.camera("orthographic"), jnp.ones((1, 3)))
