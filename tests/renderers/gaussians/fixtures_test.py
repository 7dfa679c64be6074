"""The rasterizer against gsplat's PyTorch reference: images, alphas and every gradient, the camera's included.

The files are made by tests/fixtures/make/gaussians.py (trimmed copies, in the repository) or lie
in shared/fixtures (whole, run with `-m slow`); `gsplat_files.py` says what they hold.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.gaussians.projection import project
from tests.helpers.shared import SHARED
from tests.renderers.gaussians.gsplat_files import COMMITTED, RADIUS_SLACK, TOLERANCES, camera_of, errors, load

WHOLE = SHARED / "fixtures" / "gaussians"


def check(name, backend, dtype, folder=COMMITTED):
    image, largest = TOLERANCES[dtype]
    for part, error in errors(*load(name, folder), backend, dtype).items():
        allowed = image if part in ("colors", "alphas") else largest
        assert error <= allowed, f"{part} is off by {error}, allowed {allowed}"


# Each file in float64 and in float32 once, every backend on several; the slow test runs all of them.
@pytest.mark.parametrize(
    ("name", "backend", "dtype"),
    [
        ("extreme_a", "reference", "float64"),
        ("rand_sh2", "reference", "float64"),
        ("rand_antialiased_bg", "xla", "float64"),
        ("rand_fisheye", "xla", "float64"),
        ("extreme_a", "xla", "float32"),
        ("extreme_a", "cpu", "float32"),
        ("rand_antialiased_bg", "cpu", "float32"),
        ("rand_ed", "cpu", "float32"),
        ("rand_fisheye", "cpu", "float32"),
        ("rand_ortho", "cpu", "float32"),
        ("rand_sh2", "cpu", "float32"),
    ],
)
def test_equals_gsplat(name, backend, dtype):
    check(name, backend, dtype)


def whole_files():
    names = sorted(path.stem for path in WHOLE.glob("*.npz") if "2dgs" not in path.stem)
    reason = f"needs {WHOLE}, which is not part of the repository"
    return names or [pytest.param("-", marks=pytest.mark.skip(reason=reason))]


@pytest.mark.slow
@pytest.mark.parametrize("name", whole_files())
@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", "float64"), ("xla", "float64"), ("xla", "float32"), ("cpu", "float32")]
)
def test_every_whole_file_equals_gsplat(name, backend, dtype):
    check(name, backend, dtype, WHOLE)
    jax.clear_caches()


@functools.partial(jax.jit, static_argnums=2)
def _project(inputs, camera, options):
    arrays = (inputs[name] for name in ("means", "quats", "scales", "opacities"))
    return project(*arrays, camera, **dict(options))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", sorted(path.stem for path in COMMITTED.glob("*.npz")))
def test_projection_equals_gsplat(name, dtype):
    config, arrays = load(name)
    with jax.enable_x64(True):
        inputs = {key[3:]: jnp.asarray(array, dtype) for key, array in arrays.items() if key.startswith("in_")}
        camera = camera_of(config, inputs, 0)
        options = (("antialias", config.aa), ("blur", config.eps2d), ("near", config.near), ("far", config.far))
        seen = _project(inputs, camera, options)
        seen = jax.tree.map(np.asarray, seen)
    radii = arrays["pg_radii_opacity_aware"][0]
    shown = (radii > 0).all(1)
    ours = (seen.radii > 0).all(1)
    assert (shown == ours).mean() > (0.99 if dtype == "float32" else 0.9999)
    assert np.abs(seen.radii - radii)[shown & ours].max() <= RADIUS_SLACK[dtype]
    # float32: ten roundings, of a centre as large as the image and, inverting, times the ellipse's condition number
    rtol = {"float64": 1e-10, "float32": 2e-6}[dtype]
    a, b, c = arrays["pg_conics"][0][shown & ours].T
    condition = (a + c) ** 2 / (a * c - b * b)
    for ours_all, key, amplified in (
        (seen.means2d, "pg_means2d", 1.0),
        (seen.conics, "pg_conics", condition),
        (seen.depths[:, None], "pg_depths", 1.0),
    ):
        expected = arrays[key][0].reshape(ours_all.shape)[shown & ours]
        error = np.abs(ours_all[shown & ours] - expected).max(-1) / np.abs(expected).max(-1)
        assert (error <= rtol * amplified).all(), f"{key} is off by {error.max()}"
    if "pg_compensations" in arrays:
        expected = arrays["in_opacities"] * arrays["pg_compensations"][0]
        np.testing.assert_allclose(seen.opacities[shown], expected[shown], rtol=100 * rtol)
    assert not seen.means2d[~ours].any() and not seen.conics[~ours].any() and not seen.opacities[~ours].any()
