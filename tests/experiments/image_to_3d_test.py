"""A picture to an asset from end to end, with a transformer that sees an octahedron in all of them."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import image_to_3d
from experiments.errors import EXIT_OK, InputError
from experiments.generation.image_settings import ImageTo3dConfig
from experiments.generation.single_pass_settings import SinglePassConfig
from experiments.single_pass.weights import save_single_pass
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import enclosed_volume
from tests.experiments.single_pass.octahedron import RADIUS, octahedron


def _config(tmp_path, **rest):
    weights = SinglePassConfig(weights=str(tmp_path / "w.safetensors"), resolution=40, texture=64, faces=800)
    return ImageTo3dConfig(workdir=str(tmp_path / "run"), turntable_frames=0, single_pass=weights, **rest)


@pytest.mark.slow
def test_a_picture_becomes_an_asset(tmp_path):
    save_single_pass(tmp_path / "w.safetensors", octahedron())
    picture = np.full((50, 60, 3), 220, np.uint8)
    picture[15:35, 20:45] = (200, 30, 30)
    Image.fromarray(picture).save(tmp_path / "p.jpg", quality=95)
    assert image_to_3d.main(_config(tmp_path, image=str(tmp_path / "p.jpg"))) == EXIT_OK
    run = tmp_path / "run"
    mesh = read_mesh(run / "asset.glb")
    assert float(enclosed_volume(mesh.vertices, mesh.faces)) == pytest.approx(4 / 3 * RADIUS**3, rel=0.06)
    assert mesh.texture is not None and mesh.material is not None
    final = json.loads((run / "metrics.json").read_text())
    assert final["seconds"] > final["shape_seconds"] > 0
    assert (run / "report.html").is_file()
    shown = np.asarray(Image.open(run / "previews" / "input.png"))
    red = (shown[..., 0] > 150) & (shown[..., 1] < 90)
    assert red.any(0).sum() / len(shown) == pytest.approx(0.56, abs=0.05)  # framed; of the edges' pixels some are mixed


def test_nothing_is_written_where_the_input_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        image_to_3d.main(_config(tmp_path, image=str(tmp_path / "none.png")))
    Image.new("RGBA", (32, 32), (255, 0, 0, 128)).save(tmp_path / "p.png")
    with pytest.raises(InputError, match=r"w\.safetensors"):
        image_to_3d.main(_config(tmp_path, image=str(tmp_path / "p.png")))
    assert not (tmp_path / "run").exists()
