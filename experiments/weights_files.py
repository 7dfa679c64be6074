"""Weights as files: safetensors in half precision, what they are the weights of written in the header as JSON.

Tensors are named by their path in the network (`layers.0.mixed.kernel`). Files come from outside: their size, the name
of their format, the settings, and name, shape and type of all tensors are checked before any tensor is read. Nothing in
a file can make a program allocate more than its network needs, or run anything.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import stat
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from experiments import finite, workdir
from experiments.errors import InputError

_MOST_BYTES = 256 * 2**20
_LoadedT = typing.TypeVar("_LoadedT")
_SettingsT = typing.TypeVar("_SettingsT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the files of one network are called.

    Attributes:
      name: what they hold, with its article: messages say "is not a prior".
      format: what their header says that they are, a version in it.
      file: the name under which a training leaves one.
      command: a training that leaves one.
    """

    name: str
    format: str
    file: str
    command: str


def save(path: str | os.PathLike[str], kind: Kind, params: Any, header: Mapping[str, Any]) -> None:
    """Writes weights, atomically, rounded to half precision.

    Args:
      path: the file.
      kind: of the weights.
      params: a pytree of arrays.
      header: what else is to be known, by name; see `workdir.to_jsonable`.

    Raises:
      ValueError: a weight is not finite in half precision.
      InputError, NoRoomError: the file cannot be written.
    """
    arrays = {}
    for name, leaf in _named(params).items():
        with np.errstate(over="ignore"):
            arrays[name] = np.asarray(leaf).astype(np.float16)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"the weights {name} do not fit half precision: largest {np.abs(np.asarray(leaf)).max()}")
    entries = {name: json.dumps(workdir.to_jsonable(value)) for name, value in header.items()}
    workdir.write_bytes_atomic(path, safetensors.numpy.save(arrays, {**entries, "format": kind.format}))


def load(
    kind: Kind,
    path: str | os.PathLike[str] | None,
    shipped: pathlib.Path,
    read: Callable[[pathlib.Path], _LoadedT],
) -> _LoadedT:
    """What `read` makes of a file or folder that a user named; its failures become one line.

    Args:
      kind: of the weights.
      path: what was named; None for `shipped`.
      shipped: where the weights are that come with the program.
      read: raises OSError or ValueError, `safetensors.SafetensorError` or InputError, the last with a line of its own.

    Raises:
      InputError: missing, damaged, or of something else.
    """
    file = shipped if path is None else pathlib.Path(path)
    try:
        return read(file)
    except FileNotFoundError as error:
        what = "the program came without weights" if path is None else "no weights there"
        raise InputError(
            f"{shown(file)}: {what}; train some with `{kind.command}` and name the {kind.file} that it leaves"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError, safetensors.SafetensorError, RecursionError) as error:  # a bad path is a ValueError
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{shown(file)} is not {kind.name} of this version: {reason}") from error


