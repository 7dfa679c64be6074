"""Damaged descriptions and photographs: an InputError or a capture, quickly (reliability.md R3)."""

import io
import pathlib
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from experiments.data.captures import load_capture
from experiments.data.colmap import read_largest
from experiments.data.transforms_json import read_transforms
from experiments.errors import InputError
from tests.experiments.data.captures_on_disk import picture, write_transforms
from tests.helpers.mutants import mutants

COLMAP = pathlib.Path(__file__).parents[2] / "fixtures" / "colmap"
CASES = [f"binary/{name}.bin" for name in ("cameras", "images", "points3D")]
CASES += [f"text/{name}.txt" for name in ("cameras", "images", "points3D")]
CASES += ["transforms.json", "photograph.png", "photograph.jpg"]


def _prepare(folder: pathlib.Path, case: str):
    """The file to damage, and what reads it."""
    if case == "transforms.json":
        write_transforms(folder, k1=0.01)
        return folder / case, lambda: read_transforms(folder / case)
    if case.startswith("photograph"):
        write_transforms(folder, names=(case,), k1=0.01)
        buffer = io.BytesIO()
        Image.fromarray(picture(12, 16)).save(buffer, "png" if case.endswith("png") else "jpeg")
        (folder / "images" / case).write_bytes(buffer.getvalue())
        return folder / "images" / case, lambda: load_capture(folder, cache_dir=folder / "cache")
    form, name = case.split("/")
    shutil.copytree(COLMAP / form, folder / "sparse" / "0")
    return folder / "sparse" / "0" / name, lambda: read_largest(folder)


def _survives(folder: pathlib.Path, case: str, count: int) -> None:
    path, read = _prepare(folder, case)
    original = path.read_bytes()
    refused = 0
    read()
    tracemalloc.start()
    try:
        for number, mutant in enumerate(mutants(original, count)):
            path.write_bytes(mutant)
            tracemalloc.reset_peak()
            start = time.perf_counter()
            try:
                result = read()
            except InputError as error:
                assert "\n" not in str(error), f"mutant {number}"
                refused += 1
            else:
                poses = [view.camera_from_world for view in result.views] if hasattr(result, "views") else []
                assert all(np.isfinite(pose).all() for pose in poses), f"mutant {number}"
            assert time.perf_counter() - start < 2, f"mutant {number} took long"
            assert tracemalloc.get_traced_memory()[1] < 3 * len(mutant) + (64 << 20), f"mutant {number} took memory"
    finally:
        tracemalloc.stop()
    assert refused > count // 20


@pytest.mark.parametrize("case", CASES)
def test_300_mutants(tmp_path, case):
    _survives(tmp_path, case, 300)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_10000_mutants(tmp_path, case):
    _survives(tmp_path, case, 10_000)
