"""The tri-plane transformer's weights as a file (see `experiments.weights_files`), its settings in the header."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from experiments import weights_files
from experiments.single_pass import model
from experiments.single_pass.settings import ModelSettings

SHIPPED = pathlib.Path(__file__).parent / "weights" / "single_pass.safetensors"
PROGRAM = "train_single_pass"
_KIND = weights_files.Kind(
    name="a tri-plane transformer",
    format="galatea3d tri-plane transformer 1",
    file=SHIPPED.name,
    command=f"python -m experiments.{PROGRAM} --max_seconds=3600",
)
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
    header = {"model": dataclasses.asdict(trained.settings), "about": trained.about}
    weights_files.save(path, _KIND, trained.params, header)


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
    trained = weights_files.load(_KIND, path, SHIPPED, _read)
    return dataclasses.replace(trained, settings=weights_files.for_this_device(trained.settings))


def _read(file: pathlib.Path) -> SinglePass:
    with weights_files.opened(file / _KIND.file if file.is_dir() else file, _KIND) as stored:
        settings = weights_files.settings_of(ModelSettings(), stored.entry("model"), _RANGES)
        about = stored.about()
        params = stored.params(jax.eval_shape(lambda: model.initial_params(settings, 0)))
    return SinglePass(settings=settings, params=params, about=about)
