"""The experiment: results, resuming, refusals; the fit as a function; targets; textures."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import errors, fit_mesh, preemption, progress, runtime
from experiments.cadence import Cadence
from experiments.surfaces import fit, program, shapes, targets
from experiments.surfaces.settings import MeshFitConfig, ShapeConfig, TextureConfig
from experiments.surfaces.texture import fit_texture
from renderers.meshes import connectivity
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh, face_normals
from renderers.meshes.metrics import compare_surfaces
from renderers.meshes.rasterize import rasterize_mesh
from renderers.meshes.remeshing import RemeshingRates
from renderers.meshes.render import render_mesh
from tests.helpers.programs import run_module
from tests.reliability import drivers


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Programs are many and run for seconds only: without LLVM's costly passes."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


_SHORT = dict(
    steps=24,
    views=6,
    test_views=2,
    resolution=64,
    coarse=0.0,
    batch=3,
    turntable_frames=2,
    shape=ShapeConfig(shortest_edge=0.05),
    texture=TextureConfig(size=128, sweeps=3),
    cadence=Cadence(log_every=1, evaluate_every=12, preview_every=12, checkpoint_every=5),
)


def _run(folder, *, stop_after=None, resume=False) -> int:
    """The program in this process, where programs once compiled stay; as if a signal came after some step."""
    stop, moved = preemption.StopSignal(), progress.Progress.update

    def update(self, step, values=None):
        moved(self, step, values)
        if stop_after is not None and step >= stop_after:
            stop.request("the test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "setup", lambda config: runtime.Processes(index=0, count=1))
        patch.setattr(progress.Progress, "update", update)
        return fit_mesh._run(MeshFitConfig(workdir=str(folder), resume=resume, **_SHORT), stop)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert _run(folder) == 0
    return folder


def test_results_are_all_there(unbroken):
    numbers = json.loads((unbroken / "metrics.json").read_text())
    lines = drivers.read_lines(unbroken)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 24 and np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    # the sphere to start from is 0.05 away; a pixel is 0.03
    assert numbers["chamfer_l1"] < 0.02 and numbers["f_score_0.01"] > 0.4 and numbers["normal_consistency"] > 0.85
    assert numbers["mask_iou"] > 0.93 and numbers["psnr_object"] > 25 and numbers["steps"] == 24
    asset = read_mesh(unbroken / "asset.glb")
    assert asset.texture is not None and asset.texture.shape[:2] == (128, 128)
    assert len(asset.faces) == numbers["num_faces"] > 500
    # in the frame of the data: the demo is a ball of radius about 1
    assert 0.8 < np.abs(np.asarray(asset.vertices)).max() < 1.3
    report = (unbroken / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "") and report.count("data:image/") >= 4
    assert (unbroken / "turntable.mp4").stat().st_size > 500
    assert len(list((unbroken / "renders").glob("*.png"))) == 2
    assert len(list((unbroken / "previews").glob("*.png"))) == 2


def test_stopped_and_resumed_is_bit_equal(unbroken, tmp_path):
    run = tmp_path / "run"
    assert _run(run, stop_after=13) == errors.EXIT_STOPPED
    assert 13 <= drivers.newest_step(run) < 20
    assert _run(run, resume=True) == 0
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(unbroken)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(unbroken)
    assert drivers.leftovers(run) == []


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(tmp_path):
    flags = ["--steps=24", "--views=6", "--test_views=2", "--resolution=64", "--coarse=0", "--batch=3"]
    flags += ["--texture.size=0", "--turntable_frames=0", "--cadence.checkpoint_every=5", "--cadence.log_every=1"]
    command = ["-m", "experiments.fit_mesh", *flags]
    whole, run = tmp_path / "whole", tmp_path / "run"
    ended = drivers.run([*command, f"--workdir={whole}"], tmp_path / "log")
    assert ended.code == 0, ended.err
    assert len(drivers.run_killed_until_done(command, run, ["saving", 0.3], tmp_path / "log")) == 2
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(whole)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(whole)


def test_bad_flags_are_one_line_and_code_2(tmp_path):
    ended = run_module("experiments.fit_mesh", "--shape.shortest_edge=0.5", f"--workdir={tmp_path / 'run'}")
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert ended.returncode == 2 and len(lines) == 1 and "shortest_edge" in lines[0], ended.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(data="/nowhere/shape.obj"), "/nowhere/shape.obj"),
        (dict(data="/nowhere/capture"), "captures have masks and colours"),
        (dict(data="/nowhere/capture", target="masks"), "/nowhere/capture"),
        (dict(data="demo", init="/nowhere/start.glb"), "--init=/nowhere/start.glb"),
    ],
)
def test_unusable_data_is_said_in_one_line(settings, words):
    config = MeshFitConfig(views=1, test_views=0, resolution=16, **settings)
    with pytest.raises(errors.InputError, match=words) as caught:
        program.MeshFit(targets.load_targets(config), config).init()
    assert "\n" not in str(caught.value)


def _rendered(views=6, **settings) -> targets.Targets:
    return targets.load_targets(MeshFitConfig(views=views, test_views=0, resolution=64, **settings))


def test_fit_surface_finds_the_shape_from_normals_and_masks():
    """The demo from a sphere, as a library function: what the text-to-3D route calls."""
    found = _rendered()
    views = targets.chosen_views(found.train, list(range(6)), normals=True, colors=False, depths=False)
    rates, seen = RemeshingRates(shortest=0.06, longest=0.12, smoothing=0.02), []
    start = shapes.sphere(0.5, 2)
    truth = found.truth
    vertices, faces = fit.fit_surface(
        *start, jax.tree.map(jnp.asarray, views), steps=30, rates=rates, progress=lambda _, terms: seen.append(terms)
    )
    assert seen[-1]["loss"] < 0.4 * seen[0]["loss"]

    def error(vertices, faces):
        key = jax.random.key(0)
        return compare_surfaces(key, vertices, faces, truth.vertices, truth.faces, count=5000).chamfer_l1

    before, after = error(*start), error(vertices, faces)
    assert after < 0.02 and after < 0.4 * before, (before, after)
    assert connectivity.is_watertight(faces) and connectivity.euler_characteristic(faces) == 2


@pytest.mark.slow
def test_targets_show_the_world_frame():
    """Of a box seen from the front the normal is +Z, from the right +X, from above +Y; colours are those of a side."""
    import trimesh

    box = trimesh.creation.box((1.0, 1.0, 1.0)).subdivide().subdivide().subdivide()
    vertices, faces = jnp.asarray(box.vertices, jnp.float32) * 3 + 5, jnp.asarray(box.faces)
    config = MeshFitConfig(views=40, test_views=0, resolution=32)
    found = targets.rendered_targets(Mesh(vertices, faces), config)
    np.testing.assert_allclose(found.frame.center, 5.0, atol=1e-6)
    assert found.frame.scale == pytest.approx(3.0)
    pose = np.asarray(found.train.cameras.camera_from_world)
    middle = found.train.normals[:, 15:17, 15:17].astype(np.float64).mean((1, 2)) / 255 * 2 - 1
    facing = (-pose[:, 2, :3]) / np.abs(-pose[:, 2, :3]).max(axis=1, keepdims=True)
    clear = np.sort(np.abs(facing), axis=1)[:, 1] < 0.4  # one side fills the middle of the picture
    assert clear.sum() >= 5
    expected = np.where(np.abs(facing) > 0.999, np.sign(facing), 0.0)
    np.testing.assert_allclose(middle[clear], expected[clear], atol=0.03)
    depth = found.train.depths[:, 16, 16, 0]
    assert (depth[clear] < np.linalg.norm(pose[0, :3, 3])).all() and (depth[clear] > 0.5).all()
    halves = targets.at_half_resolution(found.train)
    again = targets._render(found.truth, [dataclasses.replace(targets.one_camera(halves, 3), size=(16, 16))])
    difference = np.abs(again.masks[0].astype(float) - halves.masks[3])
    assert difference.mean() < 4 and halves.masks.shape == (40, 16, 16)


def _plate(width, depth, cells=120):
    """A square plate with a round hollow seen from straight above: normals and depths."""
    x, y = np.meshgrid(*2 * [np.linspace(-0.5, 0.5, cells + 1)], indexing="ij")
    z = np.where(np.hypot(x, y) < width / 2, -depth, 0.0)
    number = np.arange(x.size).reshape(x.shape)
    a, b, c, d = (n.ravel() for n in (number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([c, b, d], 1)]).astype(np.int32)
    vertices = jnp.asarray(np.stack([x, y, z], -1).reshape(-1, 3), jnp.float32)
    camera = targets._camera(np.asarray([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.3], [0, 0, 0, 1]]), 256)
    opposite = jnp.asarray(connectivity.opposite_vertices(faces))
    normals = fit.shape_image(vertices, jnp.asarray(faces), opposite, camera)[1]
    depths = rasterize_mesh(vertices, jnp.asarray(faces), camera, antialias=False).depth
    return np.asarray(normals, np.float64), np.asarray(depths, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.18, 0.36])
def test_a_floor_beneath_an_overhang_sinks_if_depths_weigh_more_than_normals_over_the_width(width):
    """The truth shows no wall there; that of a floor on its way down costs normals before depths have gained much."""
    flat, deep = _plate(width, 0.0), _plate(1.9, 0.3)[1]
    hollow = np.abs(_plate(width, 0.001)[1] - flat[1]) > 5e-4
    errors = []
    for depth in (0.0, 0.005):
        normals, depths = _plate(width, depth)
        errors.append((np.abs(normals - flat[0]).mean(), np.abs(depths - np.where(hollow, deep, flat[1])).mean()))
    (normals_before, depths_before), (normals_after, depths_after) = errors
    needed = (normals_after - normals_before) / (depths_before - depths_after)
    assert needed * width == pytest.approx(0.95, abs=0.1)
    assert ShapeConfig().depth / ShapeConfig().normal > 1.5 * needed, "the default opens it"


@pytest.mark.slow
def test_texture_reproduces_the_views_that_it_is_made_from():
    """A ball in stripes: renders of the texture against views that it was not made from."""
    found = _rendered(views=12)
    truth = found.truth
    shape = Mesh(truth.vertices, truth.faces)
    made, errors = {}, []
    for sweeps in (0, 4):
        made[sweeps] = fit_texture(
            shape, found.train, size=128, sweeps=sweeps, progress=lambda _, error: errors.append(error)
        )
    assert errors[-1] < 0.7 * errors[0], errors  # the sweeps correct what baking has blurred
    assert float(jnp.abs(face_normals(made[4].vertices, made[4].faces) - face_normals(*_parts(truth))).max()) == 0
    camera = targets.one_camera(_rendered(views=5).train, 2)
    wanted = np.asarray(render_mesh(truth, camera, light="none").color)
    color = np.asarray(render_mesh(made[4], camera, light="none").color)
    inside = np.asarray(render_mesh(truth, camera, light="none").alpha) > 0.999
    assert -10 * np.log10(((color - wanted)[inside] ** 2).mean()) > 26


def _parts(mesh):
    return mesh.vertices, mesh.faces
