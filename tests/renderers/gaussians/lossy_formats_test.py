"""Quantised splat files: .splat, .spz and SOG against files that others wrote, and against their own step sizes."""

import gzip
import io
import json
import pathlib
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from renderers.cameras.camera import Camera
from renderers.gaussians.codecs import codebooks
from renderers.gaussians.codecs.codebooks import nearest, palette, scalar_codebook
from renderers.gaussians.codecs.spz import _sh_signs
from renderers.gaussians.formats import FormatError, read_splats, write_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.spherical_harmonics import sh_colors
from tests.helpers.shared import shared_path

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "splats"
FIELDS = ("means", "quaternions", "log_scales", "opacity_logits", "sh")


def _random(n: int, degree: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {
        "means": rng.normal(size=(n, 3)),
        "quaternions": rng.normal(size=(n, 4)),
        "log_scales": rng.uniform(-6, 1, (n, 3)),
        "opacity_logits": rng.normal(size=n),
        "sh": np.clip(rng.normal(size=(n, (degree + 1) ** 2, 3)) * 0.3, -0.9, 0.9),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def _record(values: dict[str, np.ndarray]) -> Gaussians:
    return Gaussians(**{name: jnp.asarray(value) for name, value in values.items()})


def _host(path) -> dict[str, np.ndarray]:
    gaussians = read_splats(path)
    return {name: np.asarray(getattr(gaussians, name)) for name in FIELDS}


def _opacity(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _matched(original, back):
    """Rows of `back` in the order of `original`, by position."""
    distance = np.linalg.norm(original["means"][:, None] - back["means"], axis=-1)
    match = distance.argmin(axis=1)
    assert len(set(match)) == len(match)
    return {name: value[match] for name, value in back.items()}


def _rotation_error(first, second):
    a, b = (
        q / np.linalg.norm(q, axis=-1, keepdims=True) for q in (first.astype(np.float64), second.astype(np.float64))
    )
    return np.degrees(2 * np.arccos(np.minimum(1, np.abs((a * b).sum(-1)))))


# Half steps of each format, and degrees that the rounding of quaternions may turn by.
@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize(
    ("suffix", "position", "scale", "color", "rotation", "rest"),
    [
        (".splat", 0, 1e-6, 0.51 / 255 / 0.2820948, 0.9, None),
        (".spz", 0.51 / 4096, 0.51 / 16, 0.51 / 255 / 0.15, 0.28, 8.6 / 128),
        (".sog", 1e-4, 1e-6, 1e-6, 1.1, 0.02),
    ],
)
def test_what_comes_back_is_off_by_half_a_step(tmp_path, degree, suffix, position, scale, color, rotation, rest):
    original = _random(80, degree)
    write_splats(tmp_path / f"a{suffix}", _record(original))
    back = _matched(original, _host(tmp_path / f"a{suffix}"))
    assert np.abs(back["means"] - original["means"]).max() <= position
    assert np.abs(back["log_scales"] - original["log_scales"]).max() <= scale
    assert np.abs(_opacity(back["opacity_logits"]) - _opacity(original["opacity_logits"])).max() <= 0.51 / 255
    visible = np.abs(original["sh"][:, 0] * 0.2820948) < 0.5
    assert np.abs(back["sh"][:, 0] - original["sh"][:, 0])[visible].max() <= color
    assert _rotation_error(back["quaternions"], original["quaternions"]).max() <= rotation
    if rest is None:
        assert back["sh"].shape[1] == 1
    else:
        assert back["sh"].shape == original["sh"].shape
        assert np.abs(back["sh"] - original["sh"])[:, 1:].max(initial=0) <= rest


@pytest.mark.parametrize("suffix", [".splat", ".spz", ".sog"])
def test_an_empty_scene_and_the_same_bytes_twice(tmp_path, suffix):
    write_splats(tmp_path / f"a{suffix}", _record(_random(0, 0)))
    assert read_splats(tmp_path / f"a{suffix}").means.shape == (0, 3)
    for name in "bc":
        write_splats(tmp_path / f"{name}{suffix}", _record(_random(20, 0)))
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"c{suffix}").read_bytes()


def test_the_smallest_files_of_the_format_authors_agree_with_each_other():
    """Four splats on a grid of unit spacing, 10 % wide (one step of spz: 1/16), opacity 0.9."""
    files = {name: _host(FIXTURES / name) for name in ("minimal.splat", "minimal-v3.spz", "minimal-v4.spz")}
    for name, back in files.items():
        np.testing.assert_allclose(back["means"], [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]], atol=1e-6)
        np.testing.assert_allclose(back["log_scales"], np.log(0.1), atol=0.032, err_msg=name)
        np.testing.assert_allclose(_opacity(back["opacity_logits"]), 0.9, atol=0.003)
        np.testing.assert_allclose(back["sh"], files["minimal.splat"]["sh"], atol=0.02)
    for version in ("v2", "raw"):
        back = _host(FIXTURES / f"minimal-{version}.spz")
        np.testing.assert_allclose(back["means"], [[-1, 0, 1], [0, 0, 1], [-1, 0, 0], [0, 0, 0]], atol=1e-6)
        assert _rotation_error(back["quaternions"], np.array([[1.0, 0, 0, 0]] * 4)).max() < 1


def test_version_1_stores_half_floats(tmp_path):
    means = np.array([[1.5, -2.25, 1000.0], [0.0, 0.125, -3.0]], "<f2")
    content = struct.pack("<4sIIBBBB", b"NGSP", 1, 2, 0, 12, 0, 0) + means.tobytes()
    content += bytes([128] * 2 + [128] * 6 + [160] * 6 + [128] * 6)
    (tmp_path / "a.spz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(_host(tmp_path / "a.spz")["means"], means.astype(np.float32) * [1, -1, -1])


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_real_spz_files_agree_with_the_ply_they_were_made_from(version):
    folder = shared_path("data/splats/playbot_lod4_set")
    original, back = _host(folder / "playbot_lod4.ply"), _host(folder / f"playbot_lod4.{version}.spz")
    # The format clamps log-scales at -10 and colours at 3.33.
    kept = (original["log_scales"] > -10).all(axis=1) & (np.abs(original["sh"][:, 0]) < 3.3).all(axis=1)
    assert kept.mean() > 0.5
    order, theirs = (np.lexsort(np.round(v["means"] * 256).T) for v in (original, back))
    # Rounded positions tie where splats nearly coincide: most rows pair up, the median tells about those.
    a, b = ({n: v[o] for n, v in values.items()} for values, o in ((original, order), (back, theirs)))
    paired = (np.abs(a["means"] - b["means"]).max(axis=1) < 2.2e-4) & kept[order]
    assert paired.mean() > 0.5
    assert np.median(_rotation_error(a["quaternions"][paired], b["quaternions"][paired])) < 0.15
    assert np.median(np.abs(a["log_scales"] - b["log_scales"])[paired]) < 0.5 / 16
    small = paired & (np.abs(a["sh"][:, 1:]) < 0.9).all(axis=(1, 2))
    assert np.median(np.abs(a["sh"] - b["sh"])[small][:, 1:]) < 5 / 128


def test_an_unpacked_sog_folder_is_the_ply_that_its_authors_tool_made_of_it():
    folder = shared_path("data/splats/playbot_lod4_set")
    sog, ply = _host(folder / "sog"), _host(folder / "playbot_lod4.ply")
    for name in ("means", "log_scales", "sh"):
        np.testing.assert_allclose(sog[name], ply[name], atol=2e-7, err_msg=name)
    assert _rotation_error(sog["quaternions"], ply["quaternions"]).max() < 0.05
    np.testing.assert_allclose(_opacity(sog["opacity_logits"]), _opacity(ply["opacity_logits"]), atol=0.51 / 255)
    archive = _matched_count(folder / "playbot_lod4.sog", ply)
    assert archive > 0.99


def _matched_count(path, ply) -> float:
    back = _host(path)
    distance, match = cKDTree(back["means"]).query(ply["means"])
    return float(((distance < 1e-4) & (np.abs(back["sh"][match, 0] - ply["sh"][:, 0]).max(axis=1) < 0.04)).mean())


def test_half_a_turn_about_x_changes_spherical_harmonics_by_these_signs():
    """Turning coefficients and direction together changes no colour, at every degree."""
    rng = np.random.default_rng(0)
    sh, means = jnp.asarray(rng.normal(size=(6, 25, 3)) * 0.2, jnp.float32), rng.normal(size=(6, 3))
    camera = Camera(jnp.eye(4), jnp.ones(2), jnp.ones(2), (2, 2))
    turned = jnp.asarray(np.asarray(sh) * _sh_signs(25)[:, None], jnp.float32)
    first = sh_colors(sh, jnp.asarray(means, jnp.float32), camera, 4)
    second = sh_colors(turned, jnp.asarray(means * [1, -1, -1], jnp.float32), camera, 4)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_far_positions_take_fewer_fractional_bits(tmp_path):
    values = _random(3, 0) | {"means": np.float32([[5000, 0, 0], [0, -100_000, 1], [2, 3, 4]])}
    write_splats(tmp_path / "a.spz", _record(values))
    np.testing.assert_allclose(_host(tmp_path / "a.spz")["means"], values["means"], atol=0.51 / 64)
    with pytest.raises(FormatError, match="ends at"):
        write_splats(tmp_path / "a.spz", _record(values | {"means": values["means"] * 1000}))


def test_codebooks_are_exact_for_few_values_and_close_for_many():
    rng = np.random.default_rng(0)
    few = rng.normal(size=200)
    np.testing.assert_array_equal(scalar_codebook(few)[nearest(scalar_codebook(few), few)], few)
    many = np.concatenate([rng.normal(size=20_000), [40.0, -30.0]])
    book = scalar_codebook(many)
    error = np.abs(book[nearest(book, many)] - many)
    uniform = np.ptp(many) / 256 / 2
    assert error[-2:].max() == 0 and np.sqrt((error**2).mean()) < uniform / 3
    brute = np.abs(many[:500, None] - book).argmin(axis=1)
    np.testing.assert_allclose(book[nearest(book, many[:500])], book[brute])


def test_a_palette_of_many_rows_clusters_them(monkeypatch):
    monkeypatch.setattr(codebooks, "_TRAINED_PALETTE", 200)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 3))
    rows = centers[np.arange(70_000) % 40] + rng.normal(size=(70_000, 3)) * 1e-3
    entries, labels = palette(rows)
    assert len(entries) <= 65_536 and np.abs(entries[labels] - rows).max() < 0.01


