"""A guide's views distilled into Gaussians, their surface, its texture refined (DreamGaussian, arXiv 2309.16653)."""

import pathlib
import time

import jax
import numpy as np

from experiments import progress, train_loop
from experiments.generation import splat_distillation, splat_surface, texture_refinement
from experiments.generation.descent import descend, write_preview
from experiments.generation.guides import Guide
from experiments.generation.results import Asset
from experiments.generation.settings import TextTo3dConfig


def make(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path, stop) -> Asset:
    """The asset of the Gaussians that a guide likes best; they come along.

    Leaves checkpoints, metrics and previews of the descent, which a resumed run goes on with.

    Args:
      guide: what is asked for views.
      config: the run's.
      folder: of the run.
      stop: polled between steps and parts.

    Raises:
      InputError: the Gaussians that were found have no surface.
    """
    began, settings = time.monotonic(), config.splats
    finished = descend(
        _program(guide, config, folder),
        config,
        folder,
        stop,
        steps=settings.steps,
        cadence=settings.cadence,
        init=lambda: (_fresh(guide, config), {}),
        make_target=lambda aux: jax.eval_shape(lambda: _fresh(guide, config)),
    )
    write_preview(folder, finished.state, finished.step)
    gaussians = splat_distillation.living(finished.state)
    distilled = time.monotonic()
    with progress.Phases() as shown:

        def told(phase: str, done: int, total: int) -> None:
            stop.exit_if_requested()
            shown.update(phase, done, total)

        mesh = splat_surface.extract(gaussians, settings, size=splat_distillation.POOLED * guide.size, told=told)
        extracted = time.monotonic()
        mesh = texture_refinement.refine(mesh, guide, settings, seed=config.seed, told=told)
    numbers = {
        "distillation_seconds": distilled - began,
        "mesh_seconds": extracted - distilled,
        "texture_seconds": time.monotonic() - extracted,
        "distillation_steps": finished.step,
        "num_gaussians": len(gaussians.means),
    }
    return Asset(mesh=mesh, splats=gaussians, numbers=numbers)


def _fresh(guide: Guide, config: TextTo3dConfig) -> splat_distillation.State:
    return splat_distillation.fresh_state(config.splats, seed=config.seed, size=guide.size)


def _program(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path) -> train_loop.Program:
    settings, seed = config.splats, config.seed

    def step(state, aux, batch, at, fraction):
        return splat_distillation.update(state, guide, at, fraction, config=settings, seed=seed)

    def reshape(state, aux, at):
        if at and at % settings.grow_every == 0 and at < settings.settle * settings.steps:
            where = jax.device_put(np.int32(at))
            state = splat_distillation.grow(state, where, config=settings, seed=seed)
        return state, aux

    def preview(state, at):
        write_preview(folder, state, at)

    return train_loop.Program(step=step, reshape=reshape, preview=preview)
