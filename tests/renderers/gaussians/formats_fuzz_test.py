"""Damaged splat files: a FormatError or a scene, quickly, without large allocations (reliability.md R3)."""

import pathlib
import tempfile
import time
import tracemalloc

import pytest

from renderers.gaussians.formats import FormatError, read_splats, write_splats
from tests.helpers.mutants import mutants

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "splats"
ASCII = b"ply\nformat ascii 1.0\ncomment 2 splats\nelement vertex 2\n" + b"".join(
    f"property float {name}\n".encode()
    for name in "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
)
ASCII += b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
ASCII += b"0.5 1 2 .1 .2 .3 -1 -2 -3 -4 1 0 0 0\n-0.5 1 2 .1 .2 .3 -1 -2 -3 -4 0.5 0.5 0 0\n3 0 1 1\n"

ORIGINALS = {
    "ascii.ply": lambda: ASCII,
    "binary.ply": lambda: (FIXTURES / "playbot.ply").read_bytes()[:20_000],
    "whole.ply": lambda: (FIXTURES / "playbot.ply").read_bytes(),
    "a.compressed.ply": lambda: (FIXTURES / "playbot.compressed.ply").read_bytes(),
    "a.splat": lambda: (FIXTURES / "minimal.splat").read_bytes(),
    "raw.spz": lambda: (FIXTURES / "minimal-raw.spz").read_bytes(),
    "v3.spz": lambda: (FIXTURES / "minimal-v3.spz").read_bytes(),
    "v4.spz": lambda: (FIXTURES / "minimal-v4.spz").read_bytes(),
    "a.sog": lambda: _archive(),
}


def _archive() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.sog"
        write_splats(path, read_splats(FIXTURES / "playbot.ply"))
        return path.read_bytes()


def _survives(path: pathlib.Path, original: bytes, count: int) -> None:
    refused = 0
    tracemalloc.start()
    try:
        for number, mutant in enumerate(mutants(original, count)):
            path.write_bytes(mutant)
            tracemalloc.reset_peak()
            start = time.perf_counter()
            try:
                read_splats(path)
            except FormatError as error:
                assert "\n" not in str(error), f"mutant {number}"
                refused += 1
            assert time.perf_counter() - start < 2, f"mutant {number} took long"
            assert tracemalloc.get_traced_memory()[1] < 3 * len(mutant) + (64 << 20), f"mutant {number} took memory"
    finally:
        tracemalloc.stop()
    assert refused > count // 20


@pytest.mark.parametrize("name", ORIGINALS)
def test_300_mutants(tmp_path, name):
    _survives(tmp_path / name, ORIGINALS[name](), 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORIGINALS)
def test_10000_mutants(tmp_path, name):
    _survives(tmp_path / name, ORIGINALS[name](), 10_000)
