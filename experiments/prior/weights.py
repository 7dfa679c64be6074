"""The prior's weights as a file (see `experiments.weights_files`), or as the newest checkpoint of a run.

The header holds the settings of network and process, the vocabulary, and where the weights come from.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments import checkpoints, finite, manifest, orbax_arrays, weights_files
from experiments.data.blocks.descriptions import vocabulary as world_vocabulary
from experiments.data.named_meshes import captions_of
from experiments.errors import InputError
from experiments.prior import model
from experiments.prior.rings import tokenizer
from experiments.prior.settings import DiffusionSettings, ModelSettings

SHIPPED = pathlib.Path(__file__).parent / "weights" / "prior.safetensors"
_PROGRAM = "train_multiview"
_KIND = weights_files.Kind(
    name="a prior",
    format="galatea3d multi-view prior 1",
    file=SHIPPED.name,
    command=f"python -m experiments.{_PROGRAM} --max_seconds=3600",
)
_MODEL_RANGES = {
    **{name: (1, 512) for name in ("size", "patch")},
    **{name: (0, 64) for name in ("rim", "text_depth")},
    **{name: (64, 4096) for name in ("width", "text_width")},
    "depth": (1, 64),
    "words": (0, 65_536),
}
_DIFFUSION_RANGES = {"shift": (1e-3, 1e3), "most": (1e-6, 1e6), "drop_caption": (0, 1), "given": (0, 1)}


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
    header = {
        "model": dataclasses.asdict(prior.settings),
        "diffusion": dataclasses.asdict(prior.diffusion),
        "vocabulary": prior.vocabulary,
        "about": prior.about,
    }
    weights_files.save(path, _KIND, prior.params, header)


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
    prior = weights_files.load(_KIND, path, SHIPPED, lambda file: _of_run(file) if file.is_dir() else _of_file(file))
    return dataclasses.replace(prior, settings=weights_files.for_this_device(prior.settings))


def about_run(folder: pathlib.Path, step: int, seconds: float) -> dict[str, Any]:
    """Where weights of a run come from, by its config.json.

    Raises:
      InputError: the folder holds no run of `train_multiview`.
    """
    flags = weights_files.described_run(folder, _PROGRAM)["flags"]
    return {**weights_files.origin(folder, _PROGRAM, step, seconds), "rings": step * flags["optimizer.batch"]}


def _of_file(file: pathlib.Path) -> Prior:
    with weights_files.opened(file, _KIND) as stored:
        settings = weights_files.settings_of(ModelSettings(), stored.entry("model"), _MODEL_RANGES)
        diffusion = weights_files.settings_of(DiffusionSettings(), stored.entry("diffusion"), _DIFFUSION_RANGES)
        known = world_vocabulary()
        vocabulary, about = stored.vocabulary(known, most=settings.words or len(known)), stored.about()
        params = stored.params(_shapes(settings))
    return Prior(settings=settings, diffusion=diffusion, params=params, vocabulary=vocabulary, about=about)


def _of_run(folder: pathlib.Path) -> Prior:
    flags = weights_files.described_run(folder, _PROGRAM)["flags"]
    named = flags.get("named.folder")
    vocabulary = tokenizer([] if named is None else captions_of(named)).vocabulary
    settings = weights_files.settings_of(ModelSettings(), _below("model.", flags), _MODEL_RANGES)
    settings = model.with_words(settings, len(vocabulary))
    diffusion = weights_files.settings_of(DiffusionSettings(), _below("diffusion.", flags), _DIFFUSION_RANGES)
    found = _newest(folder)
    arrays = orbax_arrays.read_arrays(folder / "checkpoints" / str(found.step), found.leaves)

    def read(path, leaf):
        name = finite.leaf_name(path)
        array = arrays.get(f"average.{name}")
        if array is None or array.shape != leaf.shape:
            raise ValueError(f"its checkpoint does not fit config.json: {name}")
        return jnp.asarray(array)

    params = jax.tree_util.tree_map_with_path(read, _shapes(settings))
    about = about_run(folder, found.step, found.aux.get("seconds", 0.0))
    return Prior(settings=settings, diffusion=diffusion, params=params, vocabulary=vocabulary, about=about)


def _below(prefix: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in flags.items() if name.startswith(prefix)}


def _newest(folder: pathlib.Path) -> manifest.Manifest:
    for step in reversed(checkpoints.Checkpoints(folder / "checkpoints").steps()):
        try:
            return manifest.verify(folder / "checkpoints" / str(step))
        except (manifest.DamagedError, manifest.NewerFormatError):
            continue
    raise InputError(
        f"{weights_files.shown(folder)} has no checkpoint that is whole; train longer, or name a .safetensors file"
    )


@functools.lru_cache(maxsize=8)
def _shapes(settings: ModelSettings):
    return jax.eval_shape(lambda: model.initial_params(settings, 0))
