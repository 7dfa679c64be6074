"""A whole experiment in small, for the reliability tests: `python -m tests.reliability.toy --workdir=... --steps=40`.

It fits a linear map to noisy measurements by momentum descent, one named batch a step, data-parallel over all devices;
its memory of past losses doubles on the way, so that array shapes change between checkpoints. The flags below exist so
that a test can hit it in a known phase or break it; the product code has none of the kind.
"""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments import config_fields, errors, flags
from experiments.cadence import Cadence

_ITEMS, _ROWS, _WIDTH = 12, 8, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(config_fields.RunConfig):
    """The run settings, and where to linger or break."""

    steps: int = 40
    cadence: Cadence = field(
        default_factory=lambda: Cadence(
            log_every=1, evaluate_every=10, checkpoint_every=5, checkpoint_seconds=None, agree_every=2
        )
    )
    unroll: int = 1
    step_seconds: float = 0.0
    linger_in: Literal["import", "train", "evaluate", "export"] | None = None
    nan_at: int | None = None
    raise_at: int | None = None
    raise_on: int = 0


def main(config: ToyConfig) -> int:
    """Runs the toy experiment."""
    from experiments import preemption

    with preemption.StopSignal() as stop:
        _say("import")
        if config.linger_in == "import":
            _linger(stop)
        import jax

        from experiments import checkpoints, metrics, progress, runtime, train_loop, workdir

        processes = runtime.setup(config.runtime)
        folder = workdir.open_workdir(
            "toy",
            config.workdir,
            resume=config.resume,
            config=flags.to_dict(config),
            process_index=processes.index,
            process_count=processes.count,
        )
        program, init, make_target = _program(config, stop)
        with checkpoints.Checkpoints(folder / "checkpoints") as saved:
            start = train_loop.resume_or_init(saved, resume=config.resume, init=init, make_target=make_target)
            with (
                metrics.MetricWriter(
                    folder,
                    restored_step=start.step if start.resumed else None,
                    process_index=processes.index,
                    tensorboard=False,
                ) as writer,
                progress.Progress(config.steps, description="toy", start=start.step, enabled=False) as bar,
                runtime.Watchdog(config.runtime.watchdog_seconds) as watchdog,
            ):
                finished = train_loop.train(
                    start,
                    num_steps=config.steps,
                    max_seconds=config.max_seconds,
                    program=program,
                    cadence=config.cadence,
                    checkpoints=saved,
                    writer=writer,
                    progress=bar,
                    stop=stop,
                    watchdog=watchdog,
                )
        if finished.stopped:
            return errors.EXIT_STOPPED
        _say("export")
        if config.linger_in == "export":
            _linger(stop)
        stop.exit_if_requested()
        if processes.index == 0:
            metrics.write_final(folder, {"seconds": finished.seconds, "steps": finished.step})
        jax.block_until_ready(finished.state)
    return errors.EXIT_OK


def _program(config: ToyConfig, stop):
    import time

    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import finite, keys, runtime, train_loop

    mesh = runtime.data_mesh()
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    over_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("views"))
    rng = keys.host_rng(config.seed, "data")
    inputs = rng.normal(size=(_ITEMS, _ROWS, _WIDTH)).astype(np.float32)
    outputs = inputs @ rng.normal(size=(_WIDTH, 3)).astype(np.float32)

    def put(array, sharding):
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def init():
        state = {
            "params": np.zeros((_WIDTH, 3), np.float32),
            "momentum": np.zeros((_WIDTH, 3), np.float32),
            "memory": np.zeros((4,), np.float32),
        }
        return jax.tree.map(lambda leaf: put(leaf, everywhere), state), {"capacity": 4}

    def make_target(aux):
        def leaf(*shape):
            return jax.ShapeDtypeStruct(shape, np.float32, sharding=everywhere)

        return {"params": leaf(_WIDTH, 3), "momentum": leaf(_WIDTH, 3), "memory": leaf(aux["capacity"])}

    def batch(step):
        if step == config.raise_at and jax.process_index() == config.raise_on:
            raise RuntimeError("told to fail")
        item = keys.index_at(config.seed, step, _ITEMS)
        return {
            "item": put(np.int32(item), everywhere),
            "x": put(inputs[item], over_rows),
            "y": put(outputs[item], over_rows),
        }

    def loss_of(params, x, y, key):
        for _ in range(config.unroll):
            params = params + 0.0 * jnp.tanh(params)
        noise = 0.01 * jax.random.normal(key, y.shape)
        return jnp.mean((x @ params - y - noise) ** 2)

    @jax.jit(donate_argnums=0)
    def update(state, batch, step, fraction):
        key = keys.key(config.seed, "noise", step)
        loss, gradient = jax.value_and_grad(loss_of)(state["params"], batch["x"], batch["y"], key)
        if config.nan_at is not None:
            gradient = gradient.at[1, 2].set(jnp.where(step == config.nan_at, jnp.nan, gradient[1, 2]))
        momentum = 0.9 * state["momentum"] + gradient
        memory = state["memory"]
        new = {
            "params": state["params"] - 0.05 * (1.0 - fraction) * momentum,
            "momentum": momentum,
            "memory": memory.at[step % memory.size].set(loss),
        }
        report = finite.finite_report({"gradient": {"params": gradient}, "loss": loss})
        return jax.lax.with_sharding_constraint(new, everywhere), {"loss": loss, "item": batch["item"]}, report

    def step(state, aux, batch, step, fraction):
        if not update._cache_size():
            _say("compile")
        time.sleep(config.step_seconds)
        if config.linger_in == "train" and int(step) == 12:
            _say("train")
            if jax.process_index() == jax.process_count() - 1:
                _linger(stop)
        return update(state, batch, step, fraction)

    def reshape(state, aux, step):
        if step in (15, 30):
            capacity = 2 * aux["capacity"]
            grown = np.zeros((capacity,), np.float32)
            grown[: aux["capacity"]] = np.asarray(state["memory"])
            return {**state, "memory": put(grown, everywhere)}, {**aux, "capacity": capacity}
        return state, aux

    def evaluate(state, step):
        _say("evaluate")
        params = np.asarray(state["params"])
        squares = []
        for item in range(_ITEMS):
            if config.linger_in == "evaluate":
                time.sleep(0.1)
            if stop.requested:
                return None
            squares.append(float(np.mean((inputs[item] @ params - outputs[item]) ** 2)))
        return {"error": float(np.mean(squares))}

    return train_loop.Program(step=step, batch=batch, reshape=reshape, evaluate=evaluate), init, make_target


def _say(phase: str) -> None:
    print(f"phase {phase}", flush=True)


def _linger(stop) -> None:
    import time

    end = time.monotonic() + 20.0
    while time.monotonic() < end and not stop.requested:
        time.sleep(0.02)


if __name__ == "__main__":
    flags.run(main, ToyConfig())
