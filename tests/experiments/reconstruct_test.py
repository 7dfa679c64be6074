"""Splats on a sphere become a sphere: its radius, its colours, its files; and refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import reconstruct
from experiments.config_fields import RuntimeConfig
from experiments.errors import InputError
from experiments.reconstruction import pictures, surface
from experiments.reconstruction.settings import ReconstructConfig
from renderers.gaussians.formats import write_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.harmonics import BAND_0
from renderers.meshes import connectivity
from renderers.meshes.formats import read_mesh

RADIUS, CENTER = 0.5, np.array([1.0, -2.0, 0.5])


def _ball(count: int = 1500) -> Gaussians:
    """Small opaque splats all over a sphere, coloured by place."""
    i = np.arange(count) + 0.5
    height, turn = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - height**2)
    normals = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], -1)
    return Gaussians(
        means=jnp.asarray(CENTER + RADIUS * normals, jnp.float32),
        quaternions=jnp.tile(jnp.asarray([1.0, 0, 0, 0]), (count, 1)),
        log_scales=jnp.full((count, 3), np.log(0.018), jnp.float32),
        opacity_logits=jnp.full(count, 3.0),
        sh=jnp.asarray(0.4 * normals[:, None] / BAND_0, jnp.float32),
    )


def _config(folder, **changes):
    options = {
        "input": str(folder / "ball.ply"),
        "workdir": str(folder / "run"),
        "views": 12,
        "test_views": 2,
        "image_size": 64,
        "elevation": (-90.0, 90.0),
        "resolution": 40,
        "texture": 128,
        "faces": 3000,
        "steps": 4,
        "turntable_frames": 2,
        "runtime": RuntimeConfig(compilation_cache="off"),
    }
    return ReconstructConfig(**{**options, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruct")
    write_splats(folder / "ball.ply", _ball())
    assert reconstruct.main(_config(folder)) == 0
    return folder / "run"


def test_the_mesh_is_the_sphere_in_the_frame_of_the_splats(run):
    mesh = read_mesh(run / "asset.glb")
    radii = np.linalg.norm(np.asarray(mesh.vertices) - CENTER, axis=1)
    cell = 2.2 * RADIUS / 40  # of the grid, which is what the shape is known to
    assert abs(radii.mean() - RADIUS) < 0.5 * cell and radii.std() < 1.1 * cell
    numbers = json.loads((run / "metrics.json").read_text())
    assert numbers["num_faces"] <= 3000
    assert numbers["psnr"] > 18.5  # of 64 pixels the outline, where splats are soft, is a large part


def test_the_texture_is_where_the_colours_are(run):
    mesh = read_mesh(run / "asset.glb")
    texture, uv = np.asarray(mesh.texture), np.asarray(mesh.uv)
    height, width = texture.shape[:2]
    rows = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    columns = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    normals = (np.asarray(mesh.vertices) - CENTER) / RADIUS
    error = np.abs(texture[rows, columns, :3] - (0.5 + 0.4 * normals))
    assert np.median(error) < 0.04


def test_pictures_for_people(run):
    assert (run / "report.html").read_text().count("<figcaption>") >= 2
    assert list(run.glob("turntable.*"))


def test_the_surface_of_the_local_density(tmp_path):
    config = _config(tmp_path, method="density", level=0.2)
    ball = _ball()
    shape = surface.density_shape(ball, pictures.splat_extent(ball), config)
    radii = np.linalg.norm(np.asarray(shape.vertices) - CENTER, axis=1)
    assert connectivity.is_watertight(np.asarray(shape.faces))
    assert radii.max() < RADIUS + 4 * 0.018 and radii.min() > RADIUS - 4 * 0.018


def test_stray_splats_do_not_widen_the_box():
    ball = _ball()
    moved = np.array(ball.means)
    moved[0] = 100.0
    far = Gaussians(
        means=jnp.asarray(moved),
        quaternions=ball.quaternions,
        log_scales=ball.log_scales,
        opacity_logits=ball.opacity_logits,
        sh=ball.sh,
    )
    box = pictures.splat_extent(far)
    assert (box[1] - box[0]).max() < 2.4 * RADIUS


def test_input_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path):
    for name in ("", "missing.ply"):
        with pytest.raises(InputError, match="nothing is there"):
            reconstruct.main(_config(tmp_path, input=name and str(tmp_path / name)))
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(InputError, match="text.ply"):
        reconstruct.main(_config(tmp_path, input=str(tmp_path / "text.ply")))
    assert not (tmp_path / "run").exists()
