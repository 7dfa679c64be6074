"""A fitted field as the input of a reconstruction."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.errors import InputError
from experiments.fields import surface
from experiments.fields.loading import Fitted, load_fitted
from experiments.fields.rendering import FieldRenderer
from experiments.reconstruction.pictures import Pictures
from experiments.reconstruction.settings import ReconstructConfig
from renderers.cameras.camera import Camera
from renderers.meshes.mesh import Mesh


def is_run(folder: pathlib.Path) -> bool:
    """Whether the folder is that of a fit_field run."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("name") == "fit_field"
    except (OSError, ValueError, AttributeError):
        return False


def load(folder: pathlib.Path) -> Fitted:
    """The newest good state of a run.

    Raises:
      InputError: no checkpoint that is whole.
    """
    return load_fitted(folder)


def extract(field: Fitted, config: ReconstructConfig) -> Mesh:
    """The textured surface in the field's normalised frame.

    Raises:
      InputError: the field has no surface at this level.
    """
    chosen = dataclasses.replace(
        field.config.mesh,
        resolution=config.resolution,
        faces=config.faces,
        texture=config.texture,
        **({} if config.level is None else {"level": config.level}),
    )
    mesh = surface.extract(field.state, dataclasses.replace(field.config, mesh=chosen), field.setup)
    if mesh is None:
        raise InputError(f"no surface in {config.input}; try another --level")
    return mesh


def in_world(mesh: Mesh, field: Fitted) -> Mesh:
    """The mesh in the frame of the capture that the field was fitted to."""
    return surface.in_world(mesh, field.frame)


def take(field: Fitted, views: Sequence[Camera]) -> Pictures:
    """Renders a field from cameras of its normalised frame."""
    renderer, black = FieldRenderer(field.config, field.setup), np.zeros(3, np.float32)
    colors, alphas, depths = [], [], []
    for camera in views:
        color, distance, opacity = renderer.image(field.state, camera, black)
        colors.append(color)
        alphas.append(opacity)
        depths.append(distance)
    return Pictures(cameras=tuple(views), colors=tuple(colors), alphas=tuple(alphas), depths=tuple(depths))
