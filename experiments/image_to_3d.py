"""A picture of one object in, a textured 3D asset out.

    python -m experiments.image_to_3d --image=photo.png
    python -m experiments.image_to_3d --image=photo.jpg --route=views_single_pass --elevation=20

The picture shows the object from its front, a little from above (--azimuth, --elevation), cut out or before a plain
background. The transformer that comes with the program knows the block world: plain solids and things made of them.
Leaves asset.glb (y-up, metres, texture and PBR material), turntable.mp4, report.html, metrics.json and the picture as
the network saw it in previews/input.png. A run takes seconds: with --resume a stopped one is done again.
"""

from experiments import errors, flags
from experiments.generation.image_settings import ImageTo3dConfig

Config = ImageTo3dConfig


def main(config: ImageTo3dConfig) -> int:
    """Make an asset of a picture."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: ImageTo3dConfig, stop) -> int:
    import time

    began = time.monotonic()
    from experiments import runtime, workdir
    from experiments.generation import images

    cut = images.cut_out(images.read_picture(config.image))
    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("image_to_3d runs as one process; start it without --runtime.num_processes")
    from experiments import media, progress
    from experiments.generation import results
    from experiments.generation.settings import TextTo3dConfig

    make, size = _of_the_picture(config) if config.route == "single_pass" else _through_views(config)
    view = images.framed(cut, size, fill=images.FILL if config.frame == "fit" else None)
    folder = workdir.open_workdir("image_to_3d", config.workdir, resume=config.resume, config=flags.to_dict(config))
    (folder / "previews").mkdir(exist_ok=True)
    shown = media.as_uint8(view[..., :3] + 0.5 * (1 - view[..., 3:]))
    media.write_png(folder / "previews" / "input.png", shown.repeat(8, axis=0).repeat(8, axis=1))
    with progress.Phases() as phases:

        def told(phase: str, done: int, total: int) -> None:
            stop.exit_if_requested()
            phases.update(phase, done, total)

        asset = make(images.as_channels(view), folder, told)
    written = TextTo3dConfig(
        prompt=config.image,
        route="mesh" if config.route == "mesh" else "single_pass",
        turntable_frames=config.turntable_frames,
        turntable_size=config.turntable_size,
    )
    final = results.write_asset(folder, asset, written, stop, title="Image to 3D", began=began)
    stop.exit_if_requested()
    print(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in final.items()), flush=True)
    return errors.EXIT_OK


def _of_the_picture(config: ImageTo3dConfig):
    """What makes an asset of a framed view alone, its weights loaded, and the pixels along a side that it wants."""
    import math

    import numpy as np

    from experiments.data.blocks import rendering
    from experiments.generation.routes import single_pass
    from experiments.single_pass.weights import load_single_pass

    trained = load_single_pass(config.single_pass.weights)
    size = trained.settings.size
    camera = rendering.ring_cameras(math.radians(config.azimuth), math.radians(config.elevation), views=1, size=size)

    def make(view, folder, told):
        return single_pass.rebuilt(trained, view[None], camera, config.single_pass, told, whole=np.zeros(1, bool))

    return make, size


def _through_views(config: ImageTo3dConfig):
    """The same through four views: the multi-view prior paints the other sides."""
    import math

    from experiments.data.blocks import rendering
    from experiments.generation import image_views
    from experiments.generation.results import Asset
    from experiments.generation.routes import mesh, single_pass
    from experiments.prior.weights import load_prior
    from experiments.single_pass.weights import load_single_pass

    prior = load_prior(config.weights)
    trained = load_single_pass(config.single_pass.weights) if config.route == "views_single_pass" else None
    size = prior.settings.size
    if trained is not None and trained.settings.size != size:
        raise errors.InputError(f"the transformer takes {trained.settings.size}-pixel views, the prior makes {size}")
    azimuth, elevation = math.radians(config.azimuth), math.radians(config.elevation)
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=size)

    def make(view, folder, told):
        ring, score = image_views.completed_ring(
            prior,
            view,
            azimuth=azimuth,
            elevation=elevation,
            candidates=config.candidates,
            steps=config.steps,
            seed=config.seed,
            folder=folder,
            told=told,
        )
        if trained is not None:
            asset = single_pass.rebuilt(trained, ring, cameras, config.single_pass, told)
            return Asset(mesh=asset.mesh, numbers={"agreement": score, **asset.numbers})
        surface = mesh.surface(ring, cameras, config.mesh, told)
        return Asset(mesh=mesh.painted(surface, ring, cameras, config.mesh, told), numbers={"agreement": score})

    return make, size


if __name__ == "__main__":
    flags.run(main, Config())
