"""Files of weights of any network: what is written comes back, anything else is refused before it is read.

The networks' own files are tested beside them, `tests/experiments/prior/weights_test.py` with damage of all kinds.
"""

import dataclasses
import json
import os
from typing import Literal

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import weights_files
from experiments.errors import InputError

_KIND = weights_files.Kind(name="a toy", format="toy 1", file="toy.safetensors", command="make toy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    rows: int = 3
    rate: float = 0.5
    arithmetic: Literal["float32", "bfloat16"] = "float32"


_RANGES = {"rows": (1, 8), "rate": (0, 1)}
_PARAMS = {"table": np.arange(6.0, dtype=np.float32).reshape(3, 2) / 7, "scale": np.float32(1.25)}


def target(rows=3):
    return {"table": jax.ShapeDtypeStruct((rows, 2), np.float32), "scale": jax.ShapeDtypeStruct((), np.float32)}


@pytest.fixture
def file(tmp_path):
    header = {"toy": dataclasses.asdict(Settings(rate=0.25)), "vocabulary": ("a", "b"), "about": {"steps": 7}}
    weights_files.save(tmp_path / "toy.safetensors", _KIND, _PARAMS, header)
    return tmp_path / "toy.safetensors"


def read(file):
    with weights_files.opened(file, _KIND) as stored:
        settings = weights_files.settings_of(Settings(), stored.entry("toy"), _RANGES)
        return settings, stored.vocabulary(("a", "b")), stored.about(), stored.params(target(settings.rows))


def changed(file, entries=None, tensors=None):
    with safetensors.safe_open(file, framework="numpy") as stored:
        header = {**stored.metadata(), **{name: json.dumps(value) for name, value in (entries or {}).items()}}
    safetensors.numpy.save_file({**safetensors.numpy.load_file(file), **(tensors or {})}, file, header)
    return file


def refused(file, path="named"):
    with pytest.raises(InputError) as caught:
        weights_files.load(_KIND, None if path is None else file, file, read)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def test_weights_come_back_to_half_precision_and_the_header_as_it_was(file):
    settings, vocabulary, about, params = weights_files.load(_KIND, file, file, read)
    assert settings == Settings(rate=0.25) and vocabulary == ("a", "b") and about == {"steps": 7}
    for name, array in _PARAMS.items():
        assert params[name].dtype == np.float32
        np.testing.assert_array_equal(params[name], np.asarray(array).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1], "not an object"),
        ({"columns": 2}, "'columns' is no setting"),
        ({"rows": 9}, "rows must be 1 .. 8, got 9"),
        ({"rows": True}, "got True"),
        ({"rows": 2.0}, "got 2.0"),
        ({"rate": float("nan")}, "got nan"),
        ({"rate": "0.1"}, "got '0.1'"),
        ({"arithmetic": "float64"}, "float32, bfloat16"),
        ({"arithmetic": ["float32"]}, "arithmetic"),
    ],
)
def test_settings_from_outside_are_checked(values, words):
    with pytest.raises(ValueError, match=words):
        weights_files.settings_of(Settings(), values, _RANGES)
    assert weights_files.settings_of(Settings(), {"rate": 1}, _RANGES) == Settings(rate=1)


def test_what_does_not_fit_is_refused_before_a_tensor_is_read(file, monkeypatch):
    monkeypatch.setattr(weights_files.Stored, "_tensor", lambda *_: pytest.fail("a tensor was read"))
    original = file.read_bytes()
    for entries, tensors, words in (
        ({"toy": {"rows": 4}}, None, "table is F16[3, 2], expected F16[4, 2]"),
        (None, {"other": np.zeros(2, np.float16)}, "'other'"),
        (None, {"scale": np.zeros((), np.int16)}, "I16[]"),
        ({"vocabulary": ["a", "c"]}, None, "another vocabulary (b, c)"),
        ({"vocabulary": ["b", "a"]}, None, "in another order"),
        ({"vocabulary": 5}, None, "vocabulary is not a list"),
        ({"about": []}, None, "about is not an object"),
    ):
        file.write_bytes(original)
        assert words in refused(changed(file, entries, tensors))


def test_numbers_that_are_none_are_neither_written_nor_read(file, tmp_path):
    assert "scale has 1 entries that are not finite" in refused(
        changed(file, tensors={"scale": np.full((), np.inf, np.float16)})
    )
    before = file.read_bytes()
    with pytest.raises(ValueError, match="scale do not fit half precision: largest 70000"):
        weights_files.save(file, _KIND, {"scale": np.float32(7e4)}, {})
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_what_is_no_file_of_weights_is_refused_in_one_line(file, tmp_path):
    assert "came without weights" in refused(tmp_path / "none", None)
    assert "make toy" in refused(tmp_path / "none") and "toy.safetensors" in refused(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")  # opening one would wait for a writer
    assert "no regular file" in refused(tmp_path / "pipe")
    os.truncate(file, 2**40)  # a terabyte of holes
    assert "more than a toy has" in refused(file)
