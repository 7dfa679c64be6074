"""Splat files: parity with gsply on real files, exact round trips, and how far lossy formats may be off."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from renderers.gaussians.formats import FormatError, read_splats, write_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.ply import read_ply, write_ply
from tests.helpers.shared import shared_path

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "splats"
FIELDS = ("means", "quaternions", "log_scales", "opacity_logits", "sh")


def _random(n: int, degree: int, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    shapes = {"means": (n, 3), "quaternions": (n, 4), "log_scales": (n, 3), "opacity_logits": (n,)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    values["sh"] = rng.normal(size=(n, (degree + 1) ** 2, 3)) * 0.4
    return Gaussians(**{name: jnp.asarray(value, jnp.float32) for name, value in values.items()})


def _host(gaussians: Gaussians) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(gaussians, name)) for name in FIELDS}


def _opacities(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("name", ["playbot.ply", "playbot.compressed.ply", "biker.compressed.ply"])
def test_real_files_read_as_gsply_reads_them(name):
    ours = _host(read_splats(FIXTURES / name))
    theirs = np.load(FIXTURES / f"{name}.gsply.npz")
    np.testing.assert_allclose(ours["means"], theirs["means"], atol=1e-6)
    np.testing.assert_allclose(ours["log_scales"], theirs["log_scales"], atol=4e-6)
    np.testing.assert_allclose(ours["sh"], theirs["sh"], atol=2e-6)
    same = np.abs((ours["quaternions"] * theirs["quaternions"]).sum(-1))
    lengths = np.linalg.norm(ours["quaternions"], axis=-1) * np.linalg.norm(theirs["quaternions"], axis=-1)
    np.testing.assert_allclose(same, lengths, atol=1e-6)
    # Readers differ in what the outermost bytes, opacity 0 and 1, stand for: by half a step of 1/255 at most.
    np.testing.assert_allclose(_opacities(ours["opacity_logits"]), theirs["opacities"], atol=0.51 / 255)


@pytest.mark.parametrize("degree", range(5))
def test_ply_keeps_every_bit(tmp_path, degree):
    original = _random(7, degree)
    write_splats(tmp_path / "a.ply", original)
    back = read_splats(tmp_path / "a.ply")
    for name, value in _host(original).items():
        np.testing.assert_array_equal(_host(back)[name].view(np.uint32), value.view(np.uint32), err_msg=name)


def test_written_columns_are_those_of_the_original_code(tmp_path):
    gaussians = _random(3, 1)
    write_splats(tmp_path / "a.ply", gaussians)
    vertex = read_ply(tmp_path / "a.ply")["vertex"]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    expected += [f"f_rest_{i}" for i in range(9)]
    expected += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(vertex.dtype.names) == expected
    assert not any(vertex[name].any() for name in ("nx", "ny", "nz"))
    # Channel-major: the second green coefficient is column 1 * 3 + 1.
    np.testing.assert_array_equal(vertex["f_rest_4"], np.asarray(gaussians.sh)[:, 2, 1])
    np.testing.assert_array_equal(vertex["rot_0"], np.asarray(gaussians.quaternions)[:, 0])


def test_columns_are_found_by_name_in_any_order_and_type(tmp_path):
    original = _random(5, 2)
    write_splats(tmp_path / "a.ply", original)
    vertex = read_ply(tmp_path / "a.ply")["vertex"]
    names = [name for name in reversed(vertex.dtype.names) if not name.startswith("n")]
    shuffled = np.zeros(5, [("extra", "i2"), *((name, "f8") for name in names), ("label", "u1")])
    for name in names:
        shuffled[name] = vertex[name]
    write_ply(tmp_path / "b.ply", {"camera": np.zeros(2, [("f", "f4")]), "vertex": shuffled})
    for name, value in _host(read_splats(tmp_path / "b.ply")).items():
        np.testing.assert_array_equal(value, _host(original)[name], err_msg=name)


def test_surfels_with_two_scales_become_flat(tmp_path):
    write_splats(tmp_path / "a.ply", _random(5, 0))
    vertex = read_ply(tmp_path / "a.ply")["vertex"]
    flat = np.zeros(5, [(name, "f4") for name in vertex.dtype.names if name != "scale_2"])
    for name in flat.dtype.names:
        flat[name] = vertex[name]
    write_ply(tmp_path / "b.ply", {"vertex": flat})
    scales = np.exp(np.asarray(read_splats(tmp_path / "b.ply").log_scales))
    np.testing.assert_allclose(scales[:, :2], np.exp(np.stack([vertex["scale_0"], vertex["scale_1"]], -1)), rtol=1e-6)
    assert (scales[:, 2] < 1e-9).all()


@pytest.mark.parametrize("degree", range(4))
def test_compressed_ply_is_off_by_half_a_step_of_its_chunk_at_most(tmp_path, degree):
    # One chunk and a bit, so that the last chunk is short.
    original = _host(_random(300, degree))
    write_splats(tmp_path / "a.compressed.ply", Gaussians(**{k: jnp.asarray(v) for k, v in original.items()}))
    back = _host(read_splats(tmp_path / "a.compressed.ply"))
    _, match = cKDTree(back["means"]).query(original["means"])
    assert len(set(match)) == 300
    back = {name: value[match] for name, value in back.items()}
    extent = np.ptp(original["means"], axis=0)
    assert (np.abs(back["means"] - original["means"]) <= 0.51 * extent / (2047, 1023, 2047)).all()
    extent = np.ptp(original["log_scales"], axis=0)
    assert (np.abs(back["log_scales"] - original["log_scales"]) <= 0.51 * extent / (2047, 1023, 2047)).all()
    assert np.abs(_opacities(back["opacity_logits"]) - _opacities(original["opacity_logits"])).max() <= 0.51 / 255
    extent = np.ptp(original["sh"][:, 0], axis=0)
    assert (np.abs(back["sh"][:, 0] - original["sh"][:, 0]) <= 0.51 * extent / 255).all()
    assert np.abs(back["sh"][:, 1:] - original["sh"][:, 1:]).max(initial=0) <= 8 / 512 + 1e-6
    unit = original["quaternions"] / np.linalg.norm(original["quaternions"], axis=1, keepdims=True)
    # Three components are rounded by up to half of sqrt(2) / 1023; the fourth follows.
    assert (np.abs((back["quaternions"] * unit).sum(-1)) > 1 - 4e-6).all()


def test_compressed_rotations_cover_every_largest_component(tmp_path):
    quaternions = np.repeat(np.eye(4), 2, axis=0) + np.tile([[0.1, -0.2, 0.3, -0.4], [-0.3, 0.1, 0.2, 0.05]], (4, 1))
    base = _host(_random(8, 0)) | {"quaternions": quaternions.astype(np.float32)}
    base["means"] = np.arange(24, dtype=np.float32).reshape(8, 3)
    write_splats(tmp_path / "a.compressed.ply", Gaussians(**{k: jnp.asarray(v) for k, v in base.items()}))
    back = np.asarray(read_splats(tmp_path / "a.compressed.ply").quaternions)
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs((back * unit).sum(-1)), 1, atol=2e-6)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply"])
def test_an_empty_scene_is_a_scene(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_splats(path, _random(0, 1))
    assert read_splats(path).sh.shape == (0, 4, 3)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply"])
def test_values_that_are_not_finite_are_refused_and_the_old_file_stays(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    good = _random(4, 0)
    write_splats(path, good)
    before = path.read_bytes()
    bad = Gaussians(**(_host(good) | {"log_scales": jnp.asarray(good.log_scales).at[2, 1].set(jnp.nan)}))
    with pytest.raises(FormatError, match=r"row 2 has a non-finite log scales"):
        write_splats(path, bad)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_row_that_is_not_finite_is_named_on_reading(tmp_path):
    write_splats(tmp_path / "a.ply", _random(4, 0))
    vertex = read_ply(tmp_path / "a.ply")["vertex"].copy()
    vertex["opacity"][3] = np.inf
    write_ply(tmp_path / "b.ply", {"vertex": vertex})
    with pytest.raises(FormatError, match="row 3 has a non-finite opacity"):
        read_splats(tmp_path / "b.ply")


def test_a_point_cloud_and_an_unknown_suffix_are_refused_with_advice(tmp_path):
    write_ply(tmp_path / "a.ply", {"vertex": np.zeros(2, [("x", "f4"), ("y", "f4"), ("z", "f4")])})
    with pytest.raises(FormatError, match="vertices have no f_dc_0"):
        read_splats(tmp_path / "a.ply")
    with pytest.raises(FormatError, match=r"known suffixes are .*\.ply"):
        read_splats(tmp_path / "a.xyz")
    with pytest.raises(FormatError, match="degree 3"):
        write_splats(tmp_path / "a.compressed.ply", _random(2, 4))


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.ply"
    write_splats(path, _random(3, 0))
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_splats(path, _random(5, 0))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ply"]


def test_compressing_a_real_scene_is_as_exact_as_its_authors_tool(tmp_path):
    original = _host(read_splats(shared_path("data/splats/playbot_lod4_set/playbot_lod4.ply")))
    theirs = _host(read_splats(shared_path("data/splats/playbot_lod4_set/playbot_lod4.compressed.ply")))
    write_splats(tmp_path / "a.compressed.ply", Gaussians(**{k: jnp.asarray(v) for k, v in original.items()}))
    ours = _host(read_splats(tmp_path / "a.compressed.ply"))

    def worst(other):
        distance, match = cKDTree(other["means"]).query(original["means"])
        return distance.max(), np.abs(other["sh"][match] - original["sh"]).max()

    for mine, his in zip(worst(ours), worst(theirs), strict=True):
        assert mine <= 1.05 * his
