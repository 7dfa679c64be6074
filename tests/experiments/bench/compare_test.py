"""The regression check: what it judges, and what it leaves alone."""

import json

import pytest

from experiments.bench import __main__ as program
from experiments.bench import compare, composite
from experiments.errors import InputError

MACHINE = {"device_kind": "cpu", "cpu": "Some CPU", "cpu_count": 2}


def document(machine=MACHINE, **values):
    units = {"ms": "ms", "s": "s", "bytes": "bytes", "ratio": "times", "count": ""}
    results = {name: {"value": value, "unit": units[name.split("_")[0]]} for name, value in values.items()}
    return {"machine": machine, "results": results}


def regressed(new, old):
    return {entry.name for entry in compare.compare(new, old) if entry.regressed}


def test_slower_and_larger_beyond_the_limits_are_regressions():
    old = document(ms_a=10.0, ms_b=10.0, ms_c=10.0, s_d=1.0, bytes_e=100, bytes_f=100)
    new = document(ms_a=14.9, ms_b=15.1, ms_c=1.0, s_d=1.51, bytes_e=119, bytes_f=121)
    assert regressed(new, old) == {"ms_b", "s_d", "bytes_f"}
    ratios = {entry.name: entry.ratio for entry in compare.compare(new, old)}
    assert ratios["ms_c"] == pytest.approx(0.1) and ratios["bytes_f"] == pytest.approx(1.21)


def test_ratios_and_counts_are_shown_only():
    assert not regressed(document(ratio_a=100.0, count_b=9), document(ratio_a=1.0, count_b=1))


def test_times_of_another_machine_are_not_judged_but_bytes_are():
    other = MACHINE | {"cpu_count": 64}
    assert regressed(document(ms_a=99.0, bytes_b=99), document(other, ms_a=1.0, bytes_b=1)) == {"bytes_b"}


def test_entries_without_a_counterpart_are_left_out():
    old = document(ms_a=1.0, ms_zero=0.0)
    old["results"]["ms_b"] = {"value": 1.0, "unit": "s"}
    assert [entry.name for entry in compare.compare(document(ms_a=1.0, ms_b=9.0, ms_c=9.0, ms_zero=9.0), old)] == [
        "ms_a"
    ]


def test_report_says_what_it_found(tmp_path, capsys):
    path = tmp_path / "composite_cpu.json"
    assert compare.report(document(ms_a=1.0), path), "no baseline is no failure"
    assert "no measurement of this device" in capsys.readouterr().out
    path.write_text(json.dumps(document(ms_a=1.0)))
    assert compare.report(document(ms_a=1.2), path)
    assert not compare.report(document(ms_a=2.0), path)
    assert "compare ms_a 2.000 times the committed REGRESSED" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {}, "results": {"ms_a": 1}}', '{"machine": 3}'])
def test_a_file_that_is_no_measurement_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a measurement"):
        compare.report(document(ms_a=1.0), path)


def test_the_command_writes_compares_and_ends_with_one_if_something_has_regressed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.runtime.setup", lambda *_: None)  # the suite has set jax up already
    made = iter([10.0, 12.0, 100.0])
    monkeypatch.setattr(composite, "measure", lambda: {"composite/all": (next(made), "ms")})
    settings = dict(only="composite", output=str(tmp_path))
    assert program.main(program.Config(**settings)) == 0
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert json.loads(written)["results"] == {"composite/all": {"value": 10.0, "unit": "ms"}}
    assert program.main(program.Config(compare=True, **settings)) == 0
    assert program.main(program.Config(compare=True, **settings)) == 1
    assert path.read_bytes() == written, "comparing leaves the baseline alone"
    assert "composite/all 100 ms" in capsys.readouterr().out
