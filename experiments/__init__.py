"""Programs that wire the four libraries together, and what every program shares.

Each entry point is a module run as `python -m experiments.NAME --flag=value`. It ends with

    if __name__ == "__main__":
        flags.run(main, Config())

`Config` is a frozen dataclass; its module imports the standard library and `experiments.config_fields` only, so that
`--help` answers without loading jax. `main(config)` imports what it needs inside its body and returns an exit code.

Shared machinery, one concern a file:

* `errors`, `flags`, `config_fields`: exit codes, one-line failures, dataclasses to flags;
* `runtime`, `keys`: devices and processes, named random streams that resume without state;
* `workdir`, `metrics`, `progress`, `media`, `report`: everything a run leaves behind;
* `doctor`: what this machine can do, and a check that it does it.
"""
