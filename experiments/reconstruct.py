"""A splat scene or a fitted field in, a textured mesh out.

    python -m experiments.reconstruct --input=runs/fit_gaussians/2026-11-22-10-00-00
    python -m experiments.reconstruct --input=scene.spz --up=+z --resolution=256
    python -m experiments.reconstruct --input=scene.ply --data=path/to/capture
    python -m experiments.reconstruct --input=runs/fit_field/2026-11-22-10-00-00 --resolution=256

Splats are rendered from all around (or from a capture's cameras), their depth maps are fused into one surface, and its
texture is corrected until it renders as the splats do; a field's surface and colours are asked of the field itself.
Leaves asset.glb in the input's own frame, turntable.mp4, report.html, and metrics.json with the PSNR of the unlit mesh
against renders of the input from cameras that were not used. Minutes at most: nothing is saved on the way, and --resume
starts afresh.
"""

from experiments import errors, flags
from experiments.reconstruction.settings import ReconstructConfig

Config = ReconstructConfig


def main(config: ReconstructConfig) -> int:
    """Make a mesh of splats or a field."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: ReconstructConfig, stop) -> int:
    from experiments import runtime, workdir

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("reconstruct runs as one process; start it without --runtime.num_processes")
    from experiments.reconstruction.program import Reconstruction

    work = Reconstruction(config, stop)
    folder = workdir.open_workdir("reconstruct", config.workdir, resume=config.resume, config=flags.to_dict(config))
    if config.resume:
        print("nothing is saved on the way: starting afresh", flush=True)
    work.run(folder)
    stop.exit_if_requested()
    return errors.EXIT_OK


if __name__ == "__main__":
    flags.run(main, Config())
