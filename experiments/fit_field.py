"""Photographs with poses in, a radiance field, its held-out quality and a textured mesh out.

    python -m experiments.fit_field --data=demo
    python -m experiments.fit_field --data=path/to/capture --field=triplane --holdout=8 --max_seconds=300

Leaves asset.glb (in the capture's own frame), renders of the held-out views, turntable.mp4, report.html, metrics.json,
and the field itself in checkpoints, for `experiments.fields.loading.load_field`.
"""

import contextlib

from experiments import errors, flags
from experiments.fields.settings import FieldConfig

Config = FieldConfig


def main(config: FieldConfig) -> int:
    """Fit a radiance field to a capture."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: FieldConfig, stop) -> int:
    from experiments import checkpoints, metrics, progress, runtime, train_loop, workdir

    processes = runtime.setup(config.runtime)
    folder = workdir.open_workdir(
        "fit_field",
        config.workdir,
        resume=config.resume,
        config=flags.to_dict(config),
        process_index=processes.index,
        process_count=processes.count,
    )
    first = processes.index == 0
    fit = _prepare(config, stop, quiet=not first)
    with checkpoints.Checkpoints(folder / "checkpoints") as saved:
        start = train_loop.resume_or_init(saved, resume=config.resume, init=fit.init, make_target=fit.make_target)
        fit.rays = start.aux["rays"]
        with (
            metrics.MetricWriter(
                folder, restored_step=start.step if start.resumed else None, process_index=processes.index
            ) as writer,
            progress.Progress(
                config.steps,
                description="fit",
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


def _prepare(config: FieldConfig, stop, *, quiet: bool):
    from experiments import progress
    from experiments.data.captures import load_capture
    from experiments.fields.fit import Fit

    with contextlib.ExitStack() as shown:
        bar = None

        def loaded(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:  # only now is it known how many there are
                bar = shown.enter_context(progress.Progress(total, description="photographs", enabled=not quiet))
            bar.update(done)

        capture = load_capture(
            config.data,
            downscale=config.downscale,
            undistort=False,  # rays are drawn through the lens as it is
            poses=config.poses,
            allow_external_paths=config.allow_external_paths,
            progress=loaded,
        )
    fit = Fit(capture, config, stop)
    if not quiet:
        for note in (*capture.notes, *fit.notes):
            print(note, flush=True)
    return fit


if __name__ == "__main__":
    flags.run(main, Config())
