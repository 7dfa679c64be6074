"""Projection, harmonics, covariance and compositing against the PyTorch reference inside the PyPI package gsplat 1.5.3.

Values and gradients, in float64, on two seeds; `PARITY_SEED=N` takes another second one.
Without CUDA gsplat's reference lists no pairs of pixel and Gaussian, and nerfacc, whose two sums along rays it takes,
does nothing at all: the pairs come from this suite's numpy oracle and the sums are written here, in torch. Where
1.5.3 differs from 1.6.0, whose conventions ours are, the draws keep clear of it: alpha is clamped at 0.999 there,
compensation is not floored, and boxes do not depend on opacity.
"""

import functools
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.gaussians.covariance import covariances
from renderers.gaussians.projection import project
from renderers.gaussians.rasterize import rasterize
from renderers.harmonics import sh_basis
from renderers.kernels.composite.api import composite
from tests.renderers.gaussians import scenes as scenes3d
from tests.renderers.kernels.composite import brute_force, scenes

pytestmark = pytest.mark.parity

OTHER = int(os.environ.get("PARITY_SEED", "20261122"))
seeds = pytest.mark.parametrize("seed", [0, OTHER])
MODELS = {"pinhole": "pinhole", "orthographic": "ortho", "fisheye": "fisheye"}
SIZE = (24, 37)
# Both sides evaluate the same formulas in float64, in another order; conditioning costs the rest (measured: 1e-12).
RTOL = 1e-9


@pytest.fixture(scope="module")
def gsplat():
    """The reference's module; importing it compiles nothing and asks for no CUDA."""
    pytest.importorskip("torch")
    stub = types.ModuleType("nerfacc")
    stub.render_weight_from_alpha, stub.accumulate_along_rays = _weights_along_rays, _sums_along_rays
    sys.modules["nerfacc"] = stub
    try:
        from gsplat.cuda import _torch_impl
    except ImportError as error:
        pytest.skip(f"needs gsplat==1.5.3 of the [parity] extra: {error}")
    yield _torch_impl
    del sys.modules["nerfacc"]


def _weights_along_rays(alphas, ray_indices, n_rays):
    """alpha_i prod_{j < i} (1 - alpha_j) of runs of one ray each, and the products."""
    import torch

    counts = torch.bincount(ray_indices, minlength=n_rays)
    place = torch.arange(len(alphas)) - (torch.cumsum(counts, 0) - counts)[ray_indices]
    dense = torch.zeros(n_rays, int(counts.max()) + 1, dtype=alphas.dtype)
    dense = dense.index_put((ray_indices, place + 1), alphas)
    in_front = torch.cumprod(1 - dense, 1)[ray_indices, place]
    return alphas * in_front, in_front


def _sums_along_rays(weights, values, ray_indices, n_rays):
    import torch

    weighted = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, weighted.shape[1], dtype=weights.dtype).index_add(0, ray_indices, weighted)


def _tensors(*arrays):
    import torch

    return [torch.tensor(np.asarray(array, np.float64), requires_grad=True) for array in arrays]


def _pulled_back(outputs, cotangents, inputs):
    """Gradients of the inner product of outputs and cotangents, as numpy."""
    total = sum((o * o.new_tensor(np.asarray(c))).sum() for o, c in zip(outputs, cotangents, strict=True))
    total.backward()
    return [i.grad.numpy() for i in inputs]


def _ours(function, inputs, cotangents):
    """Outputs and gradients of a jax function, float64."""
    with jax.enable_x64(True):
        arrays = [jnp.asarray(np.asarray(i, np.float64)) for i in inputs]
        run = jax.jit(
            lambda *a: (lambda o, pull: (o, pull(tuple(map(jnp.asarray, cotangents)))))(*jax.vjp(function, *a))
        )
        outputs, gradients = run(*arrays)
        return [np.asarray(o) for o in outputs], [np.asarray(g) for g in gradients]


def _assert_close(found, expected, names):
    for name, a, b in zip(names, found, expected, strict=True):
        b = b.detach().numpy() if hasattr(b, "detach") else b
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=RTOL * max(np.abs(b).max(), 1e-30), err_msg=name)


@seeds
def test_covariances(gsplat, seed):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(50, 4)), np.exp(rng.normal(size=(50, 3)))
    cotangent = rng.normal(size=(50, 3, 3))
    tensors = _tensors(*inputs)
    expected = gsplat._quat_scale_to_covar_preci(*tensors, compute_preci=False)[0]
    outputs, gradients = _ours(lambda q, s: (covariances(q, s),), inputs, [cotangent])
    _assert_close(outputs, [expected], ["covariance"])
    _assert_close(gradients, _pulled_back([expected], [cotangent], tensors), ["quaternions", "scales"])


