"""The descent of a distilling route under the training loop: checkpoints, metrics and previews in the run's folder."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import media, metrics, progress, train_loop
from experiments.cadence import Cadence
from experiments.checkpoints import Checkpoints
from experiments.generation.settings import TextTo3dConfig
from experiments.prior.pictures import contact_sheet


def descend(
    program: train_loop.Program,
    config: TextTo3dConfig,
    folder: pathlib.Path,
    stop,
    *,
    steps: int,
    cadence: Cadence,
    init: Callable[[], tuple[Any, dict[str, Any]]],
    make_target: Callable[[dict[str, Any]], Any],
) -> train_loop.Finished:
    """Runs all steps, or goes on from the newest checkpoint where the run is resumed; a stop leaves with exit code 75.

    Args:
      program: the route's.
      config: the run's.
      folder: of the run.
      stop: polled between steps.
      steps: of the descent.
      cadence: of checkpoints, metrics and previews.
      init: makes the fresh state and its sizes.
      make_target: from sizes to the shapes of a saved state.
    """
    with Checkpoints(folder / "checkpoints", keep=1) as saved:
        start = train_loop.resume_or_init(saved, resume=config.resume, init=init, make_target=make_target)
        restored = start.step if start.resumed else None
        with (
            metrics.MetricWriter(folder, restored_step=restored) as writer,
            progress.Progress(
                steps,
                description=config.route,
                start=start.step,
                max_seconds=config.max_seconds,
                spent_seconds=start.aux.get("seconds", 0.0),
            ) as bar,
        ):
            finished = train_loop.train(
                start,
                num_steps=steps,
                max_seconds=config.max_seconds,
                program=program,
                cadence=cadence,
                checkpoints=saved,
                writer=writer,
                progress=bar,
                stop=stop,
            )
    stop.exit_if_requested()
    return finished


def write_preview(folder: pathlib.Path, state: Any, step: int) -> None:
    """The newest ring of a state above what the guide made of it."""
    (folder / "previews").mkdir(exist_ok=True)
    rings = np.stack([np.asarray(state.ring), np.asarray(state.asked)])
    sheet = contact_sheet(rings, [f"step {step}", "the guide's estimate"], columns=1, zoom=4)
    media.write_png(folder / "previews" / f"{step:06d}.png", sheet)
