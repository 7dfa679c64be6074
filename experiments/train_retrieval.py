"""The procedural world in, two towers out that say whether pictures and a caption belong together.

    python -m experiments.train_retrieval --max_seconds=900
    python -m experiments.train_retrieval --workdir=runs/retrieval --resume --steps=8000

Leaves towers.safetensors (half precision) with towers.json beside it, which evaluate_generation takes for its retrieval
precision, metrics.json (R-precision among captions of unseen objects, iid and compositional) and report.html. Stopped
by a signal, it resumes exactly.
"""

from experiments import errors, flags
from experiments.retrieval.settings import RetrievalConfig

Config = RetrievalConfig


def main(config: RetrievalConfig) -> int:
    """Train the two-tower model that scores retrieval."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: RetrievalConfig, stop) -> int:
    from experiments import checkpoints, metrics, progress, runtime, train_loop, workdir
    from experiments.retrieval.fit import Fit

    processes = runtime.setup(config.runtime)
    first = processes.index == 0
    with Fit(config, stop, quiet=not first) as fit:
        folder = workdir.open_workdir(
            "train_retrieval",
            config.workdir,
            resume=config.resume,
            config=flags.to_dict(config),
            process_index=processes.index,
            process_count=processes.count,
        )
        with checkpoints.Checkpoints(folder / "checkpoints") as saved:
            start = train_loop.resume_or_init(saved, resume=config.resume, init=fit.init, make_target=fit.make_target)
            fit.render_pool(start.step)
            with (
                metrics.MetricWriter(
                    folder, restored_step=start.step if start.resumed else None, process_index=processes.index
                ) as writer,
                progress.Progress(
                    config.steps,
                    description="train",
                    start=start.step,
                    max_seconds=config.max_seconds,
                    enabled=first,
                    spent_seconds=start.aux.get("seconds", 0.0),
                ) as bar,
                runtime.Watchdog(config.runtime.watchdog_seconds if processes.count > 1 else 0) as watchdog,
            ):
                finished = train_loop.train(
                    start,
                    num_steps=config.steps,
                    max_seconds=config.max_seconds,
                    program=fit.program(watchdog),
                    cadence=config.cadence,
                    checkpoints=saved,
                    writer=writer,
                    progress=bar,
                    stop=stop,
                    watchdog=watchdog,
                )
        if finished.stopped:
            return errors.EXIT_STOPPED
        if first:
            fit.export(folder, finished)
    runtime.wait_for_all("results written")
    stop.exit_if_requested()
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