@seeds
@pytest.mark.parametrize("degree", range(5))
def test_spherical_harmonics(gsplat, seed, degree):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(40, 3)), rng.normal(size=(40, (degree + 1) ** 2, 3))
    cotangent = rng.normal(size=(40, 3))
    tensors = _tensors(*inputs)
    expected = gsplat._spherical_harmonics(degree, *tensors)

    def colors(directions, coefficients):
        unit = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        return (jnp.einsum("nk,nkc->nc", sh_basis(unit, degree), coefficients),)

    outputs, gradients = _ours(colors, inputs, [cotangent])
    # gsplat writes its constants with ten digits or so
    np.testing.assert_allclose(outputs[0], expected.detach().numpy(), atol=1e-6)
    if degree == 0:  # constant: torch has no gradient to compare
        return
    for found, wanted in zip(gradients, _pulled_back([expected], [cotangent], tensors), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def _view(model, seed):
    """A random camera and splats before it, their parameters as numpy."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        camera = scenes3d.camera(model, SIZE, turn=float(rng.uniform(-0.6, 0.6)), dtype=np.float64)
        splats = scenes3d.splats(60, seed=seed, dtype=np.float64)
    geometry = [np.asarray(splats[name]) for name in ("means", "quaternions", "scales")]
    k = np.eye(3)
    k[[0, 1], [0, 1]], k[:2, 2] = camera.focal, camera.principal
    opacities = rng.uniform(0.2, 0.9, 60)
    return geometry, np.asarray(camera.camera_from_world), k, opacities, np.asarray(splats["colors"])


def _camera(pose, k, model):
    return Camera(pose, jnp.stack([k[0, 0], k[1, 1]]), jnp.stack([k[0, 2], k[1, 2]]), SIZE, model)


def _without_skew(k_gradient):
    return k_gradient * np.asarray([[1, 0, 1], [0, 1, 1], [0, 0, 0]])


def _their_projection(gsplat, tensors, model):
    means, quaternions, scales, pose, k = tensors
    covariance = gsplat._quat_scale_to_covar_preci(quaternions, scales, compute_preci=False)[0]
    radii, *outputs = gsplat._fully_fused_projection(
        means,
        covariance,
        pose[None],
        k[None],
        SIZE[1],
        SIZE[0],
        calc_compensations=True,
        camera_model=MODELS[model],
    )
    means2d, depths, conics, compensations = (output[0] for output in outputs)
    return radii[0].numpy(), (means2d, conics, depths, compensations)


@seeds
@pytest.mark.parametrize("model", MODELS)
def test_projection(gsplat, seed, model):
    geometry, pose, k, opacities, _ = _view(model, seed)
    inputs = (*geometry, pose, k)

    def run(means, quaternions, scales, pose, k):
        given = jnp.asarray(opacities)
        seen = project(means, quaternions, scales, given, _camera(pose, k, model), antialias=True)
        return seen.means2d, seen.conics, seen.depths, seen.opacities / given, seen.radii

    tensors = _tensors(*inputs)
    radii, expected = _their_projection(gsplat, tensors, model)
    shapes = [(60, 2), (60, 3), (60,), (60,)]
    ours = _ours(lambda *a: run(*a)[:4], inputs, [np.zeros(shape) for shape in shapes])[0]
    shown = (ours[1][:, 0] > 0) & (radii > 0).all(1)
    assert shown.sum() > 30
    rng = np.random.default_rng(seed + 1)
    cotangents = [rng.normal(size=shape) * shown.reshape(-1, *[1] * (len(shape) - 1)) for shape in shapes]
    outputs, gradients = _ours(lambda *a: run(*a)[:4], inputs, cotangents)
    names = ["means2d", "conics", "depths", "compensations"]
    _assert_close([o[shown] for o in outputs], [e.detach().numpy()[shown] for e in expected], names)
    wanted = _pulled_back(expected, cotangents, tensors)
    gradients[3], wanted[3] = gradients[3][:3], wanted[3][:3]
    gradients[4], wanted[4] = _without_skew(gradients[4]), _without_skew(wanted[4])
    _assert_close(gradients, wanted, ["means", "quaternions", "scales", "pose", "intrinsics"])


def _pairs(scene, size):
    """(Gaussian, pixel) of every contribution, by pixel and then from near to far."""
    import torch

    weights = brute_force.blend(scene, size).weights
    order = np.argsort(scene["depths"], kind="stable")
    drawn = weights[order].reshape(len(order), -1).T > 0
    pixels, ranks = np.nonzero(drawn)
    return torch.tensor(order[ranks]), torch.tensor(pixels)


def _their_image(gsplat, means2d, conics, opacities, features, pairs, size):
    import torch

    gaussians, pixels = pairs
    image, alpha = gsplat.accumulate(
        means2d[None],
        conics[None],
        opacities[None],
        features[None],
        gaussians,
        pixels,
        torch.zeros_like(pixels),
        size[1],
        size[0],
    )
    return image[0], 1 - alpha[0, ..., 0]


@seeds
@pytest.mark.parametrize(("backend", "dtype"), [("reference", "float64"), ("xla", "float64"), ("cpu", "float32")])
def test_compositing(gsplat, seed, backend, dtype):
    scene = scenes.random_scene(seed % 1000, n=80, size=SIZE)
    scene["opacities"] = np.minimum(scene["opacities"], np.float32(0.98))
    image_cotangent, transmittance_cotangent, safe = scenes.safe_cotangents(scene, SIZE)
    names = ["means2d", "conics", "opacities", "features"]
    tensors = _tensors(*(scene[name] for name in names))
    expected = _their_image(gsplat, *tensors, _pairs(scene, SIZE), SIZE)
    wanted = _pulled_back(expected, (image_cotangent, transmittance_cotangent), tensors)
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, dtype) for name, array in scene.items()}
        cotangents = tuple(jnp.asarray(c, dtype) for c in (image_cotangent, transmittance_cotangent))

        @jax.jit
        def evaluate(*inputs):
            def run(*inputs):
                blended = composite(
                    *inputs, arrays["extents"], arrays["depths"], size=SIZE, backend=backend, capacity=1024
                )
                return blended.image, blended.transmittance

            outputs, pull = jax.vjp(run, *inputs)
            return outputs, pull(cotangents)

        outputs, gradients = evaluate(*(arrays[name] for name in names))
    image, gradient = {"float64": (1e-11, 1e-9), "float32": (2e-5, 3e-4)}[dtype]  # float32: the tolerances
    for found, theirs in zip(outputs, expected, strict=True):
        assert np.abs(np.asarray(found) - theirs.detach().numpy())[safe].max() < image * 4
    for name, found, theirs in zip(names, gradients, wanted, strict=True):
        assert np.abs(np.asarray(found) - theirs).max() < gradient * np.abs(theirs).max(), name


@seeds
def test_rendering_end_to_end_with_gradients_to_the_camera(gsplat, seed):
    geometry, pose, k, opacities, colors = _view("pinhole", seed)
    inputs = (*geometry, pose, k, opacities, colors)
    tensors = _tensors(*inputs)
    _, (means2d, conics, depths, _) = _their_projection(gsplat, tensors[:5], "pinhole")
    with jax.enable_x64(True):
        shown = _project_once(*(jnp.asarray(i) for i in inputs[:6]))
    scene = dict(
        means2d=means2d.detach().numpy(),
        conics=conics.detach().numpy(),
        opacities=opacities,
        features=colors,
        extents=np.asarray(shown.extents),
        depths=depths.detach().numpy(),
    )
    image_cotangent, transmittance_cotangent, _ = scenes.safe_cotangents(scene, SIZE)
    expected = _their_image(gsplat, means2d, conics, tensors[5], tensors[6], _pairs(scene, SIZE), SIZE)
    wanted = _pulled_back(expected, (image_cotangent, transmittance_cotangent), tensors)

    def run(means, quaternions, scales, pose, k, opacities, colors):
        camera = _camera(pose, k, "pinhole")
        seen = rasterize(means, quaternions, scales, opacities, colors, camera, backend="reference")
        return seen.color, 1 - seen.alpha

    cotangents = [np.asarray(c, np.float64) for c in (image_cotangent, transmittance_cotangent)]
    outputs, gradients = _ours(run, inputs, cotangents)
    gradients[3], wanted[3] = gradients[3][:3], wanted[3][:3]
    gradients[4], wanted[4] = _without_skew(gradients[4]), _without_skew(wanted[4])
    _assert_close(outputs, expected, ["image", "transmittance"])
    _assert_close(gradients, wanted, ["means", "quaternions", "scales", "pose", "intrinsics", "opacities", "colors"])


@functools.partial(jax.jit)
def _project_once(means, quaternions, scales, pose, k, opacities):
    return project(means, quaternions, scales, opacities, _camera(pose, k, "pinhole"))
