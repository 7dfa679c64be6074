"""The two towers' weights as a file (see `experiments.weights_files`); settings and vocabulary are in the header."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from experiments import weights_files
from experiments.data.blocks.descriptions import vocabulary as world_vocabulary
from experiments.retrieval import model
from experiments.retrieval.settings import TowerSettings

SHIPPED = pathlib.Path(__file__).parent / "weights" / "towers.safetensors"
PROGRAM = "train_retrieval"
_KIND = weights_files.Kind(
    name="a pair of retrieval towers",
    format="galatea3d retrieval towers 1",
    file=SHIPPED.name,
    command=f"python -m experiments.{PROGRAM} --max_seconds=900",
)
_RANGES = {
    **{name: (1, 512) for name in ("size", "patch")},
    **{name: (1, 4096) for name in ("width", "joint")},
    "depth": (1, 64),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Towers:
    """A trained two-tower model.

    Attributes:
      settings: of its network.
      params: its weights, float32.
      vocabulary: words of captions by their number.
      about: where they come from: steps, objects, seconds, command, R-precision.
    """

    settings: TowerSettings
    params: Any
    vocabulary: tuple[str, ...]
    about: Mapping[str, Any]


def save_towers(path: str | os.PathLike[str], towers: Towers) -> None:
    """Writes a two-tower model, atomically; weights are rounded to half precision.

    Raises:
      ValueError: a weight is not finite in half precision.
      InputError, NoRoomError: the file cannot be written.
    """
    header = {"tower": dataclasses.asdict(towers.settings), "vocabulary": towers.vocabulary, "about": towers.about}
    weights_files.save(path, _KIND, towers.params, header)


def load_towers(path: str | os.PathLike[str] | None = None) -> Towers:
    """Reads a two-tower model; nothing is changed on disk.

    Args:
      path: a file of `save_towers`, or the folder of a finished run of `train_retrieval`; None for the file that comes
        with the program.

    Raises:
      InputError: missing, damaged, or of something else; one line.
    """
    return weights_files.load(_KIND, path, SHIPPED, _read)


def _read(file: pathlib.Path) -> Towers:
    with weights_files.opened(file / _KIND.file if file.is_dir() else file, _KIND) as stored:
        settings = weights_files.settings_of(TowerSettings(), stored.entry("tower"), _RANGES)
        vocabulary, about = stored.vocabulary(world_vocabulary()), stored.about()
        params = stored.params(jax.eval_shape(lambda: model.initial_params(settings, 0)))
    return Towers(settings=settings, params=params, vocabulary=vocabulary, about=about)
