"""R6: a NaN is named by step and array within one step, and neither logged, evaluated nor saved."""

import pytest

from experiments import manifest, orbax_arrays
from tests.reliability import drivers
from tests.reliability.conftest import TOY


@pytest.mark.parametrize("step", [14, 17])
def test_nan_in_a_gradient_is_named_and_never_saved(step, unbroken, tmp_path, log):
    """Step 14 makes the state that the checkpoint of step 15 would hold."""
    run = tmp_path / "run"
    ended = drivers.run([*TOY, f"--workdir={run}", f"--nan_at={step}"], log)
    assert ended.code == 1
    lines = [line for line in ended.err.splitlines() if line]
    assert len(lines) == 1, ended.err
    assert f"step {step}: non-finite gradient in params (1 of 48 entries)" in lines[0]
    assert drivers.newest_step(run) == step // 5 * 5
    folder = run / "checkpoints" / str(step // 5 * 5)
    arrays = orbax_arrays.read_arrays(folder, manifest.verify(folder).leaves)
    assert all((abs(array) < 1e30).all() for array in arrays.values())
    assert "nan" not in (run / "metrics.jsonl").read_text().lower()
    numbers = drivers.logged_numbers(run)
    assert numbers[-1]["step"] == step
    for line, wanted in zip(numbers, unbroken.numbers, strict=False):
        assert line == pytest.approx(wanted, rel=1e-5)  # Another program, with the line that injects the NaN.
