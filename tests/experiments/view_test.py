"""The viewer: what it finds, reads and refuses, and that it listens on this machine only."""

import importlib.util
import pathlib
import socket
import urllib.request

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import view
from experiments.errors import InputError
from renderers.gaussians.formats import write_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.meshes.formats import write_mesh
from renderers.meshes.mesh import Mesh

TETRAHEDRON = Mesh(
    jnp.asarray([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    jnp.asarray([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)
needs_viser = pytest.mark.skipif(
    importlib.util.find_spec("viser") is None, reason="needs viser: pip install -e '.[viewer]'"
)


def _splats() -> Gaussians:
    return Gaussians(
        means=jnp.zeros((2, 3)),
        quaternions=jnp.asarray([[1.0, 0, 0, 0], [1, 0, 0, 0]]),
        log_scales=jnp.log(jnp.asarray([[0.1, 0.2, 0.3], [0.1, 0.1, 0.1]])),
        opacity_logits=jnp.zeros(2),
        sh=jnp.zeros((2, 1, 3)),
    )


def test_a_run_shows_all_that_it_left_behind(tmp_path):
    write_mesh(tmp_path / "asset.glb", TETRAHEDRON)
    write_splats(tmp_path / "splats.ply", _splats())
    assert [path.name for path in view.find_results(str(tmp_path))] == ["asset.glb", "splats.ply"]
    assert view.find_results(str(tmp_path / "asset.glb")) == [tmp_path / "asset.glb"]


def test_what_is_not_there_is_refused(tmp_path):
    for where, reason in (("", "--input"), (str(tmp_path / "no.glb"), "no such"), (str(tmp_path), "asset.glb")):
        with pytest.raises(InputError, match=reason):
            view.find_results(where)


def test_a_ply_file_is_taken_for_what_it_holds(tmp_path):
    from experiments import viewer

    write_mesh(tmp_path / "mesh.ply", TETRAHEDRON)
    write_splats(tmp_path / "splats.ply", _splats())
    assert viewer.load(tmp_path / "mesh.ply").summary.startswith("4 faces")
    assert viewer.load(tmp_path / "splats.ply").summary == "2 Gaussians"
    (tmp_path / "broken.glb").write_bytes(b"glTF")
    with pytest.raises(InputError, match="broken.glb"):
        viewer.load(tmp_path / "broken.glb")


def test_splats_reach_the_browser_as_they_are():
    from experiments import viewer

    centers, covariances, colors, opacities = viewer.splat_arrays(_splats())
    np.testing.assert_allclose(covariances[0], np.diag([0.01, 0.04, 0.09]), rtol=1e-5)
    np.testing.assert_allclose(colors, 0.5)
    assert centers.shape == (2, 3) and opacities.shape == (2, 1) and np.all(opacities == np.float32(0.5))


@needs_viser
def test_it_serves_this_machine_only_and_refuses_a_busy_port(tmp_path):
    from experiments import viewer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_mesh(tmp_path / "asset.glb", TETRAHEDRON)
    with viewer.Viewer("127.0.0.1", port, "+y") as server:
        server.show(viewer.load(tmp_path / "asset.glb"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert page.status == 200
        rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        addresses = {row[1] for row in rows if row[3] == "0A"}
        assert f"0100007F:{port:04X}" in addresses and f"00000000:{port:04X}" not in addresses
        with pytest.raises(InputError, match=f"port {port}"):
            viewer.Viewer("127.0.0.1", port, "+y")
