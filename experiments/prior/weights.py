"""The prior's weights as a file: safetensors in half precision, what they are the weights of written in its header.

Tensors are named by their path in the network (`layers.0.mixed.kernel`). The header's metadata, JSON strings all, hold
the settings of network and process, the vocabulary, and where the weights come from. A file is checked before any of
its tensors is read: nothing in it can make this program allocate more than a prior needs, or run anything.
"""

import dataclasses
import functools
import json
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from experiments import checkpoints, finite, manifest, orbax_arrays, workdir
from experiments.data.blocks.descriptions import vocabulary as world_vocabulary
from experiments.errors import InputError
from experiments.prior import model
from experiments.prior.settings import DiffusionSettings, ModelSettings

SHIPPED = pathlib.Path(__file__).parent / "weights" / "prior.safetensors"
_FORMAT = "galatea3d multi-view prior 1"
_MOST_BYTES = 256 * 2**20
_RANGES = {
    **{name: (1, 512) for name in ("size", "patch")},
    **{name: (0, 64) for name in ("rim", "text_depth")},
    **{name: (64, 4096) for name in ("width", "text_width")},
    **{"depth": (1, 64), "shift": (1e-3, 1e3), "most": (1e-6, 1e6), "drop_caption": (0, 1), "given": (0, 1)},
}
_SettingsT = typing.TypeVar("_SettingsT", ModelSettings, DiffusionSettings)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """A trained prior.

    Attributes:
      settings: of its network.
      diffusion: of the process that it inverts.
      params: its weights, float32.
      vocabulary: words of captions by their number.
      about: where it comes from: steps, seconds, command, data_seed, device, git_commit.
    """

    settings: ModelSettings
    diffusion: DiffusionSettings
    params: Any
    vocabulary: tuple[str, ...]
    about: Mapping[str, Any]


def save_prior(path: str | os.PathLike[str], prior: Prior) -> None:
    """Writes a prior, atomically; weights are rounded to half precision.

    Raises:
      ValueError: a weight is not finite in half precision.
      InputError, NoRoomError: the file cannot be written.
    """
    arrays = {}
    for name, leaf in _named(prior.params).items():
        with np.errstate(over="ignore"):
            arrays[name] = np.asarray(leaf).astype(np.float16)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"the weights {name} do not fit half precision: largest {np.abs(np.asarray(leaf)).max()}")
    header = {
        "format": _FORMAT,
        "model": json.dumps(dataclasses.asdict(prior.settings)),
        "diffusion": json.dumps(dataclasses.asdict(prior.diffusion)),
        "vocabulary": json.dumps(prior.vocabulary),
        "about": json.dumps(workdir.to_jsonable(prior.about)),
    }
    workdir.write_bytes_atomic(path, safetensors.numpy.save(arrays, header))


def load_prior(path: str | os.PathLike[str] | None = None) -> Prior:
    """Reads a prior; nothing is changed on disk.

    Args:
      path: a file of `save_prior`, or the folder of a run of `train_multiview`, of which the newest whole checkpoint's
        averaged weights are taken; None for the file that comes with the program.

    Returns:
      The prior; on the CPU its arithmetic is float32 whatever it was trained with.

    Raises:
      InputError: missing, damaged, or of something else; one line.
    """
    file = SHIPPED if path is None else pathlib.Path(path)
    try:
        prior = _of_run(file) if file.is_dir() else _of_file(file)
    except FileNotFoundError as error:
        what = "the program came without weights" if path is None else "no weights there"
        raise InputError(
            f"{_shown(file)}: {what}; train some with `python -m experiments.train_multiview --max_seconds=3600` "
            "and name the prior.safetensors that it leaves"
        ) from error
    except (OSError, ValueError, safetensors.SafetensorError, RecursionError) as error:  # a bad path is a ValueError
        if isinstance(error, InputError):
            raise
        raise _refused(file, error) from error
    if jax.default_backend() == "cpu":
        prior = dataclasses.replace(prior, settings=dataclasses.replace(prior.settings, arithmetic="float32"))
    return prior


def about_run(folder: pathlib.Path, step: int, seconds: float) -> dict[str, Any]:
    """Where weights of a run come from, by its config.json.

    Raises:
      InputError: the folder holds no run of `train_multiview`.
    """
    described = _described(folder)
    flags = described["flags"]
    return {
        "steps": step,
        "rings": step * flags["optimizer.batch"],
        "seconds": round(seconds, 1),
        "command": " ".join(["python -m experiments.train_multiview", *described["argv"][1:]]),
        "data_seed": flags["data.seed"],
        "seed": flags["seed"],
        "device": described["device"],
        "packages": described["packages"],
        "git_commit": described["git_commit"],
    }


