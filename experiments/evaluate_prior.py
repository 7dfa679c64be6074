"""A multi-view prior in, a table of what it has learnt out.

    python -m experiments.evaluate_prior --captions=100
    python -m experiments.evaluate_prior --weights=runs/train_multiview/2026-11-22_21-00-00

Samples one ring for each of 20 fixed prompts and for captions of the iid and of the compositional split: are the named
colours there, how far is the nearest of 48 exact renders of the caption's class, do the views agree, and is that class
nearer than each that differs in relation, colours or shape. Every number stands beside that of exact renders of other
objects of the class. Leaves scores.json, sheets of pictures, report.html and metrics.json; renders of classes are kept
in the user's cache, so a second evaluation takes a fraction of the time, and --resume starts afresh.
"""

from experiments import errors, flags
from experiments.prior.evaluation_settings import EvaluatePriorConfig

Config = EvaluatePriorConfig


def main(config: EvaluatePriorConfig) -> int:
    """Evaluate the embedded multi-view prior."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: EvaluatePriorConfig, stop) -> int:
    from experiments import runtime, workdir

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("evaluate_prior runs as one process; start it without --runtime.num_processes")
    from experiments.prior.evaluation import Evaluation

    work = Evaluation(config, stop)
    folder = workdir.open_workdir("evaluate_prior", config.workdir, resume=config.resume, config=flags.to_dict(config))
    if config.resume:
        print("nothing but renders of classes is kept on the way: starting afresh", flush=True)
    work.run(folder)
    stop.exit_if_requested()
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
