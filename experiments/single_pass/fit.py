"""The tri-plane transformer's training as a program for the loop: start, steps, evaluation, previews, weights."""

import functools
import pathlib

import jax

from experiments import media, progress, train_loop
from experiments.errors import InputError
from experiments.placement import Placement, local
from experiments.prior.rings import RingPool
from experiments.single_pass import data, evaluation, pictures, results, training
from experiments.single_pass.settings import TrainSinglePassConfig
from experiments.single_pass.weights import SinglePass, load_single_pass

SPLITS = ("iid", "compositional", "family")


class Fit:
    """One run of `train_single_pass` without its loop; a context manager.

    Args:
      config: the run's.
      stop: polled while the pool is rendered and while objects are rebuilt.
      quiet: shows nothing.

    Raises:
      InputError: the batch does not divide over the devices; weights to start from that do not fit.
    """

    def __init__(self, config: TrainSinglePassConfig, stop, *, quiet: bool) -> None:
        self._config, self._stop, self._quiet = config, stop, quiet
        self._placement = Placement(config.optimizer.batch)
        self._begun_with = None
        if config.init is not None:
            begun = load_single_pass(config.init)
            if _sizes(begun.settings) != _sizes(config.model):
                raise InputError(
                    f"--init={config.init}: weights of {begun.settings}, but this run is of {config.model}"
                )
            self._begun_with = begun.params
        self._pool = RingPool(config.data, size=config.model.size, batch=config.optimizer.batch, seed=config.seed)

    def __enter__(self) -> "Fit":
        return self

    def __exit__(self, *_) -> None:
        self._pool.close()

    def init(self) -> tuple[training.State, dict]:
        """The fresh state, nothing beside it."""
        return self._placement.everywhere(training.fresh_state(self._config, self._begun_with)), {}

    def make_target(self, aux: dict) -> training.State:
        """Shapes of a saved state."""
        return self._placement.target(lambda: training.fresh_state(self._config))

    def render_pool(self, step: int) -> None:
        """Renders the objects that the next step may draw, with a progress bar; a stop ends it between chunks."""
        self._pool.fill(step, self._stop, quiet=self._quiet)

    def program(self, folder: pathlib.Path) -> train_loop.Program:
        """The functions that the loop calls; pictures of rebuilt objects go to `previews` in the folder."""

        def preview(state, step):
            sheet = pictures.rebuilt_sheet(self._trained(state), self._config.data.seed, resolution=48)
            if jax.process_index() == 0:
                (folder / "previews").mkdir(exist_ok=True)
                media.write_png(folder / "previews" / f"{step:06d}.png", sheet)

        def evaluate(state, step):
            config, trained = self._config, self._trained(state)
            try:
                return evaluation.evaluate(
                    trained,
                    config.data.seed,
                    "iid",
                    config.evaluation_objects,
                    resolution=config.resolution,
                    told=lambda *_: self._stop.exit_if_requested(),
                )
            except SystemExit:
                return None

        def step(state, aux, batch, at, fraction):
            return training.update(state, batch, at, fraction, config=self._config, mesh=self._placement.mesh)

        return train_loop.Program(step=step, batch=self._batch, evaluate=evaluate, preview=preview)

    def export(self, folder: pathlib.Path, finished: train_loop.Finished) -> None:
        """Averaged weights, how well unseen objects of each split are rebuilt, pictures, report and final numbers."""
        config, trained = self._config, self._trained(finished.state)
        found = {}
        with progress.Phases(enabled=not self._quiet) as shown:
            for split in SPLITS:
                values = evaluation.evaluate(
                    trained,
                    config.data.seed,
                    split,
                    config.final_objects,
                    resolution=config.resolution,
                    told=functools.partial(self._rebuilt, shown, split),
                )
                found.update({f"{split}_{name}": value for name, value in values.items()})
        sheet = pictures.rebuilt_sheet(trained, config.data.seed)
        self._stop.exit_if_requested()
        results.write(folder, trained, found, sheet, finished, objects=finished.step * config.optimizer.batch)

    def _rebuilt(self, shown: progress.Phases, split: str, done: int, total: int) -> None:
        self._stop.exit_if_requested()
        shown.update(f"rebuilt, {split}", done, total)

    def _trained(self, state) -> SinglePass:
        return SinglePass(settings=self._config.model, params=local(state.average), about={})

    def _batch(self, step: int) -> data.Objects:
        return self._placement.split(data.objects_of_step(self._pool, self._config.data.seed, step))


def _sizes(settings) -> tuple:
    """What of a network's settings its weights depend on."""
    return tuple(
        getattr(settings, name) for name in ("size", "patch", "width", "depth", "texels", "cell", "features", "hidden")
    )