@contextlib.contextmanager
def opened(file: pathlib.Path, kind: Kind) -> Iterator["Stored"]:
    """A file of weights, nothing but its header read.

    Raises:
      OSError, safetensors.SafetensorError: it is missing or damaged.
      ValueError: it is too large, or of another format.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if found.st_size > _MOST_BYTES:
        raise ValueError(f"{found.st_size:,} bytes are more than {kind.name} has")
    with safetensors.safe_open(file, framework="numpy") as stored:
        header = stored.metadata() or {}
        if header.get("format") != kind.format:
            raise ValueError(f"its format is {header.get('format')!r}, not {kind.format!r}")
        yield Stored(stored, header)


class Stored:
    """An open file of weights: its header's entries and its tensors, each checked as it is read.

    Args:
      file: of safetensors.
      header: its metadata.
    """

    def __init__(self, file: Any, header: Mapping[str, str]) -> None:
        self._file, self._header = file, header

    def entry(self, name: str) -> Any:
        """A value of the header.

        Raises:
          ValueError: there is none, or it is not JSON.
        """
        try:
            return json.loads(self._header[name])
        except (KeyError, ValueError) as error:
            raise ValueError(f"its header has no readable {name}") from error

    def about(self) -> dict[str, Any]:
        """The header's `about`: where the weights come from.

        Raises:
          ValueError: it is no object.
        """
        about = self.entry("about")
        if not isinstance(about, dict):
            raise ValueError("about is not an object")
        return about

    def vocabulary(self, known: Sequence[str], *, most: int | None = None) -> tuple[str, ...]:
        """The header's `vocabulary`: the known words, after which others may come.

        Args:
          known: words that it begins with.
          most: words in all; None for no others.

        Raises:
          ValueError: it does not begin with the known words, of which some that differ are named, or others are not
            words, come twice or are too many.
        """
        found = self.entry("vocabulary")
        if not isinstance(found, list):
            raise ValueError("vocabulary is not a list")
        others, room = found[len(known) :], 0 if most is None else most - len(known)
        sound = all(isinstance(word, str) and word.isalpha() and len(word) < 64 for word in others)
        if found[: len(known)] != list(known) or not sound or len(others) > room or len(set(found)) < len(found):
            different = sorted({str(word)[:20] for word in {*map(str, found)} ^ {*known}})[:6]
            words = f" ({', '.join(different)})" if different else ", in another order"
            raise ValueError(f"it was trained with another vocabulary{words}")
        return tuple(found)

    def params(self, target: Any) -> Any:
        """All tensors, float32, on the default device.

        Args:
          target: the pytree that is expected, of what `jax.eval_shape` gives; nothing of it is allocated.

        Raises:
          ValueError: tensors are missing, are too many, or have another shape or type; all that before one is read. An
            entry of one is not finite.
        """
        self._check(_named(target))
        return jax.tree_util.tree_map_with_path(lambda path, _: self._tensor(_name(path)), target)

    def _check(self, wanted: Mapping[str, Any]) -> None:
        names = set(self._file.keys())
        if missing := sorted(wanted.keys() - names):
            raise ValueError(f"{missing[0]} and {len(missing) - 1} more tensors are missing")
        if more := sorted(names - wanted.keys()):
            raise ValueError(f"{more[0]!r} and {len(more) - 1} more tensors are none of the network's")
        for name, leaf in wanted.items():
            found = self._file.get_slice(name)
            if tuple(found.get_shape()) != leaf.shape or found.get_dtype() not in ("F16", "F32"):
                raise ValueError(f"{name} is {found.get_dtype()}{found.get_shape()}, expected F16{list(leaf.shape)}")

    def _tensor(self, name: str) -> jax.Array:
        array = self._file.get_tensor(name)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has {np.sum(~np.isfinite(array))} entries that are not finite")
        return jnp.asarray(array, jnp.float32)


def settings_of(default: _SettingsT, values: Any, ranges: Mapping[str, tuple[float, float]]) -> _SettingsT:
    """Settings with values from outside; what they leave out keeps its default.

    Args:
      default: a dataclass of numbers and literals.
      values: JSON.
      ranges: least and greatest value of each number.

    Raises:
      ValueError: an unknown name, or a value that is none.
    """
    if not isinstance(values, dict):
        raise ValueError("settings are not an object")
    kinds = typing.get_type_hints(type(default))
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{name!r} is no setting of this version")
        if choices := typing.get_args(kinds[name]):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r:.40}")
            continue
        low, high = ranges[name]
        fits = type(value) is int or (type(value) is float and kinds[name] is float)
        if not fits or not low <= value <= high:
            raise ValueError(f"{name} must be {low} .. {high}, got {value!r:.40}")
    return dataclasses.replace(default, **values)  # pyright: ignore[reportArgumentType] - a dataclass


def for_this_device(settings: _SettingsT) -> _SettingsT:
    """Settings with an `arithmetic` as they are computed with here: the CPU has no use for bfloat16."""
    if jax.default_backend() != "cpu":
        return settings
    return dataclasses.replace(settings, arithmetic="float32")  # pyright: ignore[reportArgumentType] - a dataclass


def described_run(folder: pathlib.Path, program: str) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
      InputError: the folder holds no run of the program.
    """
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if described["name"] != program:
            raise InputError(f"{shown(folder)} is a run of {described['name']!r}, expected one of {program}")
        return described
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{shown(folder)} is not the folder of a run of {program} ({error})") from error


def origin(folder: pathlib.Path, program: str, step: int, seconds: float) -> dict[str, Any]:
    """Where the weights of a run on the block world come from, by its config.json.

    Raises:
      InputError: the folder holds no run of the program.
    """
    described = described_run(folder, program)
    return {
        "steps": step,
        "seconds": round(seconds, 1),
        "command": " ".join([f"python -m experiments.{program}", *described["argv"][1:]]),
        "data_seed": described["flags"]["data.seed"],
        "seed": described["flags"]["seed"],
        **{name: described[name] for name in ("device", "packages", "git_commit")},
    }


def shown(path: pathlib.Path) -> str:
    """A path as a message has it: on one line, not longer than that."""
    return repr(str(path))[1:-1][:300]


def _named(params) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def _name(path) -> str:
    return finite.leaf_name(path).removesuffix(".value")
