"""Views to a textured mesh in one pass of the tri-plane transformer (after LRM, arXiv 2311.04400, and Instant3D)."""

import pathlib
import time

import numpy as np
from jaxtyping import Bool, Float

from experiments import progress
from experiments.errors import InputError
from experiments.generation.guides import Guide
from experiments.generation.results import Asset
from experiments.generation.routes.mesh import chosen_views
from experiments.generation.settings import TextTo3dConfig
from experiments.generation.single_pass_settings import SinglePassConfig
from experiments.generation.views import ring_of
from experiments.single_pass import reconstruct
from experiments.single_pass.weights import SinglePass, load_single_pass
from renderers.cameras.camera import Camera


def load(config: TextTo3dConfig, size: int) -> SinglePass:
    """The transformer of a run whose guide makes views of `size` pixels.

    Raises:
      InputError: the weights cannot be read, or are of views of another size.
    """
    trained = load_single_pass(config.single_pass.weights)
    if trained.settings.size != size:
        raise InputError(f"the transformer takes views of {trained.settings.size} pixels, the prior makes {size}")
    return trained


def make(
    guide: Guide, config: TextTo3dConfig, folder: pathlib.Path, stop, *, trained: SinglePass | None = None
) -> Asset:
    """The asset that the transformer sees in a guide's views.

    Leaves views.npz and previews/views.png, by which a resumed run goes on.

    Args:
      guide: what is asked for views.
      config: the run's.
      folder: of the run.
      stop: polled between and within stages.
      trained: network; None loads it.

    Raises:
      InputError: the weights cannot be used, or the views show nothing.
    """
    trained = load(config, guide.size) if trained is None else trained
    with progress.Phases() as shown:

        def told(phase: str, done: int, total: int) -> None:
            stop.exit_if_requested()
            shown.update(phase, done, total)

        began = time.monotonic()
        ring, score = chosen_views(guide, config, folder, told)
        seconds = time.monotonic() - began
        asset = rebuilt(trained, ring, ring_of(guide), config.single_pass, told)
    return Asset(mesh=asset.mesh, numbers={"agreement": score, "views_seconds": seconds, **asset.numbers})


def rebuilt(
    trained: SinglePass,
    views: Float[np.ndarray, "v h w 8"],
    cameras: Camera,
    config: SinglePassConfig,
    told=lambda *_: None,
    *,
    whole: Bool[np.ndarray, " v"] | None = None,
) -> Asset:
    """The asset that the transformer sees in given views.

    Args:
      trained: network.
      views: channels of `rendering`, in [-1, 1].
      cameras: of the views, stacked.
      config: of the route.
      told: called with phase, parts done, parts.
      whole: views of which all channels are known, not only colour and coverage. None: all.

    Raises:
      InputError: the views show nothing.
    """
    began = time.monotonic()
    planes = reconstruct.planes_of(trained, views, cameras, whole=whole)
    surface = reconstruct.surface(trained, planes, resolution=config.resolution, told=told)
    shaped = time.monotonic()
    mesh = reconstruct.painted(trained, planes, surface, faces=config.faces, texture=config.texture, told=told)
    numbers = {"shape_seconds": shaped - began, "texture_seconds": time.monotonic() - shaped}
    return Asset(mesh=mesh, numbers=numbers)
