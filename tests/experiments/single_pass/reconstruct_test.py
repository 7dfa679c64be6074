"""From planes to a textured mesh, on a field that is known in closed form; and the file of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import rendering
from experiments.errors import InputError
from experiments.single_pass import evaluation, model, reconstruct
from experiments.single_pass.weights import load_single_pass, save_single_pass
from renderers.meshes.connectivity import is_watertight
from renderers.meshes.mesh import enclosed_volume
from tests.experiments.single_pass.octahedron import RADIUS, octahedron


@pytest.fixture(scope="module")
def rebuilt():
    trained = octahedron()
    cameras = rendering.ring_cameras(0.0, rendering.ELEVATION, views=1, size=32)
    planes = reconstruct.planes_of(trained, np.zeros((1, 32, 32, 8), np.float32), cameras)
    return trained, planes, reconstruct.surface(trained, planes, resolution=48)


def test_planes_lie_along_xy_xz_and_zy():
    middles = ((np.arange(32) + 0.5) / 32 * 2 - 1) * model.HALF
    along_rows, along_columns = (np.broadcast_to(m, (3, 32, 32)) for m in (middles[:, None], middles[None]))
    planes = np.stack([along_columns, along_rows], axis=-1)[None].astype(np.float32)
    points = np.array([[[0.3, -0.2, 0.1], [-0.45, 0.4, 0.05]]], np.float32)
    x, y, z = points[0].T
    np.testing.assert_allclose(jax.jit(model.features_at)(planes, points)[0].T, [x, y, x, z, z, y], atol=1e-6)


def test_the_surface_is_that_of_the_field(rebuilt):
    trained, planes, mesh = rebuilt
    points = jnp.array([[0.4, 0.0, 0.0], [0.2, 0.2, 0.2], [0.05, -0.1, 0.0]])
    np.testing.assert_allclose(reconstruct.distances_at(trained, planes, points), [0.0, 0.2, -0.25], atol=0.035)
    assert is_watertight(np.asarray(mesh.faces))
    # |x| between the texels beside 0 is that of the texels: half a texel, the corners are cut by as much
    assert float(enclosed_volume(mesh.vertices, mesh.faces)) == pytest.approx(4 / 3 * RADIUS**3, rel=0.05)
    np.testing.assert_allclose(np.abs(np.asarray(mesh.vertices)).sum(-1), RADIUS, atol=0.035)


def test_the_texture_is_the_field_of_colours(rebuilt):
    trained, planes, surface = rebuilt
    mesh = reconstruct.painted(trained, planes, surface, faces=600, texture=128)
    assert len(mesh.faces) <= 600 and mesh.material is not None
    assert mesh.uv is not None and mesh.uv_faces is not None and mesh.texture is not None
    corners = np.asarray(mesh.uv)[np.asarray(mesh.uv_faces)].mean(1)
    middles = np.asarray(mesh.vertices)[np.asarray(mesh.faces)].mean(1)
    texture = np.asarray(mesh.texture)
    row = np.clip(((1 - corners[:, 1]) * 128).astype(int), 0, 127)
    column = np.clip((corners[:, 0] * 128).astype(int), 0, 127)
    clear = np.abs(middles[:, 0]) > 0.08
    found = texture[row, column][clear]
    np.testing.assert_allclose(found[:, 0], middles[clear, 0] > 0, atol=0.02)
    assert found[:, 1:].max() < 0.01


def test_an_empty_field_is_refused_in_one_line(rebuilt):
    trained, planes, _ = rebuilt
    with pytest.raises(InputError, match="no object"):
        reconstruct.surface(trained, planes + 10.0, resolution=16)


def test_weights_come_back_as_they_were_to_half_precision(tmp_path, rebuilt):
    trained, planes, _ = rebuilt
    save_single_pass(tmp_path / "w.safetensors", trained)
    read = load_single_pass(str(tmp_path / "w.safetensors"))
    assert read.settings == trained.settings and read.about == {"made": "by hand"}
    points = jnp.array([[0.2, 0.1, 0.0], [0.1, -0.1, 0.3]])
    np.testing.assert_allclose(
        reconstruct.distances_at(read, planes, points), reconstruct.distances_at(trained, planes, points), atol=2e-3
    )


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "not finite"])
def test_weights_that_are_none_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    trained = octahedron()
    if damage == "not finite":
        trained.params["read_out"]["bias"].set_value(jnp.full(4, jnp.nan))
        with pytest.raises(ValueError, match="half precision"):
            save_single_pass(path, trained)
        return
    if damage != "missing":
        save_single_pass(path, trained)
        content = path.read_bytes()
        other = content.replace(b"tri-plane transformer 1", b"tri-plane transformer 9")
        path.write_bytes(content[:-100] if damage == "cut" else other)
    with pytest.raises(InputError) as caught:
        load_single_pass(str(path))
    assert "\n" not in str(caught.value) and "w.safetensors" in str(caught.value)


def test_unseen_cameras_see_no_view_that_is_given():
    given = rendering.ring_cameras(0.0, rendering.ELEVATION, views=4, size=32).camera_from_world
    unseen = np.stack([np.asarray(camera.camera_from_world) for camera in evaluation.unseen_cameras()])
    assert len(unseen) == 8
    assert np.abs(unseen[:, None] - np.asarray(given)[None]).max((2, 3)).min() > 0.3
