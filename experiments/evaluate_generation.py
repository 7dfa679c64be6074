"""Captions in, a table of how well each route makes assets of them out.

    python -m experiments.evaluate_generation --captions=20
    python -m experiments.evaluate_generation --routes=mesh,oracle --split=compositional
    python -m experiments.evaluate_generation --assets=runs/text_to_3d

How text to 3D is to be measured where there is no single right answer is an open question of the survey that this
project follows (arXiv 2401.02620), and this program the answer to it and to the first three of its experiments: in the
block world quality, agreement with the text and agreement of views are exact. Objects of the caption's class are known
(distance to the nearest of several, F-score, volume IoU), so is what its words rule out (attributes, told apart from
captions that differ in one word; retrieval by a two-tower model of the world), and so are cameras and depths
(reprojection; a prior's views against views sampled one by one; the Janus count of front markers). A row of exact
objects says how far each measure can go at all. Similarities by CLIP join with the pretrained models:
`experiments.evaluation.retrieval.Similarity` is their place.

Leaves assets/ROUTE/CAPTION (runs of text_to_3d), scores/, scores.json, sheet.png, report.html, metrics.json. Stopped
by a signal, a run goes on with --resume: assets that are made are not made again, scores of the same protocol kept.
"""

from experiments import errors, flags
from experiments.evaluation.settings import EvaluateGenerationConfig

Config = EvaluateGenerationConfig


def main(config: EvaluateGenerationConfig) -> int:
    """Evaluate text to 3D."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: EvaluateGenerationConfig, stop) -> int:
    from experiments import runtime, workdir

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("evaluate_generation runs as one process; start it without --runtime.num_processes")
    from experiments.evaluation.program import Evaluation

    work = Evaluation(config, stop)
    folder = workdir.open_workdir(
        "evaluate_generation", config.workdir, resume=config.resume, config=flags.to_dict(config)
    )
    work.run(folder)
    stop.exit_if_requested()
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
