import io
import time

import pytest

from experiments import progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    with progress.Progress(100, description="fit") as shown:
        for step in range(1, 61):
            clock[0] += 0.5
            shown.update(step, {"loss": 1.0 / step} if step % 2 == 0 else None)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # At 10, 20 and 30 s, the last of which is the end.
    assert lines[0].startswith("fit: 20/100  20%  2 steps/s  0:10 elapsed  ETA 0:40  loss 0.05")
    assert "60/100  60%" in lines[-1]


def test_the_rate_leaves_the_compiling_step_out_and_forgets_old_steps(clock):
    shown = progress.Progress(1000, description="fit")
    clock[0] += 50.0
    shown.update(1)
    assert shown.steps_per_second() is None and shown.seconds_left() is None
    for step in range(2, 12):
        clock[0] += 0.1
        shown.update(step)
    assert shown.steps_per_second() == pytest.approx(10.0)
    assert shown.seconds_left() == pytest.approx((1000 - 11) / 10.0)
    for step in range(12, 60):
        clock[0] += 1.0
        shown.update(step)
    assert shown.steps_per_second() == pytest.approx(1.0)


def test_the_time_left_is_bounded_by_the_limit_and_by_what_earlier_attempts_used(clock):
    shown = progress.Progress(1000, description="fit", start=500, max_seconds=60.0, spent_seconds=20.0)
    assert shown.seconds_left() == pytest.approx(40.0)
    for step in (501, 502, 503):
        clock[0] += 1.0
        shown.update(step)
    assert shown.seconds_left() == pytest.approx(37.0)  # 497 steps would take 497 s.
    clock[0] += 100.0
    assert shown.seconds_left() == 0.0
    nearly_done = progress.Progress(3, description="fit", max_seconds=60.0)
    for step in (1, 2):
        clock[0] += 1.0
        nearly_done.update(step)
    assert nearly_done.seconds_left() == pytest.approx(1.0)


def test_phases_follow_each_other_and_each_ends_with_a_line(clock, capsys):
    with progress.Phases() as phases:
        for done in range(4):
            clock[0] += 1.0
            phases.update("surface", done, 3)
        phases.update("texture", 1, 8)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("%")[0] for line in lines] == ["surface: 3/3  100", "texture: 1/8  12"]


def test_silence_where_it_is_asked_for(clock, capsys):
    with progress.Progress(10, description="fit", enabled=False) as shown:
        clock[0] += 60.0
        shown.update(5, {"loss": 1.0})
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress.Progress(10, description="fit") as shown:
        for step in range(1, 11):
            shown.update(step, {"loss": 0.125})
    text = screen.getvalue()
    assert "fit" in text and "10/10  100%" in text and "loss 0.125" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.2, "1:00"), (61, "1:01"), (3600, "1:00:00"), (-3, "0:00")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert progress.clock(seconds) == text
