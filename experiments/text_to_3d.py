"""Words in, a textured 3D asset out.

    python -m experiments.text_to_3d --prompt="a small blue sphere on top of a green box"
    python -m experiments.text_to_3d --prompt="a red table with black legs" --route=splats
    python -m experiments.text_to_3d --prompt="a yellow dog" --seed=1 --candidates=8

The prior that comes with the program knows the block world: solids, colours, sizes, relations, and things such as
tables, mugs and dogs; words that it does not know are named with the nearest ones that it does. Leaves asset.glb (y-up,
metres, texture and PBR material), turntable.mp4, report.html, metrics.json, previews; the splat route also asset.ply.
Stopped by a signal, a run goes on with --resume at the first stage that is not done.
"""

from experiments import errors, flags
from experiments.generation.settings import TextTo3dConfig

Config = TextTo3dConfig


def main(config: TextTo3dConfig) -> int:
    """Make an asset of a prompt."""
    from experiments import preemption
    from experiments.data.blocks.descriptions import vocabulary
    from experiments.generation.prompts import check_prompt

    if config.weights is None:
        check_prompt(config.prompt, vocabulary())  # before anything slow is imported
    with preemption.StopSignal() as stop:
        return _run(config, stop)


def _run(config: TextTo3dConfig, stop) -> int:
    import time

    began = time.monotonic()
    from experiments import runtime, workdir

    processes = runtime.setup(config.runtime)
    if processes.count > 1:
        raise errors.InputError("text_to_3d runs as one process; start it without --runtime.num_processes")
    from experiments.generation import results

    guide = _guide(config)
    make = _maker(config, guide)
    folder = workdir.open_workdir("text_to_3d", config.workdir, resume=config.resume, config=flags.to_dict(config))
    stop.exit_if_requested()
    asset = make(guide, config, folder, stop)
    final = results.write_asset(folder, asset, config, stop, began=began)
    stop.exit_if_requested()
    print(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in final.items()), flush=True)
    return errors.EXIT_OK


def _guide(config: TextTo3dConfig):
    """What knows how the prompt looks; refuses prompts that it does not understand."""
    from experiments.generation import guides
    from experiments.generation.prompts import check_prompt

    if config.route == "oracle":
        from experiments.data.blocks.descriptions import parse, vocabulary

        check_prompt(config.prompt, vocabulary())
        try:
            said = parse(config.prompt)
        except ValueError as error:
            raise errors.InputError(f"the oracle needs a sentence of the block world's grammar: {error}") from error
        return guides.OracleGuide(said, count=config.oracle.objects, seed=config.oracle.seed)
    from experiments.prior.rings import LENGTH
    from experiments.prior.weights import load_prior

    prior = load_prior(config.weights)
    check_prompt(config.prompt, prior.vocabulary, most_words=LENGTH)
    return guides.PriorGuide(prior, config.prompt)


def _maker(config: TextTo3dConfig, guide):
    """The route's `make`; what it needs besides the guide is loaded first, so that a folder is made only for a run."""
    import functools

    route = config.oracle.representation if config.route == "oracle" else config.route
    if route == "mesh":
        from experiments.generation.routes import mesh as chosen
    elif route == "nerf":
        from experiments.generation.routes import nerf as chosen
    elif route == "splats":
        from experiments.generation.routes import splats as chosen
    else:
        from experiments.generation.routes import single_pass

        return functools.partial(single_pass.make, trained=single_pass.load(config, guide.size))
    return chosen.make


if __name__ == "__main__":
    flags.run(main, Config())
