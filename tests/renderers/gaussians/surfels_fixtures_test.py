"""The surfel rasterizer against gsplat's PyTorch reference: images, normals, distortion, median depth, every gradient.

The files are made by tests/fixtures/make/surfels.py (trimmed copies, in the repository) or lie in shared/fixtures
(whole, run with `-m slow`). They hold float64 numbers for float32 inputs; their cotangents are zero where float32
could take another branch. Not compared: the skew entries of Ks' gradient, the last rows of the matrices, and the third
scale's gradient (gsplat's PyTorch code multiplies the normal by that scale, its kernels do not).
"""

import functools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.gaussians.surfel_projection import project_surfels
from renderers.gaussians.surfels import rasterize_surfels
from tests.helpers.shared import SHARED

COMMITTED = pathlib.Path(__file__).parents[2] / "fixtures" / "surfels"
WHOLE = SHARED / "fixtures" / "gaussians"
NAMES = ("rand_2dgs", "rand_2dgs_rgbd_bg")
ROWS = slice(3, None, 4)  # of the pixels, in the trimmed copies
# Error of images (times the largest depth for depths and distortion), and of gradients relative to the largest entry:
# issue 3, Shows 2, asks for 1e-8 and 1e-7 in float64. Measured: 6e-14 and 5e-14; in float32 2e-5 and 1.1e-4.
TOLERANCES = {"float64": (1e-9, 1e-8), "float32": (2e-5, 2e-4)}
BACKENDS = [("reference", "float64"), ("xla", "float64"), ("xla", "float32"), ("cpu", "float32")]


def load(name, folder=COMMITTED):
    """Configuration and arrays of a file; which pixels its images have."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as data:
        arrays = dict(data)
    config = types.SimpleNamespace(**json.loads(str(arrays.pop("config_json"))))
    shape = arrays["w_alphas"].shape[:3]
    if "safe" in arrays:
        arrays["safe"] = np.unpackbits(arrays["safe"], count=np.prod(shape)).reshape(shape).astype(bool)
        return config, arrays, ROWS
    arrays["safe"] = arrays["margin"] > 2e-4
    return config, arrays, slice(None)


def camera_of(config, inputs):
    k = inputs["Ks"][0]
    focal, principal = jnp.stack([k[0, 0], k[1, 1]]), jnp.stack([k[0, 2], k[1, 2]])
    return Camera(inputs["viewmats"][0], focal, principal, (config.height, config.width))


def surfels_of(inputs):
    return [inputs[name] for name in ("means", "quats", "scales", "opacities")]


def evaluate(config, arrays, backend, dtype):
    """Images by key of the file, and gradients of the file's loss."""
    with jax.enable_x64(True):
        inputs = {key[3:]: jnp.asarray(array, dtype) for key, array in arrays.items() if key.startswith("in_")}
        inputs["densification"] = jnp.zeros((len(arrays["in_means"]), 2), dtype)
        weights = {key: jnp.asarray(arrays[f"w_{key}"][0], dtype) for key in ("colors", "alphas", "normals")}

        def loss(inputs):
            camera = camera_of(config, inputs)
            seen = rasterize_surfels(
                *surfels_of(inputs),
                inputs["colors"],
                camera,
                background=inputs["backgrounds"][0] if "backgrounds" in inputs else None,
                near=config.near,
                far=config.far,
                densification_probe=inputs["densification"],
                backend=backend,
            )
            colors = [seen.color] + ([seen.depth[..., None]] if config.mode == "RGB+D" else [])
            rotation = camera.camera_from_world[:3, :3]
            images = {
                "colors": jnp.concatenate(colors, -1),
                "alphas": seen.alpha[..., None],
                "normals": jnp.einsum("ij,hwj->hwi", rotation, seen.normal, precision="highest"),
            }
            total = sum((images[key] * weights[key]).sum() for key in weights)
            return total, images | {"distort": seen.distortion[..., None], "median_depth": seen.median_depth[..., None]}

        (_, images), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
        assert {leaf.dtype for leaf in jax.tree.leaves((images, gradients))} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, (images, gradients))


