"""The evaluation of a prior on sets of captions: one sample each, its measures, those of exact renders beside them."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Float

from experiments import keys, progress
from experiments.data import blockworld
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import Description, Split, parse, words_of
from experiments.evaluation import attributes, consistency
from experiments.prior import classes, evaluation_results, rings, sampling, scores
from experiments.prior.classes import ClassRenders, as_channels
from experiments.prior.evaluation_settings import EvaluatePriorConfig
from experiments.prior.weights import Prior, load_prior

FIXED_PROMPTS = (
    "a red sphere",
    "a large blue box",
    "a green torus",
    "a small yellow cone",
    "a purple cylinder",
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
    "a green tree with an orange trunk",
    "a pink car with black wheels",
)
_NEAREST = 48  # renders of a class, for the one nearest to a sample
_AT_ONCE = 16  # captions sampled in one call


class Prompt(NamedTuple):
    """A caption and its exact parse."""

    text: str
    description: Description


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """One set of captions, evaluated.

    Attributes:
      name: of the set.
      prompts: those that were reached.
      sampled: rings [n, 4, h, w, 8].
      model: measures of each sampled ring by name; None where a measure does not apply.
      exact: the same of an exact render of another object of each class.
      apart: consistency of rings whose views come from four samples each.
    """

    name: str
    prompts: Sequence[Prompt]
    sampled: Float[np.ndarray, "n 4 h w 8"]
    model: list[dict[str, Any]]
    exact: list[dict[str, Any]]
    apart: list[dict[str, Any]]


class Evaluation:
    """One run of `evaluate_prior`; the weights are read, and refused, before anything is written.

    Args:
      config: the run's.
      stop: asked between captions; a stopped run has written nothing.

    Raises:
      InputError: the weights cannot be used.
    """

    def __init__(self, config: EvaluatePriorConfig, stop) -> None:
        self._config, self._stop, self._began = config, stop, time.monotonic()
        self._prior = load_prior(config.weights)

    def run(self, folder: pathlib.Path) -> None:
        """Evaluates all sets and writes what is left behind."""
        config, prior = self._config, self._prior
        renders = ClassRenders(prior.settings.size, classes.cache_folder() if config.cache else None)
        seconds = seconds_per_sample(prior, steps=config.steps, guidance=config.guidance)
        sets = {"fixed": [Prompt(text, parse(text)) for text in FIXED_PROMPTS]}
        for split in ("iid", "compositional") if config.captions else ():
            sets[split] = prompts_of(split, config.captions)
        scored = [evaluate(name, prompts, prior, renders, config, self._go_on) for name, prompts in sets.items()]
        evaluation_results.write(
            folder, scored, prior, config, seconds_per_sample=seconds, seconds=time.monotonic() - self._began
        )

    def _go_on(self) -> bool:
        self._stop.exit_if_requested()
        limit = self._config.max_seconds
        return limit is None or time.monotonic() - self._began < limit


def prompts_of(split: Split, count: int) -> list[Prompt]:
    """The first captions of a split of the world with seed 0, as they come, all wordings among them."""
    items = (blockworld.item(0, split, index) for index in range(count))
    return [Prompt(item.caption, item.description) for item in items]


def evaluate(
    name: str,
    prompts: Sequence[Prompt],
    prior: Prior,
    renders: ClassRenders,
    config: EvaluatePriorConfig,
    go_on: Callable[[], bool],
) -> Scored:
    """Samples and measures one set.

    Args:
      name: of the set, also the name of its random numbers.
      prompts: the captions.
      prior: what is evaluated.
      renders: of the captions' classes and of those that differ in one respect.
      config: seed, steps, guidance, captions of the baseline.
      go_on: asked before each caption; the first False ends the set with those that are done.
    """
    sampled = sample(prior, [prompt.text for prompt in prompts], f"scores {name}", config)
    model_rows, exact_rows = [], []
    with progress.Progress(len(prompts), description=name) as bar:
        for i, (prompt, ring) in enumerate(zip(prompts, sampled, strict=True)):
            if not go_on():
                break
            exact = as_channels(renders.render(prompt.description, 1, "exact"))[0]
            rows = measure([ring, exact], prompt.description, renders)
            model_rows.append(rows[0])
            exact_rows.append(rows[1])
            bar.update(i + 1)
    done = len(model_rows)
    texts = [prompt.text for prompt in prompts[: min(config.apart, done)]]
    mixed = [consistency_of(ring) for ring in (one_by_one(prior, texts, f"scores {name}", config) if texts else ())]
    return Scored(
        name=name, prompts=prompts[:done], sampled=sampled[:done], model=model_rows, exact=exact_rows, apart=mixed
    )


def measure(given: Sequence[scores.Ring], description: Description, renders: ClassRenders) -> list[dict[str, Any]]:
    """All measures of canonical rings of one caption; see `scores`."""
    own = as_channels(renders(description, _NEAREST))
    told = attributes.told_apart(given, description, classes.hard_negatives(description), renders)
    rows = []
    for ring, right in zip(given, told, strict=True):
        present, share = scores.named_colors(ring, description)
        nearest = scores.nearest_render(ring, own)
        rows.append(
            {
                "colors_present": present,
                "color_share": share,
                "psnr": nearest.psnr,
                "alpha_iou": nearest.alpha_iou,
                "normal_degrees": nearest.normal_degrees,
                **consistency_of(ring),
                **{aspect: right.get(aspect) for aspect in ("relation", "binding", "shape")},
                "all": all(right.values()) if right else None,
            }
        )
    return rows


def consistency_of(ring: scores.Ring) -> dict[str, float]:
    """Whether the views of a canonical ring show one object; see `experiments.evaluation.consistency`."""
    poses = consistency.canonical_poses()
    return {
        "hull_iou": consistency.hull_iou(ring, poses),
        "depth_agreement": consistency.depth_agreement(ring, poses),
        "reprojection_psnr": consistency.reprojection(ring, poses).psnr,
    }


class Sampling(Protocol):
    """Settings of samples: those of the run."""

    @property
    def seed(self) -> int:
        """Of the noise."""
        ...

    @property
    def steps(self) -> int:
        """Of denoising."""
        ...

    @property
    def guidance(self) -> float | None:
        """Scale of the caption over none."""
        ...


def sample(prior: Prior, captions: Sequence[str], stream: str, config: Sampling) -> Float[np.ndarray, "n 4 h w 8"]:
    """One ring for each caption from the canonical cameras, in calls of one size."""
    read = rings.tokenizer()
    words = np.stack([read.encode(words_of(caption)) for caption in captions])
    found = []
    for start in range(0, len(words), _AT_ONCE):
        rows = np.resize(np.arange(start, min(start + _AT_ONCE, len(words))), _AT_ONCE)  # the last call repeats some
        key = keys.key(config.seed, stream, start)
        found.append(_sampled(prior, key, words[rows], config.steps, config.guidance))
    return np.concatenate(found)[: len(words)]


def one_by_one(prior: Prior, captions: Sequence[str], stream: str, config: Sampling) -> Float[np.ndarray, "n 4 h w 8"]:
    """Rings whose views know nothing of each other: each comes from a sample of its own, of the same caption.

    The baseline of the joint model. Views of a network that only ever sees one would be worse each: this one is told
    what such views look like in company, so that nothing but their agreement is lost.
    """
    apart = [sample(prior, captions, f"{stream} {view}", config)[:, view] for view in range(4)]
    return np.stack(apart, axis=1)


def seconds_per_sample(prior: Prior, *, steps: int, guidance: float) -> float:
    """Median time of one ring, compilation apart."""
    words = rings.tokenizer().encode(words_of(FIXED_PROMPTS[0]))[None]
    spent = []
    for attempt in range(4):
        began = time.perf_counter()
        _sampled(prior, jax.random.key(attempt), words, steps, guidance)
        spent.append(time.perf_counter() - began)
    return float(np.median(spent[1:]))


def _sampled(prior: Prior, key, words: np.ndarray, steps: int, guidance: float | None) -> np.ndarray:
    count = len(words)
    azimuths, elevations = np.zeros(count, np.float32), np.full(count, rendering.ELEVATION, np.float32)
    found = sampling.sample_rings(
        key,
        prior.params,
        words,
        azimuths,
        elevations,
        settings=prior.settings,
        diffusion=prior.diffusion,
        steps=steps,
        guidance=guidance,
    )
    return np.asarray(found)
