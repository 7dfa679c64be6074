"""Laws of rendering: what must not change, what must be linear, limits, gradients by differences, degenerate input."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renderers.cameras.camera import Camera, stack_cameras
from renderers.gaussians.rasterize import Rendering, rasterize, render, render_views
from tests.helpers.gradients import assert_gradients_match
from tests.helpers.records import assert_record
from tests.renderers.gaussians import scenes

# float32 images of numbers in 0 .. 1: some 40 roundings a pixel,
# and more where a branch flips (none does in these scenes)
ATOL = 5e-6


@functools.partial(jax.jit, static_argnames=("antialias", "backend", "near", "far", "capacity"))
def _rasterize(arrays, camera, background=None, **options):
    return rasterize(*(arrays[name] for name in scenes.NAMES), camera, background=background, **options)


def _images(seen: Rendering):
    return {name: np.asarray(getattr(seen, name)) for name in ("color", "alpha", "depth")}


def _assert_same_images(a: Rendering, b: Rendering, atol: float = ATOL):
    for name, image in _images(a).items():
        np.testing.assert_allclose(image, getattr(b, name), atol=atol, err_msg=name)


def test_a_rendering_is_a_record_of_what_it_says():
    arrays, camera = scenes.splats(), scenes.camera()
    seen = _rasterize(arrays, camera)
    assert_record(seen)
    assert seen.color.shape == (*scenes.SIZE, 3) and 0.2 < seen.alpha.mean() < 0.99
    np.testing.assert_allclose(seen.expected_depth * seen.alpha, seen.depth, atol=1e-5)
    assert ((seen.expected_depth > 2) & (seen.expected_depth < 6))[seen.alpha > 0.01].all()


def test_rotating_world_and_camera_together_changes_nothing():
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
    elsewhere = Camera(pose, camera.focal, camera.principal, camera.size)
    _assert_same_images(_rasterize(arrays, camera), _rasterize(turned, elsewhere), atol=5e-5)


def test_order_of_the_gaussians_does_not_matter():
    arrays, camera = scenes.splats(), scenes.camera()
    order = np.random.default_rng(0).permutation(40)
    shuffled = {name: array[order] for name, array in arrays.items()}
    before, after = _rasterize(arrays, camera), _rasterize(shuffled, camera)
    for name, image in _images(before).items():
        np.testing.assert_array_equal(image, getattr(after, name))
    np.testing.assert_array_equal(before.radii[order], after.radii)


def test_image_is_linear_in_the_colours_and_channels_are_independent():
    arrays, camera = scenes.splats(channels=4), scenes.camera()
    whole = _rasterize(arrays, camera)
    rng = np.random.default_rng(0)
    other = jnp.asarray(rng.normal(size=(40, 4)), jnp.float32)
    mixed = _rasterize(dict(arrays, colors=2 * arrays["colors"] - 3 * other), camera)
    second = _rasterize(dict(arrays, colors=other), camera)
    np.testing.assert_allclose(mixed.color, 2 * whole.color - 3 * second.color, atol=1e-5)
    parts = [_rasterize(dict(arrays, colors=arrays["colors"][:, part]), camera) for part in (slice(1), slice(1, 4))]
    np.testing.assert_array_equal(np.concatenate([part.color for part in parts], -1), whole.color)
    np.testing.assert_array_equal(parts[0].alpha, whole.alpha)


def test_one_faint_gaussian_is_linear_in_its_opacity():
    arrays, camera = scenes.splats(1), scenes.camera()
    arrays |= {"means": jnp.zeros((1, 3)), "scales": jnp.full((1, 3), 0.4)}
    images = [_rasterize(dict(arrays, opacities=jnp.asarray([opacity])), camera) for opacity in (0.2, 0.4)]
    both = (images[0].alpha > 0) & (images[1].alpha > 0)
    assert both.sum() > 50
    np.testing.assert_allclose(2 * images[0].alpha[both], images[1].alpha[both], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_background_shows_through_what_is_left(dtype):
    arrays, camera = scenes.splats(), scenes.camera()
    background = np.asarray([0.2, 0.5, 0.9], dtype)
    with jax.enable_x64(dtype == np.float64):
        without = _rasterize(arrays, camera)
        shown = _rasterize(arrays, camera, jnp.asarray(background))
        assert shown.color.dtype == jnp.float32
        expected = np.asarray(without.color) + (1 - np.asarray(without.alpha))[..., None] * background
        np.testing.assert_allclose(shown.color, expected, atol=1e-6)
        np.testing.assert_array_equal(shown.depth, without.depth)
        if dtype == np.float32:
            gradient = jax.jit(jax.grad(lambda b: _rasterize(arrays, camera, b).color.sum()))(jnp.asarray(background))
            np.testing.assert_allclose(gradient, np.full(3, (1 - np.asarray(without.alpha)).sum()), rtol=1e-5)


@pytest.mark.parametrize("model", ["pinhole", "orthographic", "fisheye"])
def test_expected_depth_of_one_gaussian_is_its_centres(model):
    arrays, camera = scenes.splats(1), scenes.camera(model)
    arrays |= {"means": jnp.asarray([[0.1, 0.2, -0.3]]), "scales": jnp.full((1, 3), 0.3)}
    seen = _rasterize(dict(arrays, opacities=jnp.asarray([1.0])), camera)
    z = float((camera.camera_from_world @ jnp.asarray([0.1, 0.2, -0.3, 1.0]))[2])
    assert seen.alpha.max() == np.float32(0.99)
    # alpha is 1 - T: where it is 1/255, the rounding of T is 255 times larger in it
    np.testing.assert_allclose(seen.expected_depth[seen.alpha > 0], z, rtol=3e-5)


def test_antialias_dims_only_what_the_blur_widens():
    arrays, camera = scenes.splats(), scenes.camera()
    wide = dict(arrays, scales=arrays["scales"] * 40)
    _assert_same_images(_rasterize(wide, camera), _rasterize(wide, camera, antialias=True), atol=5e-3)
    fine = dict(arrays, scales=arrays["scales"] * 0.02)
    plain, kept = _rasterize(fine, camera), _rasterize(fine, camera, antialias=True)
    assert kept.alpha.sum() < 0.2 * plain.alpha.sum()


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "model", "antialias"),
    [
        ("reference", "pinhole", True),
        pytest.param("reference", "orthographic", False, marks=pytest.mark.slow),
        ("reference", "fisheye", False),
        ("xla", "pinhole", False),
    ],
)
def test_gradients_to_every_input_equal_central_differences(backend, model, antialias):
    """R13: Gaussians, background, pose, focal lengths and principal point; relative error 1e-6 where 1e-4 is asked."""
    with jax.enable_x64(True):
        arrays, camera = scenes.splats(12, dtype=np.float64), scenes.camera(model, (20, 28), dtype=np.float64)
        background = jnp.asarray([0.3, -0.2, 0.9])

        def images(arrays, pose, focal, principal, background):
            moved = Camera(pose, focal, principal, camera.size, model)
            seen = rasterize(
                *(arrays[name] for name in scenes.NAMES),
                moved,
                background=background,
                antialias=antialias,
                backend=backend,
            )
            return seen.color, seen.alpha, seen.depth, seen.expected_depth * jnp.minimum(seen.alpha, 0.1)

        pose = camera.camera_from_world
        arguments = (arrays, pose, camera.focal, camera.principal, background)
        assert_gradients_match(images, *arguments, rtol=1e-6, atol=1e-7, max_entries=16)


def test_probe_is_the_sum_over_pixels_of_absolute_gradients():
    """Pixel by pixel and channel by channel the sums have one term each; backward_test.py checks the terms."""
    arrays, camera = scenes.splats(6, channels=1), scenes.camera(size=(7, 9))

    @jax.jit
    def whole_and_by_pixel(probe):
        def image(probe):
            return rasterize(*(arrays[name] for name in scenes.NAMES), camera, means2d_probe=probe).color[..., 0]

        pull = jax.vjp(image, probe)[1]
        units = jnp.eye(63).reshape(63, 7, 9)
        return pull(jnp.ones((7, 9)))[0], jax.lax.map(lambda unit: pull(unit)[0], units)

    whole, by_pixel = whole_and_by_pixel(jnp.zeros((6, 2)))
    assert (np.asarray(by_pixel) >= 0).all() and (np.asarray(whole) > 1e-4).sum() > 6
    np.testing.assert_allclose(whole, by_pixel.sum(0), rtol=1e-4)


# -- many views --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "wanted"), [("cpu", (0, 1)), pytest.param("xla", (0,), marks=pytest.mark.slow)])
def test_render_views_equals_vmap_equals_a_loop(backend, wanted):
    gaussians = scenes.gaussians()
    views = [scenes.camera(turn=turn) for turn in (-0.4, 0.0, 0.5)]
    stacked = stack_cameras(views)
    background = jnp.asarray([0.1, 0.2, 0.3])
    options = dict(background=background, capacity=512, backend=backend)

    def loss(seen):
        return (seen.color**2).sum() + (seen.depth * seen.alpha).sum()

    def evaluated(render_them, wanted):
        def total(*arguments):
            seen = render_them(*arguments)
            return loss(seen), seen

        return jax.jit(jax.value_and_grad(total, wanted, has_aux=True))

    one = functools.partial(render, **options)
    (_, mapped), of_map = evaluated(functools.partial(render_views, **options), wanted)(gaussians, stacked)
    (_, batched), of_vmap = evaluated(jax.vmap(one, (None, 0)), (0,))(gaussians, stacked)
    single = evaluated(one, wanted)
    singles = [single(gaussians, camera) for camera in views]
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[seen for (_, seen), _ in singles])
    for found in (mapped, batched):
        _assert_same_images(found, looped)
        np.testing.assert_array_equal(found.radii, looped.radii)
    of_gaussians = jax.tree.map(lambda *leaves: sum(leaves), *[gradients[0] for _, gradients in singles])
    for found in (of_map[0], of_vmap[0]):
        jax.tree.map(_assert_close_gradients, found, of_gaussians)
    if 1 in wanted:
        jax.tree.map(_assert_close_gradients, of_map[1], stack_cameras([gradients[1] for _, gradients in singles]))


def _assert_close_gradients(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1e-3, float(np.abs(expected).max())), rtol=0)


def test_render_activates_and_colours():
    gaussians, camera = scenes.gaussians(), scenes.camera()
    from_record = jax.jit(lambda g: render(g, camera, sh_degree=0))(gaussians)
    arrays = scenes.splats()
    colors = jnp.maximum(gaussians.sh[:, 0] * 0.28209479177387814 + 0.5, 0)
    _assert_same_images(from_record, _rasterize(dict(arrays, colors=colors), camera))


# -- precision and degenerate input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "reference", "xla"])
def test_float32_stays_float32_under_x64(backend):
    arrays = scenes.splats(8)
    with jax.enable_x64(True):
        camera = scenes.camera(dtype=np.float64)  # a camera computed in float64 must not widen the image
        options = dict(backend=backend, capacity=256)

        def loss(arrays, camera):
            seen = _rasterize(arrays, camera, **options)
            return seen.color.sum() + seen.depth.sum(), seen

        gradients, seen = jax.eval_shape(jax.grad(loss, (0, 1), has_aux=True), arrays, camera)
        for name in ("color", "alpha", "depth", "means2d"):
            assert getattr(seen, name).dtype == jnp.float32, name
        assert seen.radii.dtype == jnp.int32 and seen.overflow.dtype == jnp.int32
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients[0])} == {jnp.dtype(jnp.float32)}
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients[1])} == {jnp.dtype(jnp.float64)}


def _degenerate():
    """Every degenerate Gaussian at once, among 8 ordinary ones; which of them must be culled."""
    arrays = {name: np.array(array) for name, array in scenes.splats(8).items()}
    base = dict(
        means=[0.0, 0, 3.0], quaternions=[1.0, 0.2, 0, 0], scales=[0.1, 0.2, 0.1], opacities=0.5, colors=[0.5] * 3
    )
    cases = [
        (True, dict(means=[0, 0, -1.0])),
        (True, dict(means=[0.1, 0, 0.0])),
        (True, dict(means=[0, 0, 0.01])),
        (False, dict(means=[0, 0, 0.0101], scales=[1e-4] * 3)),
        (False, dict(quaternions=[0, 0, 0, 0])),
        (False, dict(scales=[0, 0, 0])),
        (False, dict(scales=[1e10] * 3, opacities=0.3)),
        (False, dict(scales=[1e10, 1e-3, 1e-3], opacities=0.3)),
        (False, dict(scales=[1e13] * 3, opacities=0.3)),
        (True, dict(scales=[1e20] * 3)),
        (True, dict(opacities=0.0)),
        (False, dict(opacities=1.0)),
        (True, dict(opacities=0.999 / 255)),
        (True, dict(means=[500.0, 0, 3.0])),
        (False, dict(means=[-5.0, 0, 3.0], scales=[2.0] * 3)),
        (True, dict(means=[1e6, 0, 3.0])),
        (True, dict(means=[1e30, 0, 3.0])),
        (False, dict(means=[1e5, 0, 3.0], scales=[1e5] * 3, opacities=0.2)),
    ]
    for name in scenes.NAMES:
        extra = np.asarray([(base | changes)[name] for _, changes in cases], np.float32)
        arrays[name] = np.concatenate([arrays[name], extra])
    return {name: jnp.asarray(a) for name, a in arrays.items()}, np.asarray(
        [False] * 8 + [culled for culled, _ in cases]
    )


@pytest.mark.parametrize(
    ("backend", "model"), [("cpu", "pinhole"), ("cpu", "fisheye"), ("cpu", "orthographic"), ("xla", "pinhole")]
)
def test_degenerate_gaussians_give_finite_images_and_gradients(backend, model):
    arrays, culled = _degenerate()
    view = scenes.camera(model)
    camera = Camera(jnp.eye(4), view.focal, view.principal, view.size, model)
    weights = [jnp.asarray(np.random.default_rng(0).normal(size=(*scenes.SIZE, k)), jnp.float32) for k in (3, 1)]

    def loss(arrays, camera, probe):
        seen = rasterize(
            *(arrays[name] for name in scenes.NAMES), camera, means2d_probe=probe, backend=backend, capacity=512
        )
        total = (seen.color * weights[0]).sum() + ((seen.alpha + seen.depth) * weights[1][..., 0]).sum()
        return total, seen

    probe = jnp.zeros((len(culled), 2))
    (_, seen), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(arrays, camera, probe)
    for leaf in jax.tree.leaves((seen, gradients)):
        assert np.isfinite(leaf).all()
    assert 0 <= seen.alpha.min() and seen.alpha.max() <= 1 and seen.overflow == 0
    if model == "pinhole":
        np.testing.assert_array_equal(np.asarray(seen.radii)[:, 0] == 0, culled | (np.asarray(seen.radii)[:, 1] == 0))
        np.testing.assert_array_equal((np.asarray(seen.radii) == 0).all(1)[8:], culled[8:])
    gone = (np.asarray(seen.radii) == 0).all(1)
    assert gone.any() and not np.asarray(seen.means2d)[gone].any()
    for name in scenes.NAMES[:4]:
        assert not np.asarray(gradients[0][name])[gone].any(), f"a culled Gaussian moves the image by its {name}"


@pytest.mark.slow
@pytest.mark.parametrize(("n", "backend"), [(0, "cpu"), (0, "xla"), (0, "reference"), (1, "cpu"), (1, "xla")])
def test_none_and_one(n, backend):
    arrays, camera = scenes.splats(n), scenes.camera(size=(5, 4))
    background = jnp.asarray([0.2, 0.4, 0.6])

    def loss(arrays, camera, background):
        seen = rasterize(*(arrays[name] for name in scenes.NAMES), camera, background=background, backend=backend)
        return seen.color.sum() + seen.depth.sum(), seen

    (_, seen), gradients = jax.jit(jax.value_and_grad(loss, (0, 2), has_aux=True))(arrays, camera, background)
    assert seen.color.shape == (5, 4, 3) and seen.radii.shape == (n, 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((seen, gradients)))
    if n == 0:
        np.testing.assert_array_equal(seen.color, np.broadcast_to(background, (5, 4, 3)))
        np.testing.assert_array_equal(gradients[1], 20.0)
        assert not np.asarray(seen.alpha).any() and not np.asarray(seen.depth).any()
    else:
        assert seen.radii[0, 0] > 0


def test_too_small_a_capacity_is_told():
    arrays, camera = scenes.splats(), scenes.camera()
    cut = _rasterize(arrays, camera, backend="xla", capacity=50)
    whole = _rasterize(arrays, camera, backend="xla", capacity=50 + int(cut.overflow))
    assert cut.overflow > 0 and whole.overflow == 0
    _assert_same_images(whole, _rasterize(arrays, camera, backend="cpu"))
    assert (cut.alpha <= whole.alpha + 1e-6).all(), "what is dropped leaves light through"


def test_inputs_that_do_not_fit_are_refused():
    arrays, camera = scenes.splats(2), scenes.camera()
    plain = inspect.unwrap(rasterize)  # the suite's own shape checks would speak up first
    with pytest.raises(ValueError, match="background of 3 channels like the colors, got 2"):
        plain(*(arrays[name] for name in scenes.NAMES), camera, background=jnp.zeros(2))
