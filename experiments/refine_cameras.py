"""Cameras that are nearly right and a splat scene in, cameras that fit the scene out.

    python -m experiments.refine_cameras --splats=runs/fit/splats.ply --data=path/to/capture
    python -m experiments.refine_cameras --splats=runs/fit/splats.ply --data=path/to/capture --views=8 \\
        --against=renders --perturb_degrees=1 --perturb_translation=0.01 --perturb_focal=0.02

Each view is refined by itself: pose, focal lengths and, if asked for, principal point. Leaves transforms.json with the
refined views and their images (a capture in the old frame), refined.json, report.html, metrics.json.
"""

import time

from experiments import errors, flags
from experiments.splats.refinement_settings import RefineConfig

Config = RefineConfig


def main(config: RefineConfig) -> int:
    """Refine the cameras of a capture."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: RefineConfig, stop) -> int:
    from experiments import metrics, progress, runtime, workdir
    from experiments.data.captures import load_capture
    from experiments.splats import refinement, refinement_results

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("refine_cameras runs in one process; deal the views out with --views instead")
    began = time.monotonic()
    folder = workdir.open_workdir("refine_cameras", config.workdir, resume=config.resume, config=flags.to_dict(config))
    capture = load_capture(
        config.data, downscale=config.downscale, poses=config.poses, allow_external_paths=config.allow_external_paths
    )
    for note in capture.notes:
        print(note, flush=True)
    run = refinement.Refinement(capture, config)
    done = refinement.read_done(folder) if config.resume else []
    spent = sum(refined.numbers["seconds"] for refined in done)

    def over(count: int) -> bool:
        late = config.max_seconds is not None and spent + time.monotonic() - began >= config.max_seconds
        return stop.requested or (late and count > 0)

    with (
        metrics.MetricWriter(folder, restored_step=len(done) if done else None) as writer,
        progress.Progress(len(run.views), description="refine", start=len(done)) as bar,
    ):

        def log(refined: refinement.Refined, count: int) -> None:
            writer.write(count, refined.numbers)
            bar.update(count, {name: refined.numbers[name] for name in ("psnr_before", "psnr_after")})

        done = run.run(folder, done, over, log)
    if stop.requested:
        return errors.EXIT_STOPPED
    final = refinement.summary(done, run.knows_truth)
    refinement_results.write_capture(folder, run, capture, done)
    refinement_results.write_report(folder, run, done, {"data": config.data, "method": config.method, **final})
    metrics.write_final(folder, final)
    print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
