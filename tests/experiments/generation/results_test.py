import dataclasses
import json
import time

import av
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generation import results
from experiments.generation.settings import TextTo3dConfig
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh, plain_material


class NoStop:
    requested = False

    def exit_if_requested(self):
        pass


def cube(color):
    corners = np.array([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    return Mesh(
        jnp.asarray(corners),
        jnp.asarray(faces),
        uv=jnp.asarray([[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], jnp.float32),
        uv_faces=jnp.tile(jnp.asarray([[0, 1, 2]], jnp.int32), (12, 1)),
        texture=jnp.broadcast_to(jnp.asarray(color, jnp.float32), (8, 8, 3)),
        material=plain_material(roughness=0.5),
    )


def test_results_hold_the_asset(tmp_path):
    asset = results.Asset(mesh=cube([1.0, 0.0, 0.0]), numbers={"agreement": 0.5}, notes=("a <remark>",))
    config = TextTo3dConfig(prompt="a red <box>", turntable_frames=3, turntable_size=32)
    results.write_asset(tmp_path, asset, config, NoStop(), began=time.monotonic() - 5)
    back = read_mesh(tmp_path / "asset.glb")
    low, high = np.asarray(back.vertices).min(0), np.asarray(back.vertices).max(0)
    np.testing.assert_allclose([low, high], [[-0.3] * 3, [0.3] * 3], atol=1e-6)
    assert back.material is not None and back.texture is not None and back.normals is not None
    assert float(back.material.roughness) == pytest.approx(0.5) and float(back.material.metallic) == 0
    np.testing.assert_allclose(np.asarray(back.texture)[..., :3].mean((0, 1)), [1, 0, 0], atol=0.01)
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["watertight"] == 1 and numbers["num_faces"] == 12 and numbers["agreement"] == 0.5
    assert numbers["seconds"] >= 5 and (numbers["route"], numbers["prompt"]) == ("mesh", "a red <box>")
    page = (tmp_path / "report.html").read_text()
    assert "a red &lt;box&gt;" in page and "a &lt;remark&gt;" in page
    with av.open(str(tmp_path / "turntable.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 3
    for frame in frames:
        middle, corner = frame[12:20, 12:20].reshape(-1, 3).mean(0), frame[0, 0].astype(float)
        assert middle[0] > 2 * middle[1:].max()  # the red cube
        assert np.ptp(corner) < 12 and corner.min() > 180  # before a light, grey background


def test_only_what_is_ever_seen_is_rendered_and_the_picture_is_the_same(monkeypatch):
    mesh = dataclasses.replace(cube([0.2, 0.5, 0.9]), vertices=cube([0.0] * 3).vertices * jnp.array([[0.3, 1.0, 0.5]]))
    rendered = []
    lit = results._lit
    monkeypatch.setattr(results, "_lit", lambda *args: rendered.append(args[1].shape) or lit(*args))
    part = results.turntable(mesh, 2, 48, NoStop())
    monkeypatch.setattr(results, "_window", lambda *_: (slice(0, 48), slice(0, 48)))
    whole = results.turntable(mesh, 2, 48, NoStop())
    assert rendered[0][0] * rendered[0][1] < 0.6 * 48 * 48 == 0.6 * rendered[2][0] * rendered[2][1]
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_allclose(one.astype(int), other, atol=1)
