"""The evaluation's work: assets made or found, scored one after the other, and put into a table.

Everything that takes long is kept below the run's folder: assets/ROUTE/CAPTION are runs of `text_to_3d`,
scores/ROUTE/CAPTION.json and .png what was measured of them. What is there is not done again.
"""

import collections
import json
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments import keys, media, progress, workdir
from experiments.data.blocks import geometry, objects
from experiments.data.blocks.descriptions import caption as in_words
from experiments.errors import InputError
from experiments.evaluation import assets, measuring, retrieval, table
from experiments.evaluation.captions import Caption, caption_set, pool_of
from experiments.evaluation.janus import exact_ring
from experiments.evaluation.settings import EvaluateGenerationConfig
from experiments.generation import results
from experiments.generation.settings import Route
from experiments.prior import classes, evaluation
from experiments.prior.classes import ClassRenders, as_channels
from experiments.prior.weights import load_prior
from experiments.single_pass.weights import load_single_pass
from renderers.files import FormatError
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh

_EXACT = "exact"
_NODES = 80  # along the longest side of an exact object's mesh
_STILL = 128  # pixels along a side
_PRIORS_SCALE = 2.0  # of guidance, where none is given


class _Job(NamedTuple):
    route: Route | Literal["exact"]
    caption: Caption
    folder: pathlib.Path | None  # of an asset that is there; None: to be made
    name: str


class _Sampling(NamedTuple):
    seed: int
    steps: int
    guidance: float | None


