"""A guide's views distilled into a radiance field, and its surface (DreamFusion, arXiv 2209.14988; MVDream)."""

import pathlib
import time

import jax
import numpy as np

from experiments import progress, train_loop
from experiments.generation import field_distillation, field_surface
from experiments.generation.descent import descend, write_preview
from experiments.generation.guides import Guide
from experiments.generation.results import Asset
from experiments.generation.settings import TextTo3dConfig

_LOOK_EVERY = 16  # steps from one look at the occupancy to the next
_FIRST_CAPACITY = 1 << 16  # a blob that is not opaque yet is seen through and through
_LEAST_CAPACITY = 1 << 13
_ROOM = 1.25  # times the most samples of late


def make(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path, stop) -> Asset:
    """The asset of the field that a guide likes best.

    Leaves checkpoints, metrics and previews of the descent, which a resumed run goes on with.

    Args:
      guide: what is asked for views.
      config: the run's.
      folder: of the run.
      stop: polled between steps and parts.

    Raises:
      InputError: the field that was found has no surface.
    """
    began, settings = time.monotonic(), config.nerf
    finished = descend(
        _program(guide, config, folder),
        config,
        folder,
        stop,
        steps=settings.steps,
        cadence=settings.cadence,
        init=lambda: (_fresh(guide, config), {"capacity": _FIRST_CAPACITY}),
        make_target=lambda aux: jax.eval_shape(lambda: _fresh(guide, config)),
    )
    write_preview(folder, finished.state, finished.step)
    distilled = time.monotonic()
    with progress.Phases() as shown:

        def told(phase: str, done: int, total: int) -> None:
            stop.exit_if_requested()
            shown.update(phase, done, total)

        mesh = field_surface.extract(finished.state, settings, told)
    seconds = {"distillation_seconds": distilled - began, "mesh_seconds": time.monotonic() - distilled}
    return Asset(mesh=mesh, numbers={**seconds, "distillation_steps": finished.step})


def _fresh(guide: Guide, config: TextTo3dConfig) -> field_distillation.State:
    return field_distillation.fresh_state(config=config.nerf, seed=config.seed, size=guide.size)


def _program(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path) -> train_loop.Program:
    settings, seed = config.nerf, config.seed

    def step(state, aux, batch, at, fraction):
        return field_distillation.update(
            state, guide, at, fraction, config=settings, seed=seed, capacity=aux["capacity"]
        )

    def reshape(state, aux, at):
        if at % _LOOK_EVERY:
            return state, aux
        wanted = int(state.wanted)
        if wanted:
            aux = {**aux, "capacity": fitting_capacity(aux["capacity"], wanted)}
        return field_distillation.look_around(state, jax.device_put(np.int32(at)), config=settings, seed=seed), aux

    def preview(state, at):
        write_preview(folder, state, at)

    return train_loop.Program(step=step, reshape=reshape, preview=preview)


def fitting_capacity(capacity: int, wanted: int) -> int:
    """Room for samples: as it is while they fit and fill a fifth of it; else four times or a quarter of it, or more.

    Few sizes are ever compiled for.
    """
    while wanted > capacity:
        capacity *= 4
    while _ROOM * wanted < capacity / 4 and capacity // 4 >= _LEAST_CAPACITY:
        capacity //= 4
    return capacity
