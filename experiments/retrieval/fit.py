"""The two-tower model's training as a program for the loop: start, steps, evaluation, weights."""

import pathlib

from experiments import runtime, train_loop, weights_files
from experiments.data.blocks.descriptions import Split
from experiments.errors import InputError
from experiments.placement import Placement, local
from experiments.prior import rings
from experiments.retrieval import galleries, model, results, training
from experiments.retrieval.settings import RetrievalConfig
from experiments.retrieval.weights import PROGRAM, Towers

_SPLITS: tuple[Split, ...] = ("iid", "compositional")
_SHOWN = 12  # mistakes of a split in the report


class Fit:
    """One run of `train_retrieval` without its loop; a context manager.

    Args:
      config: the run's.
      stop: polled while objects are rendered.
      quiet: shows nothing.

    Raises:
      InputError: sizes of the network do not fit each other, or the batch does not divide over the devices.
    """

    def __init__(self, config: RetrievalConfig, stop, *, quiet: bool) -> None:
        self._config, self._stop, self._quiet = config, stop, quiet
        try:
            model.network_config(config.tower)
        except ValueError as error:
            raise InputError(f"--tower.*: {error}") from error
        self._placement = Placement(config.batch, flag="batch")
        self._pool = rings.RingPool(config.data, size=config.tower.size, batch=config.batch, seed=config.seed)
        self._galleries: dict[Split, galleries.Gallery] = {}

    def __enter__(self) -> "Fit":
        return self

    def __exit__(self, *_) -> None:
        self._pool.close()

    def init(self) -> tuple[training.State, dict]:
        """The fresh state, nothing beside it."""
        return self._placement.everywhere(training.fresh_state(self._config)), {}

    def make_target(self, aux: dict) -> training.State:
        """Shapes of a saved state."""
        return self._placement.target(lambda: training.fresh_state(self._config))

    def render_pool(self, step: int) -> None:
        """Renders the objects that the next step may draw, with a progress bar; a stop ends it between chunks."""
        self._pool.fill(step, self._stop, quiet=self._quiet)

    def program(self, watchdog: runtime.Watchdog | None = None) -> train_loop.Program:
        """The functions that the loop calls.

        Args:
          watchdog: paused while a step waits for its objects to be rendered, which no other process can delay.
        """
        watchdog = watchdog or runtime.Watchdog(0)

        def batch(step):
            with watchdog.paused():
                return self._placement.split(self._pool(step))

        def step(state, aux, batch, at, fraction):
            return training.update(state, batch, at, fraction, config=self._config)

        def evaluate(state, step):
            params = local(state).params
            return {_name(split): model.r_precision(self._cosines(params, split)) for split in _SPLITS}

        return train_loop.Program(step=step, batch=batch, evaluate=evaluate)

    def export(self, folder: pathlib.Path, finished: train_loop.Finished) -> None:
        """Weights with their description, how well they retrieve, what they mistake, report and final numbers."""
        config, params = self._config, local(finished.state).params
        scores, missed = {}, {}
        for split in _SPLITS:
            similar = self._cosines(params, split)
            scores[_name(split)] = model.r_precision(similar)
            missed[split] = galleries.mistakes(self._galleries[split], similar, _SHOWN)
            self._stop.exit_if_requested()
        about = {
            **weights_files.origin(folder, PROGRAM, finished.step, finished.seconds),
            "objects": finished.step * config.batch,
            "pool": config.pool,
            **scores,
        }
        vocabulary = rings.tokenizer().vocabulary
        towers = Towers(settings=config.tower, params=params, vocabulary=vocabulary, about=about)
        results.write(folder, towers, scores, missed, finished)

    def _cosines(self, params, split: Split):
        """Of a split's objects that training has not seen, rendered once, and their captions."""
        config = self._config
        if split not in self._galleries:
            made = galleries.make_gallery(config.data.seed, split, config.pool, size=config.tower.size)
            self._galleries[split] = made
        return galleries.cosines(config.tower, params, self._galleries[split])


def _name(split: str) -> str:
    return f"r_precision_{split}"
