"""How far a training is, as bars on a terminal and as lines in a log, and what a worker tells of it."""

import io
from types import SimpleNamespace

import pytest
import torch

from yolov7.training.state import TrainState
from yolov7_ray.train import progress
from yolov7_ray.train.progress import Reporter
from yolov7_ray.train.progress_bar import Position, shown_positions

AT = Position(3, 50, 40, 118, 52.4, {"box": 0.04123, "objectness": 0.03}, 12.0, 540.0, 1.25, "fetch 3%, step 97%")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_position_is_one_line():
    assert AT.line == ("  epoch 3/50  step 40/118  52 images/s  box 0.0412  objectness 0.0300  1.2 GB  left: epoch 12 s, job 9 min"
                       "  (fetch 3%, step 97%)")
    assert Position(1, 2, 3, 4).line == "  epoch 1/2  step 3/4  0 images/s"
    assert AT._replace(phase="evaluating").figures.startswith("evaluating  52 images/s")


def test_a_log_gets_a_line_of_each_run_every_thirty_seconds():
    now, stream = [0.0], io.StringIO()
    with shown_positions(True, stream, lambda: now[0]) as show:
        for second in range(0, 100, 5):
            now[0] = second
            show({"a ": AT._replace(step=second)} | ({"b ": AT} if second == 95 else {}))
    assert [line.split("  left")[0] for line in stream.getvalue().splitlines()] == [
        *(f"a   epoch 3/50  step {second}/118  52 images/s  box 0.0412  objectness 0.0300  1.2 GB" for second in (30, 60, 90)),
        "b   epoch 3/50  step 40/118  52 images/s  box 0.0412  objectness 0.0300  1.2 GB"]


def test_a_terminal_gets_bars_that_vanish(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with shown_positions(True, stream) as show:
        show({"": AT})
        show({"": AT._replace(step=118, phase="evaluating", epoch_left_s=None)})
    text = stream.getvalue()
    assert "epoch 3/50" in text and "job" in text and "9 min left" in text and "evaluating" in text
    assert text.rstrip("\r").endswith("\x1b[2K"), "the last thing is that they are erased"


@pytest.mark.parametrize("bars", [True, False])
def test_no_colour_where_none_is_wanted_and_no_bars_beside_a_table(monkeypatch, bars):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with shown_positions(bars, stream) as show:
        show({"": AT})
    assert "\x1b[3" not in stream.getvalue(), "no colour"
    assert ("epoch 3/50" in stream.getvalue()) == bars


# --- what a worker tells -------------------------------------------------------------------------------


def reporter(monkeypatch, rank: int = 0) -> tuple[Reporter, list[Position], list[float]]:
    now, sent = [100.0], []
    call = SimpleNamespace(remote=lambda *arguments: None)
    actor = SimpleNamespace(replaced=call, write=call, at=SimpleNamespace(remote=lambda label, position: sent.append(position)))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    made = Reporter(actor, rank, "", epochs=5, batch_size=8)
    made.steps_per_epoch = 10
    return made, sent, now


def test_what_is_left_follows_the_steps_and_then_whole_epochs(monkeypatch):
    made, sent, now = reporter(monkeypatch)
    made.start_epoch()
    for step in range(1, 11):
        now[0] += 2.0
        made.step(0, step, {"fetch": .25, "step": .75}, {"decode": 1.0}, lambda: {"box": .5})
    first, last = sent[0], sent[-1]
    assert (first.epoch, first.step, first.steps, first.images_per_s, first.losses) == (1, 1, 10, 4.0, {"box": .5})
    assert first.epoch_left_s == 18 and first.job_left_s == 18 + 4 * 20 and first.stages == "fetch 25% (decode 100%), step 75%"
    assert first.memory_gb > 0 and last.epoch_left_s == 0
    made.phase("evaluating")
    assert sent[-1].phase == "evaluating" and sent[-1].step == 10
    now[0] += 10.0  # an evaluation: the epoch took 30 s
    made.epoch({"epoch": 1, "train/box": .5, "images_per_s": 4.0, "skipped_updates": 0})
    made.start_epoch()
    now[0] += 2.0
    made.step(1, 1, {"step": 1.0}, {}, dict)
    assert sent[-1].epoch_left_s == 18 and sent[-1].job_left_s == 18 + 10 + 3 * 30


def test_a_resumed_epoch_is_no_measure_of_a_whole_one(monkeypatch):
    made, sent, now = reporter(monkeypatch)
    made.start_epoch(first_step=8)
    now[0] += 4.0
    made.step(0, 10, {"step": 1.0}, {}, dict)
    assert sent[-1].images_per_s == 4.0 and sent[-1].epoch_left_s == 0
    made.epoch({"epoch": 1, "train/box": .5, "images_per_s": 4.0, "skipped_updates": 0})
    assert made._epoch_seconds == []


def test_it_tells_twice_a_second_at_most_and_the_first_worker_alone(monkeypatch):
    made, sent, now = reporter(monkeypatch)
    made.start_epoch()
    for step in range(10):
        now[0] += 0.2
        made.step(0, step + 1, {"step": 1.0}, {}, dict)
    assert [position.step for position in sent] == [3, 6, 9]
    other, nothing, now = reporter(monkeypatch, rank=1)
    other.start_epoch()
    now[0] += 9
    other.step(0, 1, {"step": 1.0}, {}, dict)
    other.phase("evaluating")
    assert nothing == []


def test_mean_losses_of_the_epoch_so_far():
    state = SimpleNamespace(totals=torch.tensor([4.0, 2.0, 1.0, 8.0], dtype=torch.float64))
    assert TrainState.mean_losses(state) == {"box": .5, "objectness": .25, "classification": .125}
    assert TrainState.mean_losses(SimpleNamespace(totals=torch.zeros(4))) == {}
