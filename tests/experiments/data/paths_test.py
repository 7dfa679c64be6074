"""Paths from files may not leave their folder (reliability.md R4)."""

import pytest

from experiments.data.paths import is_file, resolve_inside
from experiments.errors import InputError


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../secret",
            "images/../../secret",
            "a/..",
            "/etc/passwd",
            "//host/share",
            "\\\\host\\share",
            "\\etc\\passwd",
        ),
        *("file:///etc/passwd", "http://host/a.png", "file:a", "C:\\a.png", "c:/a.png", "C:a.png"),
        *("a\x00.png", "a\nb.png", "", "x" * 5000, "..\\secret", "link/secret", "\ud800"),
    ],
)
def test_what_leads_outside_is_refused(tmp_path, name):
    root, outside = tmp_path / "capture", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(InputError):
        resolve_inside(root, name, where="test")


def test_what_stays_inside_is_resolved(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "images")
    for name in ("images/a.png", "./images/a.png", "images\\a.png", ".\\images\\a.png", "again/a.png"):
        assert resolve_inside(tmp_path, name, where="test") == tmp_path.resolve() / "images" / "a.png"


def test_trusted_files_may_point_outside_but_never_to_uris(tmp_path):
    root = tmp_path / "capture"
    root.mkdir()
    found = resolve_inside(root, "../b.png", where="test", allow_external=True)
    assert found == tmp_path.resolve() / "b.png"
    assert str(resolve_inside(root, "/etc/passwd", where="test", allow_external=True)) == "/etc/passwd"
    for name in ("file:///etc/passwd", "a\x00b", "http://host/a.png"):
        with pytest.raises(InputError):
            resolve_inside(root, name, where="test", allow_external=True)


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    try:
        path = resolve_inside(tmp_path, "a/x.png", where="test")
    except InputError:
        return
    assert not is_file(path)
