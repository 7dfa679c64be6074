"""PLY files of every kind, written here by hand, read back; and files that lie."""

import struct

import numpy as np
import pytest

from renderers.files import FormatError
from renderers.ply import read_ply, read_points_ply, write_ply

ROWS = [(-1.5, 7, 250), (0.1, -3, 0), (3e7, 32767, 17)]  # float value, short id, uchar tag
BINARY = b"ply\nformat binary_little_endian 1.0\n"
HEADER = """ply
format {form} 1.0
comment anything
obj_info something
element camera 2
property list uchar int indices
property float weight
element vertex 3
property {real} value
property short id
property list uchar uchar junk
property uchar tag
element face 2
property list uchar int vertex_indices
end_header
"""


def _file(form: str, lengths: tuple[int, ...], eol: str = "\n", real: str = "float") -> bytes:
    """A file whose vertices stand between two elements with lists, and hold a list of the given lengths themselves."""
    header = HEADER.format(form=form, real=real).replace("\n", eol).encode()
    if form == "ascii":
        lines = ["2 5 6 0.5", "1 5 0.25"]
        lines += [f"{v!r} {i} {n} {' '.join('9' * n)} {t}" for (v, i, t), n in zip(ROWS, lengths, strict=True)]
        return header + eol.join([*lines, "3 0 1 2", "3 0 1 2", ""]).encode()
    order = "<" if "little" in form else ">"
    code = {"float": "f", "double": "d"}[real]
    body = struct.pack(f"{order}BiifBif", 2, 5, 6, 0.5, 1, 5, 0.25)
    for (value, number, tag), n in zip(ROWS, lengths, strict=True):
        body += struct.pack(f"{order}{code}hB{n}BB", value, number, n, *([9] * n), tag)
    return header + body + struct.pack(f"{order}BiiiBiii", 3, 0, 1, 2, 3, 0, 1, 2)


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("lengths", [(0, 0, 0), (2, 2, 2), (1, 3, 0)], ids=str)
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_scalars_survive_lists_orders_and_line_ends(tmp_path, form, lengths, eol):
    path = tmp_path / "a.ply"
    path.write_bytes(_file(form, lengths, eol))
    vertex = read_ply(path)["vertex"]
    np.testing.assert_array_equal(vertex["value"], np.float32([row[0] for row in ROWS]))
    np.testing.assert_array_equal(vertex["id"], [row[1] for row in ROWS])
    np.testing.assert_array_equal(vertex["tag"], [row[2] for row in ROWS])
    assert vertex.dtype.isnative


def test_double_columns_keep_their_digits(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(_file("binary_big_endian", (0, 0, 0), real="double"))
    np.testing.assert_array_equal(read_ply(path)["vertex"]["value"], [row[0] for row in ROWS])


def test_written_elements_come_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    first = np.zeros(4, [("a", ">f8"), ("b", "u1"), ("c", "<i2")])
    first["a"], first["b"], first["c"] = rng.normal(size=4), [0, 1, 254, 255], [-32768, -1, 0, 32767]
    second = np.zeros(0, [("x", "f4")])
    write_ply(tmp_path / "a.ply", {"first": first, "second": second}, comments=("made by a test",))
    back = read_ply(tmp_path / "a.ply", frozenset({"first", "second"}))
    for name in "abc":
        np.testing.assert_array_equal(back["first"][name], first[name])
    assert len(back["second"]) == 0


def test_points_take_integer_and_float_colours_and_none(tmp_path):
    path = tmp_path / "a.ply"
    body = "element vertex 2\nproperty double x\nproperty double y\nproperty double z\n"
    path.write_text(f"ply\nformat ascii 1.0\n{body}end_header\n1 2 3\n4.25 5 6\n")
    xyz, colors = read_points_ply(path)
    np.testing.assert_array_equal(xyz, [[1, 2, 3], [4.25, 5, 6]])
    assert colors is None
    for kind, words in (("uchar", "255 0 51"), ("float", "1.0 0 0.2")):
        columns = "".join(f"property {kind} {name}\n" for name in ("red", "green", "blue"))
        path.write_text(f"ply\nformat ascii 1.0\n{body}{columns}end_header\n1 2 3 {words}\n4 5 6 {words}\n")
        np.testing.assert_array_equal(read_points_ply(path)[1], [[255, 0, 51]] * 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PLY"),
        (b"plyx\n", "not a PLY"),
        (b"ply\nformat ascii 1.0\n", "does not end"),
        (b"ply\nend_header\n", "format"),
        (b"ply\nformat binary_middle_endian 1.0\nend_header\n", "cannot be understood"),
        (b"ply\n" + b"comment x\n" * 1000 + b"format ascii 1.0\nend_header\n", "more than 1000 lines"),
        (b"ply\ncomment " + b"x" * 5000 + b"\nformat ascii 1.0\nend_header\n", "within 4096 bytes"),
        (b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "cannot be understood"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "cannot be understood"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 1\n", "twice"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\none\n", "not a number"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1 2\n", "need 1 numbers, got 2"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty uchar x\nend_header\n256\n", "not a uint8"),
        (b"ply\nformat ascii 1.0\nelement vertex 1000000000000\nproperty float x\nend_header\n1\n", "were promised"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000000\nproperty float x\nend_header\n1234",
            "need 4000000000000 bytes",
        ),
        (
            BINARY + b"element vertex 1\nproperty list int float x\nend_header\n\xff\xff\xff\xff",
            "negative length",
        ),
        (
            BINARY + b"element vertex 1\nproperty list uint float x\nend_header\n\xff\xff\xff\xff",
            "ends inside",
        ),
    ],
)  # fmt: skip
def test_damaged_and_lying_files_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "bad.ply"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=reason) as caught:
        read_ply(path)
    assert "bad.ply" in str(caught.value) and "\n" not in str(caught.value)


def test_a_point_that_is_not_finite_is_named(tmp_path):
    path = tmp_path / "a.ply"
    columns = "".join(f"property float {name}\n" for name in "xyz")
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex 3\n{columns}end_header\n1 2 3\n1 nan 3\n1 inf 3\n")
    with pytest.raises(FormatError, match=r"row 1 .*\(2 such of 3"):
        read_points_ply(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.ply"):
        with pytest.raises(FormatError):
            read_ply(path)
