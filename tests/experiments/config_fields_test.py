import dataclasses

import pytest

from experiments import config_fields


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed must be 0"),
        ({"seed": 2**32}, "seed must be 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds must be above 0"),
        ({"max_seconds": float("nan")}, "max_seconds must be above 0"),
    ],
)
def test_run_settings_are_checked(change, words):
    with pytest.raises(ValueError, match=words):
        config_fields.RunConfig(**change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_processes": 2, "process_id": 2}, "process_id must be"),
        ({"process_id": -1}, "process_id must be"),
        ({"num_cpu_devices": 0}, "num_cpu_devices must be"),
        ({"watchdog_seconds": float("nan")}, "watchdog_seconds must be"),
        ({"coordinator": "host"}, "HOST:PORT"),
        ({"coordinator": "host:0"}, "HOST:PORT"),
        ({"coordinator": ":80"}, "HOST:PORT"),
        ({"coordinator": "host:99999"}, "HOST:PORT"),
    ],
)
def test_runtime_settings_are_checked(change, words):
    with pytest.raises(ValueError, match=words):
        config_fields.RuntimeConfig(**change)


def test_good_settings_pass():
    runtime = config_fields.RuntimeConfig(coordinator="[::1]:8476", num_processes=2, process_id=1)
    assert dataclasses.replace(config_fields.RunConfig(), runtime=runtime, seed=2**32 - 1).runtime is runtime


@pytest.mark.parametrize("kind", [config_fields.RunConfig, config_fields.RuntimeConfig])
def test_every_setting_explains_itself(kind):
    for item in dataclasses.fields(kind):
        assert item.name == "runtime" or len(item.metadata["help"]) > 15, item.name
