"""A fitted field from its workdir: what other programs ask for density and colour."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import checkpoints, finite, manifest, orbax_arrays
from experiments.errors import InputError
from experiments.fields import rendering, training
from experiments.fields.model import merged
from experiments.fields.rendering import Setup
from experiments.fields.settings import FieldConfig
from experiments.splats.scene import Normalisation
from renderers.fields.nerf import NerfField
from renderers.volumes import occupancy

FieldFunction = Callable[[Array, Array], tuple[Array, Array]]


class LoadedField(NamedTuple):
    """A field in its capture's world.

    Attributes:
      field: jitted; from points `[n, 3]` and unit directions `[n, 3]`, to densities `[n]` per world unit and sRGB
        colours `[n, 3]`. Space that training found empty, and what is outside an object's box, has density zero.
      box: lowest and highest corner of what is resolved finely: an object's box, or that of the cameras.
      settings: of the run.
    """

    field: FieldFunction
    box: Float[np.ndarray, "2 3"]
    settings: FieldConfig


class Fitted(NamedTuple):
    """A fitted field in the frame that it was optimised in, with all that rendering it takes."""

    state: training.State
    config: FieldConfig
    setup: Setup
    frame: Normalisation


def load_fitted(workdir: str | pathlib.Path) -> Fitted:
    """Read the newest good checkpoint of a `fit_field` run; nothing in the folder is changed.

    Raises:
      InputError: no run of `fit_field` is there, or it has no checkpoint that is whole.
    """
    folder = pathlib.Path(workdir)
    config = _settings(folder)
    found = _newest(folder)
    setup = Setup(unbounded=bool(found.aux["unbounded"]), masked=False, background=0.0, random_background=False)
    state = _state(folder / "checkpoints" / str(found.step), found, config, setup)
    return Fitted(state, config, setup, Normalisation(np.array(found.aux["frame"][:3]), float(found.aux["frame"][3])))


def load_field(workdir: str | pathlib.Path) -> LoadedField:
    """The field of a `fit_field` run as a function of world points; see `load_fitted`.

    Raises:
      InputError: as `load_fitted`.
    """
    state, config, setup, frame = load_fitted(workdir)
    center, scale = frame.center, frame.scale
    shift = jnp.asarray(center[None], jnp.float32)

    @jax.jit
    def field(points, directions):
        density, color = ask(state, (points - shift) / scale, directions, config, setup)
        return density / scale, color

    return LoadedField(field, np.stack([center - scale, center + scale]), config)


def ask(
    state: training.State,
    points: Float[Array, "n 3"],
    directions: Float[Array, "n 3"],
    config: FieldConfig,
    setup: Setup,
) -> tuple[Float[Array, " n"], Float[Array, "n 3"]]:
    """Density per normalised unit, zero in cells found empty, and colour, at points of the normalised frame."""
    model = merged(state.params, config, unbounded=setup.unbounded)
    if isinstance(model.field, NerfField):
        density, color = model.field(points, directions)
    else:
        density, color = rendering.density(model, points, config), model.field(points, directions).color
    if not setup.unbounded:
        density = jnp.where(occupancy.is_occupied(state.grid, points), density, 0.0)
    return density, jnp.clip(color, 0.0, 1.0)


def _settings(folder: pathlib.Path) -> FieldConfig:
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if described["name"] != "fit_field":
            raise InputError(f"{folder} is a run of {described['name']}; expected one of fit_field")
        return _from_flags(FieldConfig(), described["flags"], "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not describe a run of fit_field ({error})") from error


def _from_flags(default: Any, flags: dict[str, Any], prefix: str) -> Any:
    given = {}
    for item in dataclasses.fields(default):
        name, value = prefix + item.name, getattr(default, item.name)
        if dataclasses.is_dataclass(value):
            given[item.name] = _from_flags(value, flags, name + ".")
        elif name in flags:
            given[item.name] = flags[name]
    return dataclasses.replace(default, **given)


def _newest(folder: pathlib.Path) -> manifest.Manifest:
    for step in reversed(checkpoints.Checkpoints(folder / "checkpoints").steps()):
        try:
            return manifest.verify(folder / "checkpoints" / str(step))
        except manifest.DamagedError:
            continue
    raise InputError(f"{folder} has no checkpoint that is whole; run fit_field with --workdir={folder}")


def _state(folder: pathlib.Path, found: manifest.Manifest, config: FieldConfig, setup: Setup) -> training.State:
    target = jax.eval_shape(lambda: training.fresh_state(config, setup, None))
    arrays = orbax_arrays.read_arrays(folder, found.leaves)

    def read(path, leaf):
        array = arrays.get(finite.leaf_name(path))
        if array is None or array.shape != leaf.shape:
            raise InputError(f"{folder} does not fit the settings in config.json: {finite.leaf_name(path)}")
        return jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(read, target)