def _gz(count: int, degree: int = 0, body: bytes = b"") -> bytes:
    return gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, count, degree, 12, 0, 0) + body, mtime=0)


def _sog(change) -> bytes:
    def webp(value):
        buffer = io.BytesIO()
        Image.fromarray(np.full((1, 1, 4), value, np.uint8)).save(buffer, "webp", lossless=True, exact=True)
        return buffer.getvalue()

    files = {f"{name}.webp": webp(252) for name in ("means_l", "means_u", "scales", "quats", "sh0")}
    meta = {
        "version": 2,
        "count": 1,
        "means": {"mins": [0] * 3, "maxs": [1] * 3, "files": ["means_l.webp", "means_u.webp"]},
    }
    meta |= {name: {"codebook": [0.0] * 256, "files": [f"{name}.webp"]} for name in ("scales", "quats", "sh0")}
    change(meta, files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", json.dumps(meta))
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".splat", b"x" * 33, "no whole number"),
        (".splat", struct.pack("<6f", 0, 0, 0, 1, -1, 1) + b"\x80" * 8, "negative scale"),
        (".splat", struct.pack("<6f", 0, float("nan"), 0, 1, 1, 1) + b"\x80" * 8, "row 0 has a non-finite means"),
        (".spz", b"", "ends inside its header"),
        (".spz", b"NGSP" + b"\xff" * 60, "version"),
        (".spz", _gz(2**32 - 1), "cannot fit"),
        (".spz", _gz(3), "3 splats need 60 bytes, 0 are there"),
        (".spz", _gz(1, 9, b"x" * 99), "degree 9"),
        (".spz", struct.pack("<4sIIBBBB", b"NGSP", 4, 1, 0, 12, 0, 5) + struct.pack("<I", 2**31), "table at byte"),
        (".sog", b"PK nonsense", "not a zip|not a readable"),
        (".sog", _sog(lambda meta, files: meta.pop("version")), "version None"),
        (".sog", _sog(lambda meta, files: meta.update(count=10**9)), "count"),
        (".sog", _sog(lambda meta, files: meta.update(count=2)), "1 pixels for 2"),
        (".sog", _sog(lambda meta, files: meta["sh0"].update(files=["../../etc/passwd"])), "not a plain one"),
        (".sog", _sog(lambda meta, files: meta["sh0"].update(files=["none.webp"])), "none.webp"),
        (".sog", _sog(lambda meta, files: meta["sh0"].update(codebook=[float("nan")] * 256)), "NaN"),
        (".sog", _sog(lambda meta, files: meta["scales"].update(codebook=[1])), "list of 256"),
        (".sog", _sog(lambda meta, files: files.update({"sh0.webp": b"nonsense"})), "sh0.webp"),
        (".sog", _sog(lambda meta, files: meta["means"].update(maxs=[1e9] * 3)), "non-finite means"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)  # fmt: skip
def test_damaged_and_lying_files_are_refused_with_the_reason(tmp_path, suffix, content, reason):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=reason) as caught:
        read_splats(path)
    assert "\n" not in str(caught.value)


def test_the_unchanged_archive_of_the_test_above_reads(tmp_path):
    (tmp_path / "a.sog").write_bytes(_sog(lambda meta, files: None))
    np.testing.assert_allclose(_host(tmp_path / "a.sog")["means"], np.expm1((252 * 257) / 65535), rtol=1e-6)


def test_degree_4_is_refused_by_formats_without_room(tmp_path):
    for suffix in (".spz", ".sog"):
        with pytest.raises(FormatError, match="degree 3"):
            write_splats(tmp_path / f"a{suffix}", _record(_random(2, 4)))
