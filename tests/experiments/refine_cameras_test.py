"""The program on a tiny capture of nerf_synthetic's chair: results, going on after a stop, refusals."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import media, refine_cameras, workdir
from experiments.config_fields import RuntimeConfig
from experiments.data.captures import load_capture
from experiments.errors import InputError
from experiments.splats import refinement
from experiments.splats.refinement_settings import RefineConfig
from renderers.cameras.camera import Camera
from renderers.cameras.conversions import to_opengl
from renderers.cameras.trajectories import orbit
from renderers.gaussians.formats import read_splats
from renderers.gaussians.rasterize import render

CHAIR = pathlib.Path(__file__).parents[1] / "fixtures/splats/nerf_synthetic_chair.spz"
SIZE, RADIUS, FOCAL = (48, 48), 4.03, 66.7
# Off by 1 degree and so on, as in the issue; 48 pixels are few, and photographs have 8 bits.
DISTURBED = {"perturb_degrees": 1.0, "perturb_translation": 0.01, "perturb_focal": 0.02}


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Three photographs of the chair, made from its splats."""
    folder = tmp_path_factory.mktemp("capture")
    frames = []
    poses = np.asarray(orbit(3, RADIUS, elevation=0.5, target=jnp.zeros(3), up=jnp.asarray([0.0, 0.0, 1.0])))
    for number, pose in enumerate(poses):
        camera = Camera(jnp.asarray(pose), jnp.full(2, FOCAL), jnp.asarray([24.0, 24.0]), SIZE)
        image = jnp.clip(render(read_splats(CHAIR), camera, background=jnp.ones(3)).color, 0, 1)
        media.write_png(folder / f"{number}.png", np.asarray(image))
        transform = np.asarray(to_opengl(jnp.asarray(pose))).tolist()
        frames.append({"file_path": f"{number}.png", "transform_matrix": transform})
    intrinsics = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": 24.0, "cy": 24.0, "w": SIZE[1], "h": SIZE[0]}
    workdir.write_json_atomic(folder / "transforms.json", {**intrinsics, "frames": frames})
    return folder


def _config(capture, folder, **changes):
    options = {"splats": str(CHAIR), "data": str(capture), "levels": 1, "background": "white", **DISTURBED, **changes}
    return RefineConfig(workdir=str(folder), runtime=RuntimeConfig(compilation_cache="off"), **options)


@pytest.fixture(scope="module")
def finished(capture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert refine_cameras.main(_config(capture, folder)) == 0
    return folder


@pytest.mark.slow
def test_numbers_and_report(finished):
    numbers = json.loads((finished / "metrics.json").read_text())
    assert numbers["views"] == 3 and numbers["seconds"] > 0 and numbers["steps"] > 6
    for error, before in (("rotation_degrees", 1.0), ("translation", 0.01), ("focal", 0.02)):
        assert numbers[f"{error}_before"] == pytest.approx(before, rel=2e-3)
        assert numbers[f"{error}_worst_after"] < 0.1 * before, error
    assert numbers["psnr_after"] > numbers["psnr_before"] + 20
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    page = (finished / "report.html").read_text()
    assert page.count("<figcaption>") >= 3 and page.count("<svg") == 4


def test_the_refined_capture_can_be_loaded_and_holds_the_true_cameras(finished, capture):
    refined, true = load_capture(finished), load_capture(capture)
    assert refined.names == true.names
    np.testing.assert_allclose(refined.camera_from_world, true.camera_from_world, atol=5e-3)
    np.testing.assert_allclose(refined.focal, true.focal, rtol=2e-3)
    for one, other in zip(refined.images, true.images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stopped_run_goes_on_where_it_was(finished, capture, tmp_path):
    whole = json.loads((finished / "refined.json").read_text())
    assert refine_cameras.main(_config(capture, tmp_path, max_seconds=1e-3)) == 0  # time for one view
    assert len(refinement.read_done(tmp_path)) == 1
    assert refine_cameras.main(_config(capture, tmp_path, resume=True)) == 0
    again = json.loads((tmp_path / "refined.json").read_text())
    for one, other in zip(again, whole, strict=True):
        assert one["camera_from_world"] == other["camera_from_world"] and one["focal"] == other["focal"]
    with pytest.raises(InputError, match="holds other views"):
        refine_cameras.main(_config(capture, tmp_path, resume=True, views="1.png"))


def test_a_scene_s_own_renders_are_explained_to_rounding(capture, tmp_path):
    assert refine_cameras.main(_config(capture, tmp_path, against="renders", views="2")) == 0
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["psnr_after"] > 70 and numbers["rotation_degrees_after"] < 1e-2


def test_disturbances_differ_by_view_and_follow_from_the_seed(capture, tmp_path):
    loaded = load_capture(capture)
    run = refinement.Refinement(loaded, _config(capture, tmp_path))
    again = refinement.Refinement(loaded, _config(capture, tmp_path))
    other = refinement.Refinement(loaded, _config(capture, tmp_path, seed=1))
    moves = [np.asarray(r.start(v).camera_from_world) for r, v in ((run, 0), (again, 0), (other, 0), (run, 1))]
    np.testing.assert_array_equal(moves[0], moves[1])
    assert not np.allclose(moves[0], moves[2]) and not np.allclose(moves[0], moves[3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splats": None}, "--splats is needed"),
        ({"splats": "nowhere.ply"}, "nowhere.ply"),
        ({"views": "7.png"}, "--views: no view is called '7.png'"),
        ({"views": ","}, "names no view"),
    ],
)
def test_refusals_are_one_line(capture, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as refused:
        refinement.Refinement(load_capture(capture), _config(capture, tmp_path, **changes))
    assert "\n" not in str(refused.value)


def test_a_camera_that_sees_nothing_is_named(capture, tmp_path):
    loaded = load_capture(capture)
    loaded.camera_from_world[1, :3, 3] += [0.0, 0.0, -50.0]
    run = refinement.Refinement(loaded, _config(capture, tmp_path, views="1.png"))
    with pytest.raises(InputError, match="1.png: its camera sees none of the splats"):
        run.run(tmp_path, [], lambda count: False, lambda refined, count: None)


def test_the_frame_of_a_capture_survives_the_round_trip(capture, tmp_path):
    """A camera that is refined by nothing comes back as it was."""
    loaded = load_capture(capture)
    run = refinement.Refinement(loaded, _config(capture, tmp_path))
    camera = jax.tree.map(jnp.asarray, run._cameras[2])
    pose, focal, principal = run._in_capture(camera)
    np.testing.assert_allclose(pose, loaded.camera_from_world[2], atol=1e-5)
    same = run.end(refinement.Refined("", pose, focal, principal, {}, {}), 2)
    np.testing.assert_allclose(same.camera_from_world, camera.camera_from_world, atol=1e-6)