def comparable(name, gradient):
    """The entries of a gradient that have a counterpart."""
    if name == "viewmats":
        return gradient[:, :3]
    if name == "Ks":
        return np.stack([gradient[:, 0, 0], gradient[:, 1, 1], gradient[:, 0, 2], gradient[:, 1, 2]], -1)
    return gradient[:, :2] if name == "scales" else gradient


def expected_densification(arrays):
    """gsplat's `gradient_2dgs`: gradient of M_u and M_v at the centre, times M_w there."""
    return arrays["pg_grad_ray_transforms"][0][:, :2, 2] * arrays["pg_ray_transforms"][0][:, 2:, 2]


def check(name, backend, dtype, folder=COMMITTED):
    config, arrays, rows = load(name, folder)
    images, gradients = evaluate(config, arrays, backend, dtype)
    image, largest = TOLERANCES[dtype]
    safe = arrays["safe"][0, rows]
    farthest = arrays["pg_depths"].max()
    for key, found in images.items():
        expected = arrays[f"out_{key}" if f"out_{key}" in arrays else f"derived_{key}"][0]
        scale = np.ones(expected.shape[-1])
        if key in ("distort", "median_depth") or expected.shape[-1] == 4:
            scale[-1] = farthest
        error = (np.abs(found[rows] - expected) / scale)[safe].max()
        assert error <= image, f"{key} is off by {error}"
    assert images["distort"].max() > 1, "or distortion would not be tested"
    wanted = {key[5:]: array for key, array in arrays.items() if key.startswith("grad_")}
    for key, expected in (wanted | {"densification": expected_densification(arrays)}).items():
        found, expected = comparable(key, gradients[key]), comparable(key, expected)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error <= largest, f"gradient of {key} is off by {error}"


@pytest.mark.parametrize(
    ("name", "backend", "dtype"),
    [
        ("rand_2dgs", "reference", "float64"),
        ("rand_2dgs_rgbd_bg", "xla", "float64"),
        ("rand_2dgs_rgbd_bg", "xla", "float32"),
        ("rand_2dgs", "cpu", "float32"),
        ("rand_2dgs_rgbd_bg", "cpu", "float32"),
    ],
)
def test_equals_gsplat(name, backend, dtype):
    check(name, backend, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_every_whole_file_equals_gsplat(name, backend, dtype):
    if not WHOLE.exists():
        pytest.skip(f"needs {WHOLE}, which is not part of the repository")
    check(name, backend, dtype, WHOLE)
    jax.clear_caches()


@functools.partial(jax.jit, static_argnums=(2, 3))
def _project(surfels, camera, near, far):
    return project_surfels(*surfels, camera, near=near, far=far)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_projection_equals_gsplat(name, dtype):
    config, arrays, _ = load(name)
    with jax.enable_x64(True):
        inputs = {key[3:]: jnp.asarray(array, dtype) for key, array in arrays.items() if key.startswith("in_")}
        camera = camera_of(config, inputs)
        seen = jax.tree.map(np.asarray, _project(surfels_of(inputs), camera, config.near, config.far))
        rotation = np.asarray(camera.camera_from_world)[:3, :3]
    shown = (arrays["pg_radii"][0] > 0).all(1)
    assert 0.5 < shown.mean() < 1, "some must be culled"
    np.testing.assert_array_equal((seen.radii > 0).all(1), shown)
    # a float32 extent may round to the other side of an integer
    assert np.abs(seen.radii - arrays["pg_radii"][0])[shown].max() <= (dtype == "float32")
    tolerance = {"float64": 1e-12, "float32": 3e-6}[dtype]
    for found, key in (
        (seen.transforms, "pg_ray_transforms"),
        (seen.means2d, "pg_means2d"),
        (seen.depths, "pg_depths"),
        (seen.normals @ rotation.T, "pg_normals"),
    ):
        expected = arrays[key][0][shown]
        error = np.abs(found[shown] - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"{key} is off by {error}"
    for found in (seen.transforms, seen.means2d, seen.normals, seen.opacities):
        assert not found[~shown].any()