def _of_file(file: pathlib.Path) -> Prior:
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise _refused(file, f"{size:,} bytes are more than a prior has")
    with safetensors.safe_open(file, framework="numpy") as stored:
        header = stored.metadata() or {}
        if header.get("format") != _FORMAT:
            raise _refused(file, f"its format is {header.get('format')!r}, not {_FORMAT!r}")
        settings = _settings(ModelSettings(), _json(header, "model"))
        diffusion = _settings(DiffusionSettings(), _json(header, "diffusion"))
        known = _json(header, "vocabulary")
        if known != list(world_vocabulary()):
            different = sorted({str(word)[:20] for word in {*map(str, known)} ^ {*world_vocabulary()}})[:6]
            words = f" ({', '.join(different)})" if different else ", in another order"
            raise _refused(file, f"it was trained with another vocabulary{words}")
        target = _shapes(settings)
        _check_tensors(stored, _named(target))
        params = jax.tree_util.tree_map_with_path(lambda path, _: _tensor(stored, _name(path)), target)
    about = _json(header, "about")
    if not isinstance(about, dict):
        raise ValueError("about is not an object")
    return Prior(settings=settings, diffusion=diffusion, params=params, vocabulary=tuple(known), about=about)


def _check_tensors(stored, wanted: Mapping[str, Any]) -> None:
    names = set(stored.keys())
    if missing := sorted(wanted.keys() - names):
        raise ValueError(f"{missing[0]} and {len(missing) - 1} more tensors are missing")
    if more := sorted(names - wanted.keys()):
        raise ValueError(f"{more[0]!r} and {len(more) - 1} more tensors are none of the network's")
    for name, leaf in wanted.items():
        found = stored.get_slice(name)
        if tuple(found.get_shape()) != leaf.shape or found.get_dtype() not in ("F16", "F32"):
            raise ValueError(f"{name} is {found.get_dtype()}{found.get_shape()}, expected F16{list(leaf.shape)}")


def _tensor(stored, name: str) -> jax.Array:
    array = stored.get_tensor(name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.sum(~np.isfinite(array))} entries that are not finite")
    return jnp.asarray(array, jnp.float32)


def _of_run(folder: pathlib.Path) -> Prior:
    flags = _described(folder)["flags"]
    settings = _settings(ModelSettings(), _below("model.", flags))
    diffusion = _settings(DiffusionSettings(), _below("diffusion.", flags))
    found = _newest(folder)
    arrays = orbax_arrays.read_arrays(folder / "checkpoints" / str(found.step), found.leaves)

    def read(path, leaf):
        array = arrays.get(f"average.{finite.leaf_name(path)}")
        if array is None or array.shape != leaf.shape:
            raise _refused(folder, f"its checkpoint does not fit config.json: {_name(path)}")
        return jnp.asarray(array)

    params = jax.tree_util.tree_map_with_path(read, _shapes(settings))
    about = about_run(folder, found.step, found.aux.get("seconds", 0.0))
    return Prior(settings=settings, diffusion=diffusion, params=params, vocabulary=world_vocabulary(), about=about)


def _below(prefix: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in flags.items() if name.startswith(prefix)}


def _newest(folder: pathlib.Path) -> manifest.Manifest:
    for step in reversed(checkpoints.Checkpoints(folder / "checkpoints").steps()):
        try:
            return manifest.verify(folder / "checkpoints" / str(step))
        except (manifest.DamagedError, manifest.NewerFormatError):
            continue
    raise InputError(f"{_shown(folder)} has no checkpoint that is whole; train longer, or name a .safetensors file")


def _described(folder: pathlib.Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if described["name"] != "train_multiview":
            raise InputError(f"{_shown(folder)} is a run of {described['name']!r}, expected one of train_multiview")
        return described
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{_shown(folder)} is not the folder of a run of train_multiview ({error})") from error


def _settings(default: _SettingsT, values: Any) -> _SettingsT:
    """Settings with values from outside; what they leave out keeps its default.

    Raises:
      ValueError: an unknown name, or a value that is none.
    """
    if not isinstance(values, dict):
        raise ValueError("settings are not an object")
    known = {item.name: getattr(default, item.name) for item in dataclasses.fields(default)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{name!r} is no setting of this version")
        if isinstance(known[name], str):
            if value not in ("float32", "bfloat16"):
                raise ValueError(f"{name} is {value!r}")
            continue
        low, high = _RANGES[name]
        fits = type(value) is int or (type(value) is float and isinstance(known[name], float))
        if not fits or not low <= value <= high:
            raise ValueError(f"{name} must be {low} .. {high}, got {value!r}")
    return dataclasses.replace(default, **values)


def _json(header: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(header[name])
    except (KeyError, ValueError) as error:
        raise ValueError(f"its header has no readable {name}") from error


@functools.lru_cache(maxsize=8)
def _shapes(settings: ModelSettings):
    return jax.eval_shape(lambda: model.initial_params(settings, 0))


def _named(params) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def _name(path) -> str:
    return finite.leaf_name(path).removesuffix(".value")


def _shown(file: pathlib.Path) -> str:
    return repr(str(file))[1:-1][:300]


def _refused(file: pathlib.Path, reason: object) -> InputError:
    text = " ".join(str(reason).split())[:300]
    return InputError(f"{_shown(file)} is not a multi-view prior of this version: {text}")
