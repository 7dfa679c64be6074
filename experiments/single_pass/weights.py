"""The tri-plane transformer's weights as a file: safetensors in half precision, its settings in the header.

Tensors are named by their path in the network (`layers.0.mixed.kernel`). Names, shapes and sizes are checked against
what the settings ask for before any tensor is read.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from experiments import finite, workdir
from experiments.errors import InputError
from experiments.single_pass import model
from experiments.single_pass.settings import ModelSettings

SHIPPED = pathlib.Path(__file__).parent / "weights" / "single_pass.safetensors"
_FORMAT = "galatea3d tri-plane transformer 1"
_MOST_BYTES = 256 * 2**20
_RANGES = {
    **{name: (1, 512) for name in ("size", "patch", "texels", "cell", "features", "hidden")},
    "width": (64, 4096),
    "depth": (1, 64),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SinglePass:
    """A trained reconstructor.

    Attributes:
      settings: of its network.
      params: its weights, float32.
      about: where they come from: steps, objects, seconds, errors.
    """

    settings: ModelSettings
    params: Any
    about: Mapping[str, Any]


def save_single_pass(path: str | os.PathLike[str], trained: SinglePass) -> None:
    """Writes a reconstructor, atomically; weights are rounded to half precision.

    Raises:
      ValueError: a weight is not finite in half precision.
      InputError, NoRoomError: the file cannot be written.
    """
    arrays = {}
    for name, leaf in _named(trained.params).items():
        with np.errstate(over="ignore"):
            arrays[name] = np.asarray(leaf).astype(np.float16)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"the weights {name} do not fit half precision: largest {np.abs(np.asarray(leaf)).max()}")
    header = {
        "format": _FORMAT,
        "model": json.dumps(dataclasses.asdict(trained.settings)),
        "about": json.dumps(workdir.to_jsonable(trained.about)),
    }
    workdir.write_bytes_atomic(path, safetensors.numpy.save(arrays, header))


def load_single_pass(path: str | os.PathLike[str] | None = None) -> SinglePass:
    """Reads a reconstructor.

    Args:
      path: a file of `save_single_pass`, or the folder of a finished run of `train_single_pass`; None for the file that
        comes with the program.

    Returns:
      It; on the CPU its arithmetic is float32 whatever it was trained with.

    Raises:
      InputError: missing, damaged, or of something else; one line.
    """
    file = SHIPPED if path is None else pathlib.Path(path)
    shown = repr(str(file))[1:-1][:300]
    try:
        trained = _read(file / "single_pass.safetensors" if file.is_dir() else file)
    except FileNotFoundError as error:
        what = "the program came without these weights" if path is None else "no weights there"
        raise InputError(
            f"{shown}: {what}; train some with `python -m experiments.train_single_pass --max_seconds=3600` and name "
            "the single_pass.safetensors that it leaves"
        ) from error
    except (OSError, ValueError, safetensors.SafetensorError, RecursionError) as error:  # a bad path is a ValueError
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{shown} is not a tri-plane transformer of this version: {reason}") from error
    if jax.default_backend() == "cpu":
        trained = dataclasses.replace(trained, settings=dataclasses.replace(trained.settings, arithmetic="float32"))
    return trained


def _read(file: pathlib.Path) -> SinglePass:
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{size:,} bytes are more than it has")
    with safetensors.safe_open(file, framework="numpy") as stored:
        header = stored.metadata() or {}
        if header.get("format") != _FORMAT:
            raise ValueError(f"its format is {header.get('format')!r}, not {_FORMAT!r}")
        settings = _settings(_json(header, "model"))
        model.network_config(settings)  # raises for sizes that do not go together
        target = jax.eval_shape(lambda: model.initial_params(settings, 0))
        wanted, names = _named(target), set(stored.keys())
        if names != wanted.keys():
            raise ValueError(
                f"it lacks {sorted(wanted.keys() - names)[:3]} and has {sorted(names - wanted.keys())[:3]}"
            )
        for name, leaf in wanted.items():
            found = stored.get_slice(name)
            if tuple(found.get_shape()) != leaf.shape or found.get_dtype() not in ("F16", "F32"):
                raise ValueError(f"{name} is {found.get_dtype()}{found.get_shape()}, expected F16{list(leaf.shape)}")
        params = jax.tree_util.tree_map_with_path(lambda path, _: _tensor(stored, _name(path)), target)
    about = _json(header, "about")
    return SinglePass(settings=settings, params=params, about=about if isinstance(about, dict) else {})


def _tensor(stored, name: str) -> jax.Array:
    array = stored.get_tensor(name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.sum(~np.isfinite(array))} entries that are not finite")
    return jnp.asarray(array, jnp.float32)


def _settings(values: Any) -> ModelSettings:
    default = ModelSettings()
    if not isinstance(values, dict) or values.keys() != dataclasses.asdict(default).keys():
        raise ValueError("its settings are not those of this version")
    for name, value in values.items():
        low, high = _RANGES.get(name, (0, 0))
        sound = (
            value in ("float32", "bfloat16") if name == "arithmetic" else type(value) is int and low <= value <= high
        )
        if not sound:
            raise ValueError(f"{name} is {value!r:.40}")
    return ModelSettings(**values)


def _json(header: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(header[name])
    except (KeyError, ValueError) as error:
        raise ValueError(f"its header has no readable {name}") from error


def _named(params) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def _name(path) -> str:
    return finite.leaf_name(path).removesuffix(".value")
