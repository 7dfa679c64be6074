"""The procedural world in, a reconstructor out: one or four views of an object to its surface in one pass.

    python -m experiments.train_single_pass --max_seconds=3600
    python -m experiments.train_single_pass --workdir=runs/single_pass --resume --steps=90000

Leaves single_pass.safetensors (averaged weights, half precision) with single_pass.json beside it, pictures of rebuilt
objects, metrics.json (F-score, Chamfer distance, volume IoU and PSNR of objects that no training saw) and report.html.
Stopped by a signal, it resumes exactly; resumed with fewer --steps to go, it cools down.
"""

from experiments import errors, flags
from experiments.single_pass.settings import TrainSinglePassConfig

Config = TrainSinglePassConfig


def main(config: TrainSinglePassConfig) -> int:
    """Train the tri-plane transformer."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: TrainSinglePassConfig, stop) -> int:
    from experiments import checkpoints, metrics, progress, runtime, train_loop, workdir
    from experiments.single_pass.fit import Fit

    processes = runtime.setup(config.runtime)
    first = processes.index == 0
    with Fit(config, stop, quiet=not first) as fit:
        folder = workdir.open_workdir(
            "train_single_pass",
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
                    program=fit.program(folder),
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