class Evaluation:
    """One run of `evaluate_generation`; weights are read, and refused, before anything is written.

    Args:
      config: the run's.
      stop: polled between and within assets.

    Raises:
      InputError: weights cannot be used, or there are no assets to score.
    """

    def __init__(self, config: EvaluateGenerationConfig, stop) -> None:
        self._config, self._stop, self._began = config, stop, time.monotonic()
        self._found, self._notes = (
            (None, []) if config.assets is None else assets.find_assets(config.assets, config.routes)
        )
        makes = config.routes if self._found is None else ()
        self._prior = load_prior(config.weights) if any(route != "oracle" for route in makes) else None
        single_pass = load_single_pass(config.single_pass.weights) if "single_pass" in makes else None
        towers = retrieval.towers_of(config.towers, size=measuring.SIZE_OF_RING)
        self._similarity = None if towers is None else retrieval.judged_by(towers)
        self._weights = {
            name: "none" if some is None else retrieval.digest(some.params)
            for name, some in (("prior", self._prior), ("single_pass", single_pass), ("towers", towers))
        }
        self._protocol = measuring.protocol(config, None if towers is None else self._weights["towers"])
        self._seconds: dict[str, list[float]] = collections.defaultdict(list)

    def run(self, folder: pathlib.Path) -> None:
        """Makes and scores what is missing, and writes the table."""
        config = self._config
        jobs, captions = self._jobs()
        renders = ClassRenders(measuring.SIZE_OF_RING, classes.cache_folder() if config.cache else None)
        pool = [*captions, *pool_of(config.splits() if self._found is None else ("iid",), config.pool)]
        measures = measuring.Measures(config, renders, pool, self._similarity)
        rows = []
        for done, job in enumerate(jobs):
            self._stop.exit_if_requested()
            if config.max_seconds is not None and time.monotonic() - self._began > config.max_seconds:
                self._notes.append(f"stopped by --max_seconds after {done} of {len(jobs)} assets")
                break
            row = self._scored(job, folder, measures)
            rows.append(row)
            self._tell(row, done + 1, jobs)
        if not rows:
            raise InputError("--max_seconds ended the run before the first asset; give it more")
        about = {"weights": " ".join(f"{name}={found}" for name, found in self._weights.items()), **self._protocol}
        views = self._views(captions, renders) if self._prior is not None else {}
        table.write(folder, rows, views, about=about, notes=self._notes, seconds=time.monotonic() - self._began)
        print(f"{folder}: {len(rows)} assets in {progress.clock(time.monotonic() - self._began)}", flush=True)

    def _jobs(self) -> tuple[list[_Job], list[Caption]]:
        """What is to be scored: caption by caption, so that a run that ends early has all routes of some."""
        config = self._config
        if self._found is None:
            captions = [caption for split in config.splits() for caption in caption_set(split, config.captions)]
            given = {}
        else:
            captions = list({each.caption.text: each.caption for each in self._found}.values())
            given = collections.defaultdict(list)
            for each in self._found:
                given[each.caption.text].append(each)
        jobs, unknown = [], collections.Counter()
        for asked in captions:
            jobs.append(_Job(_EXACT, asked, None, asked.name))
            for number, each in enumerate(given.get(asked.text, ())):
                jobs.append(_Job(each.route, asked, each.folder, f"{asked.name}_{number:03d}"))
            for route in config.routes if self._found is None else ():
                if assets.understands(asked, route, self._prior):
                    jobs.append(_Job(route, asked, None, asked.name))
                else:
                    unknown[route] += 1
        self._notes += [
            f"{route}: {count} captions hold words that the prior does not know" for route, count in unknown.items()
        ]
        return jobs, captions

    def _scored(self, job: _Job, folder: pathlib.Path, measures: measuring.Measures) -> table.Row:
        """One asset's scores: an earlier attempt's, if they are of the same protocol."""
        place = folder / "scores" / job.route
        file, still = place / f"{job.name}.json", place / f"{job.name}.png"
        earlier = _stored(file, self._protocol)
        if earlier is None:
            began = time.monotonic()
            earlier = self._measured(job, folder, still, measures)
            self._seconds[job.route].append(time.monotonic() - began)
            workdir.write_json_atomic(file, {"protocol": workdir.to_jsonable(self._protocol), **earlier})
        scores = {name: None if isinstance(value, str) else value for name, value in earlier["scores"].items()}
        return table.Row(route=job.route, caption=job.caption, scores=scores, failure=earlier["failure"], still=still)

    def _measured(
        self, job: _Job, folder: pathlib.Path, still: pathlib.Path, measures: measuring.Measures
    ) -> dict[str, Any]:
        still.parent.mkdir(parents=True, exist_ok=True)
        try:
            mesh, views, seconds = self._asset(job, folder)
            scores = {**seconds, **measures.of_mesh(mesh, job.caption, views)}
        except (InputError, FormatError) as error:
            return {
                "scores": measuring.failed(job.caption, is_judged=self._similarity is not None),
                "failure": str(error),
            }
        front, back = results.turntable(mesh, 2, _STILL, self._stop)
        media.write_png(still, media.side_by_side(front, back, gap=0))
        return {"scores": scores, "failure": ""}

    def _asset(self, job: _Job, folder: pathlib.Path) -> tuple[Mesh, np.ndarray | None, Mapping[str, float]]:
        """A mesh, the views that it was made of if there are any, and seconds by stage."""
        if job.route == _EXACT:
            said = job.caption.description
            built = objects.build(said, keys.host_rng(self._config.seed, f"exact {in_words(said)}", 0))
            return geometry.mesh(built, _NODES), exact_ring(built, views=4, size=measuring.SIZE_OF_RING), {}
        place = job.folder
        if place is None:
            place = folder / "assets" / job.route / job.name
            if not assets.is_made(place):
                assets.make_asset(job.caption, job.route, place, self._config, self._prior, self._stop)
        numbers = assets.numbers_of(place)
        spent = {
            name: value
            for name, value in numbers.items()
            if name.endswith("seconds") and isinstance(value, (int, float))
        }
        spent = {} if numbers.get("resumed") else spent
        return read_mesh(place / "asset.glb"), measuring.stored_views(place, measuring.SIZE_OF_RING), spent

    def _views(self, captions: Sequence[Caption], renders: ClassRenders) -> dict[str, list[dict[str, float]]]:
        """Consistency of the prior's rings, of such whose views are sampled one by one, and of exact ones."""
        prior, config = self._prior, self._config
        known = [asked for asked in captions if assets.understands(asked, "mesh", prior)]
        if prior is None or not known:
            return {}
        guidance = _PRIORS_SCALE if config.guidance is None else config.guidance
        settings, texts = _Sampling(config.seed, config.steps, guidance), [asked.text for asked in known]
        rings = {
            "prior": evaluation.sample(prior, texts, "evaluated views", settings),
            "one by one": evaluation.one_by_one(prior, texts, "evaluated views", settings),
            _EXACT: [as_channels(renders.render(asked.description, 1, "exact"))[0] for asked in known],
        }
        return {name: [evaluation.consistency_of(ring) for ring in some] for name, some in rings.items()}

    def _tell(self, row: table.Row, done: int, jobs: Sequence[_Job]) -> None:
        """A line for each asset, and the time for all others if they take as long as those of their routes."""
        usual = {route: float(np.mean(spent)) for route, spent in self._seconds.items()}
        overall = float(np.mean(list(usual.values()))) if usual else 0.0
        left = sum(usual.get(job.route, overall) for job in jobs[done:])
        shown = {"chamfer": "chamfer mm", "f_0.02": "F@0.02", "attributes": "attributes"}
        numbers = [
            f"{label} {table.COLUMNS[name][1] * value:.3g}"
            for name, label in shown.items()
            if (value := row.scores.get(name)) is not None and math.isfinite(value)
        ]
        said = row.failure or ", ".join(numbers)
        print(f"[{done}/{len(jobs)}] {row.route}: {row.caption.text!r}: {said}; ETA {progress.clock(left)}", flush=True)


def _stored(file: pathlib.Path, protocol: dict[str, Any]) -> dict[str, Any] | None:
    """Scores that an earlier attempt left, if they are whole and of the same protocol."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        whole = found["protocol"] == workdir.to_jsonable(protocol) and isinstance(found["scores"], dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return {"scores": found["scores"], "failure": str(found.get("failure", ""))} if whole else None
