"""Masks, normals or colours of many views in, a textured mesh out.

    python -m experiments.fit_mesh --data=demo
    python -m experiments.fit_mesh --data=spot.obj --target=normals
    python -m experiments.fit_mesh --data=mug.glb --init=hull --target=normals+depths
    python -m experiments.fit_mesh --data=path/to/nerf_synthetic/chair --init=hull --target=masks

A mesh file is rendered from around and fitted to its own pictures, so that all errors are known; a capture folder gives
masks and colours. Leaves asset.glb (in the frame of the data), renders of the test views, turntable.mp4, report.html,
metrics.json with errors in units of the longest side of the object's box.
"""

from experiments import errors, flags
from experiments.surfaces.settings import MeshFitConfig

Config = MeshFitConfig


def main(config: MeshFitConfig) -> int:
    """Fit a mesh to images."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: MeshFitConfig, stop) -> int:
    from experiments import checkpoints, metrics, progress, runtime, train_loop, workdir
    from experiments.surfaces.program import MeshFit
    from experiments.surfaces.results import export
    from experiments.surfaces.targets import load_targets

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("fit_mesh runs as one process; start it without --runtime.num_processes")
    folder = workdir.open_workdir(
        "fit_mesh", config.workdir, resume=config.resume, config=flags.to_dict(config), process_index=0, process_count=1
    )
    targets = load_targets(config)
    fit = MeshFit(targets, config)
    for note in fit.notes:
        print(note, flush=True)
    with checkpoints.Checkpoints(folder / "checkpoints") as saved:
        start = train_loop.resume_or_init(saved, resume=config.resume, init=fit.init, make_target=fit.make_target)
        with (
            metrics.MetricWriter(folder, restored_step=start.step if start.resumed else None) as writer,
            progress.Progress(
                config.steps,
                description="shape",
                start=start.step,
                max_seconds=config.max_seconds,
                spent_seconds=start.aux.get("seconds", 0.0),
            ) as bar,
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
            )
    if finished.stopped:
        return errors.EXIT_STOPPED
    export(folder, finished, targets, config, stop)
    stop.exit_if_requested()
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
