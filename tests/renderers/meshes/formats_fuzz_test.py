"""Damaged mesh files: a FormatError or a scene, quickly, without large allocations (reliability.md R3)."""

import json
import pathlib
import struct
import time
import tracemalloc

import pytest

from renderers.meshes.formats import FormatError, read_mesh
from tests.helpers.mutants import mutants

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "meshes"
OBJ = b"""# a box without a lid, and a material of its own for one side
mtllib box.mtl
v 0 0 0 1 0 0
v 1 0 0 0 1 0
v 1 1 0 0 0 1
v 0 1 0 1 1 0
v 0.5 0.25 1 0 1 1
vt 0 0
vt 1 0
vt 1.5 1
vt 0 1
vn 0 0 -1
vn 0 0.70710678 0.70710678
usemtl paint
f 4/4/1 3/3/1 2/2/1 1/1/1
usemtl glass
f 1/1/2 2/2/2 5/3/2
f -4//2 -3//2 -1//2
f 3 4 \\
  5
"""
MTL = b"newmtl paint\nKd 0.8 0.1 0.1\nmap_Kd -clamp on paint.png\nPr 0.5\nnewmtl glass\nKd 1 1 1\nd 0.5\nNs 100\n"
PLY = b"""ply
format ascii 1.0
comment TextureFile paint.png
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property float s
property float t
element face 2
property list uchar int vertex_indices
property list uchar float texcoord
property uchar flags
end_header
0 0 0 255 0 0 0 0
1 0 0 0 255 0 1 0
1 1 0.5 0 0 255 1 1
0 1 0 9 9 9 0 1
4 0 1 2 3 8 0 0 1 0 1 1 0 1 7
3 0 1 2 6 0 0 1 0 1 1 7
"""


def binary_ply(order: str) -> bytes:
    """The text file above as a binary one."""
    header, body = PLY.split(b"end_header\n")
    kinds = {"<": b"binary_little_endian", ">": b"binary_big_endian"}
    rows = [line.split() for line in body.decode().splitlines()]
    content = header.replace(b"ascii", kinds[order]) + b"end_header\n"
    for row in rows[:4]:
        content += struct.pack(order + "fffBBBff", *map(float, row[:3]), *map(int, row[3:6]), *map(float, row[6:]))
    for row in rows[4:]:
        n = int(row[0])
        corners, uv = map(int, row[1 : n + 1]), map(float, row[n + 2 : -1])
        content += struct.pack(f"{order}B{n}iB{2 * n}fB", n, *corners, 2 * n, *uv, 7)
    return content


def split_glb(name: str) -> tuple[bytes, bytes]:
    """JSON and binary chunk of a fixture."""
    content = (FIXTURES / name).read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    return content[20 : 20 + length], content[28 + length :]


def _gltf() -> bytes:
    document = json.loads(split_glb("swaying_blade.glb")[0])
    document["buffers"][0]["uri"] = "data.bin"
    return json.dumps(document, indent=1).encode()


ORIGINALS = {
    "a.obj": lambda: OBJ,
    "ascii.ply": lambda: PLY,
    "little.ply": lambda: binary_ply("<"),
    "big.ply": lambda: binary_ply(">"),
    "corn.glb": lambda: (FIXTURES / "corn_crop.glb").read_bytes(),
    "blade.glb": lambda: (FIXTURES / "swaying_blade.glb").read_bytes(),
    "blade.gltf": _gltf,
}


def _beside(folder: pathlib.Path) -> None:
    (folder / "box.mtl").write_bytes(MTL)
    (folder / "paint.png").write_bytes((FIXTURES / "paint.png").read_bytes())
    (folder / "data.bin").write_bytes(split_glb("swaying_blade.glb")[1])


def _survives(path: pathlib.Path, original: bytes, count: int) -> None:
    refused = 0
    _beside(path.parent)
    path.write_bytes(original)
    read_mesh(path)
    for number, mutant in enumerate(mutants(original, count)):
        path.write_bytes(mutant)
        if number % 4 == 0:  # tracing takes most of the time
            tracemalloc.start()
        start = time.perf_counter()
        try:
            read_mesh(path)
        except FormatError as error:
            assert "\n" not in str(error), f"mutant {number}"
            refused += 1
        assert time.perf_counter() - start < 2, f"mutant {number} took long"
        if tracemalloc.is_tracing():
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 3 * len(mutant) + (64 << 20), f"mutant {number} took memory"
    assert refused > count // 20


@pytest.mark.parametrize("name", ORIGINALS)
def test_300_mutants(tmp_path, name):
    _survives(tmp_path / name, ORIGINALS[name](), 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORIGINALS)
def test_10000_mutants(tmp_path, name):
    _survives(tmp_path / name, ORIGINALS[name](), 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("line", MTL.splitlines())
def test_10000_mutants_of_a_material_library(tmp_path, line):
    path = tmp_path / "a.obj"
    _beside(tmp_path)
    path.write_bytes(OBJ)
    for number, mutant in enumerate(mutants(MTL, 10_000 // 8, seed=len(line))):
        (tmp_path / "box.mtl").write_bytes(mutant)
        try:
            read_mesh(path)
        except FormatError as error:
            assert "\n" not in str(error), f"mutant {number}"
