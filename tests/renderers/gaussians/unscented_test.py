"""Why distorted lenses are linearised: the unscented transform, written out, against warped dense images.

The transform is that of 3DGUT (arXiv 2412.12507) with gsplat 1.6.0's constants, differentiable as it stands. Decibels
against the warped image through the fox lens, for deviations of 1, 4, 16 and 64 pixels at 216 x 384: Jacobian 60, 66,
58, 53; unscented 59, 56, 45, 35. Through an action camera's lens (k1 = -0.24), 2, 8 and 32 pixels at 160 x 240, no
blur: 49, 38, 30 and 49, 38, 29. Against the largest response along each ray (3DGUT's own image) the unscented transform
is 2 to 3 dB the better, with the lens and just as much without it: what it adds there is perspective, not distortion.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras import camera as cameras
from renderers.gaussians.covariance import principal_axes
from renderers.gaussians.projection import project
from renderers.kernels.composite.api import composite
from tests.renderers.gaussians import lens_scenes, scenes

ALPHA, BETA, KAPPA = 0.1, 2.0, 0.0


def unscented(means, quaternions, scales, camera):
    """Mean and covariance of the pixels of seven sigma points."""
    spread = ALPHA**2 * (3 + KAPPA)  # 3 + lambda
    axes = np.sqrt(spread) * principal_axes(quaternions, scales).swapaxes(1, 2)
    points = means[:, None] + jnp.concatenate([jnp.zeros_like(axes[:, :1]), axes, -axes], 1)
    pixels = cameras.project(camera, points)[0]
    moved = pixels - pixels[:, :1]  # sums of differences: the weight of the centre is -99
    shift = moved[:, 1:].sum(1) / (2 * spread)
    off = moved - shift[:, None]
    first = 1 - 3 / spread + 1 - ALPHA**2 + BETA
    covariances = jnp.einsum("nki,nkj->nij", off[:, 1:], off[:, 1:]) / (2 * spread)
    return pixels[:, 0] + shift, covariances + first * shift[:, :, None] * shift[:, None, :]


@functools.partial(jax.jit, static_argnames="blur")
def _image(arrays, camera, blur=0.3):
    mean, covariance = unscented(*(arrays[name] for name in scenes.NAMES[:3]), camera)
    covariance = covariance + blur * jnp.eye(2)[None]
    inverse = jnp.linalg.inv(covariance)
    conics = jnp.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    extents = 3.33 * jnp.sqrt(jnp.stack([covariance[:, 0, 0], covariance[:, 1, 1]], -1))
    depths = cameras.project(camera, arrays["means"])[1]
    return composite(
        mean, conics, arrays["opacities"], arrays["colors"], extents, depths, size=camera.size, backend="cpu"
    ).image


def test_of_a_linear_mapping_both_are_exact():
    with jax.enable_x64(True):
        arrays, camera = scenes.splats(dtype=np.float64), scenes.camera("orthographic", dtype=np.float64)
        mean, covariance = jax.jit(unscented)(*(arrays[name] for name in scenes.NAMES[:3]), camera)
        seen = jax.jit(project)(*(arrays[name] for name in scenes.NAMES[:4]), camera)
        shown = np.asarray(seen.radii[:, 0]) > 0
        assert shown.sum() > 30
        np.testing.assert_allclose(mean[shown], np.asarray(seen.means2d)[shown], rtol=1e-10)
        inverse = np.linalg.inv(np.asarray(covariance) + 0.3 * np.eye(2))
        conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
        np.testing.assert_allclose(conics[shown], np.asarray(seen.conics)[shown], rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("deviation", "gain"), [(1.5, 0.5), (4.0, 5.0), (16.0, 8.0)])
def test_the_jacobian_is_nearer_to_the_warped_image_than_the_unscented_transform(deviation, gain):
    camera = lens_scenes.lens("pinhole", lens_scenes.FOX, 0.15)
    arrays = lens_scenes.spread(camera, 400, deviation)
    expected = lens_scenes.warped(arrays, camera)[..., :3]
    linearised = lens_scenes.decibels(lens_scenes.image(arrays, camera)[..., :3], expected)
    transformed = lens_scenes.decibels(_image(arrays, camera), expected)
    assert transformed > 35, "the transform is right, only not the nearest"
    assert linearised > transformed + gain
