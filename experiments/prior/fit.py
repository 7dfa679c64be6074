"""The prior's training as a program for the loop: start, steps, evaluation, sample grids, weights."""

import dataclasses
import pathlib

import jax
import numpy as np

from experiments import keys, media, progress, runtime, train_loop
from experiments.data import named_meshes
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import words_of
from experiments.errors import InputError
from experiments.placement import Placement, local
from experiments.prior import model, results, rings, sampling, training
from experiments.prior.pictures import contact_sheet
from experiments.prior.settings import MultiviewConfig
from experiments.prior.weights import Prior, about_run, load_prior

PREVIEW_PROMPTS = (
    "a small blue sphere on top of a green box",
    "a red sphere on top of a blue box",
    "a blue box on top of a red sphere",
    "a green cone left of a yellow sphere",
    "a white cylinder right of a red box",
    "a small orange sphere in front of a large cyan box",
    "a pink cylinder behind a black sphere",
    "a yellow torus under a purple cone",
    "a red cone on top of a green sphere on top of a blue cylinder",
    "a red table with black legs",
    "a blue chair with yellow legs",
    "a white snowman with an orange nose",
    "a green mug with a white handle",
    "a white rocket with red fins",
    "a pink car with black wheels",
    "a yellow dog with a black head",
)


class Fit:
    """One run of `train_multiview` without its loop; a context manager.

    Args:
      config: the run's.
      stop: polled while the pool is rendered.
      quiet: shows nothing.

    Raises:
      InputError: sizes of the network do not fit each other, the batch does not divide over the devices, or the network
        of `--init` is another one; the folder of named meshes cannot be used.
    """

    def __init__(self, config: MultiviewConfig, stop, *, quiet: bool) -> None:
        guests = None
        if config.named.folder is not None:
            guests = rings.Guests(meshes=_read(config.named.folder, quiet), share=config.named.share)
        self._tokenizer = rings.tokenizer([] if guests is None else [one.caption for one in guests.meshes])
        try:
            sized = model.with_words(config.model, len(self._tokenizer.vocabulary))
            model.network_config(sized)
        except ValueError as error:
            raise InputError(f"--model.*: {error}") from error
        config = dataclasses.replace(config, model=sized)
        self._config, self._stop, self._quiet = config, stop, quiet
        self._placement = Placement(config.optimizer.batch)
        self._given = None if config.init is None else _weights_of(config, self._tokenizer.vocabulary)
        self._pool = rings.RingPool(
            config.data, size=config.model.size, batch=config.optimizer.batch, seed=config.seed, guests=guests
        )
        self._validation: rings.Rings | None = None

    def __enter__(self) -> "Fit":
        return self

    def __exit__(self, *_) -> None:
        self._pool.close()

    def init(self) -> tuple[training.State, dict]:
        """The fresh state, from the weights of `--init` if there are any; nothing beside it."""
        return self._placement.everywhere(training.fresh_state(self._config, self._given)), {}

    def make_target(self, aux: dict) -> training.State:
        """Shapes of a saved state."""
        return self._placement.target(lambda: training.fresh_state(self._config))

    def render_pool(self, step: int) -> None:
        """Renders the objects that the next step may draw, with a progress bar; a stop ends it between chunks."""
        self._pool.fill(step, self._stop, quiet=self._quiet)

    def program(self, folder: pathlib.Path, watchdog: runtime.Watchdog | None = None) -> train_loop.Program:
        """The functions that the loop calls; sample grids go to `previews` in the folder.

        Args:
          folder: the run's.
          watchdog: paused while a step waits for its objects to be rendered, which no other process can delay.
        """
        watchdog = watchdog or runtime.Watchdog(0)

        def batch(step):
            with watchdog.paused():
                return self._placement.split(self._pool(step))

        def preview(state, step):
            grid = contact_sheet(self._samples(local(state).average), PREVIEW_PROMPTS)
            if jax.process_index() == 0:
                (folder / "previews").mkdir(exist_ok=True)
                media.write_png(folder / "previews" / f"{step:06d}.png", grid)

        def evaluate(state, step):
            return self._errors(local(state).average)

        def step(state, aux, batch, at, fraction):
            return training.update(state, batch, at, fraction, config=self._config)

        return train_loop.Program(step=step, batch=batch, evaluate=evaluate, preview=preview)

    def export(self, folder: pathlib.Path, finished: train_loop.Finished) -> None:
        """Averaged weights with their description, the last sample grid, errors, report and final numbers."""
        config, average = self._config, local(finished.state).average
        grid = contact_sheet(self._samples(average), PREVIEW_PROMPTS)
        self._stop.exit_if_requested()
        errors = self._errors(average)
        self._stop.exit_if_requested()
        about = {**about_run(folder, finished.step, finished.seconds), **errors}
        prior = Prior(
            settings=config.model,
            diffusion=config.diffusion,
            params=average,
            vocabulary=self._tokenizer.vocabulary,
            about=about,
        )
        results.write(folder, prior, errors, grid, finished)

    def _errors(self, params) -> dict[str, float]:
        errors = training.validation_errors(params, self._unseen(), config=self._config)
        named = {f"error_{time:g}": float(e) for time, e in zip(training.EVALUATION_TIMES, errors, strict=True)}
        return {**named, "error": float(np.mean(errors))}

    def _samples(self, params) -> np.ndarray:
        read = rings.tokenizer()
        words = np.stack([read.encode(words_of(prompt)) for prompt in PREVIEW_PROMPTS])
        count, config = len(words), self._config
        level = np.full(count, rendering.ELEVATION, np.float32)
        key = keys.key(config.seed, "previews")
        sampled = sampling.sample_rings(
            key, params, words, np.zeros(count, np.float32), level, settings=config.model, diffusion=config.diffusion
        )
        return np.asarray(sampled)

    def _unseen(self) -> rings.Rings:
        if self._validation is None:
            config = self._config
            numbers = range(config.evaluation_rings)
            self._validation = rings.make_rings(
                config.data.seed, "iid", numbers, size=config.model.size, canonical=config.data.canonical
            )
        return self._validation


def _weights_of(config: MultiviewConfig, vocabulary: tuple[str, ...]):
    """The weights that `--init` names, of a network like this run's; words that it does not know get fresh ones."""
    prior = load_prior(config.init)
    wanted, found = dataclasses.asdict(config.model), dataclasses.asdict(prior.settings)
    different = [name for name in wanted if name not in ("arithmetic", "words") and wanted[name] != found[name]]
    if different:
        flags = " ".join(f"--model.{name}={found[name]}" for name in different)
        raise InputError(f"--init={config.init} is of another network; start with {flags}")
    known = len(prior.vocabulary)
    if vocabulary[:known] != prior.vocabulary:
        lost = next(word for word in prior.vocabulary if word not in vocabulary[:known])
        raise InputError(
            f"--init={config.init} knows {lost!r}, which this run's captions lack; name its --named.folder"
        )

    def grown(fresh, old):
        return old if old.shape == fresh.shape else fresh.at[:known].set(old[:known])

    return jax.tree.map(grown, model.initial_params(config.model, config.seed), prior.params)


def _read(folder: str, quiet: bool) -> tuple[named_meshes.NamedMesh, ...]:
    with progress.Phases(enabled=not quiet) as shown:
        return named_meshes.read_folder(folder, lambda done, total: shown.update("meshes", done, total))
