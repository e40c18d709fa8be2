"""What is shown of a search: the front, progress and time left, lines in a log, the table on a terminal."""

import io
import os
import pty

import pytest
from searches import row, tune_job

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.report.live import epochs_of, live_table, progress, rendered, trial_line
from yolov7_ray.tune.report.view import SearchView, duration, label, number, short_names


def view(rows: list[dict], elapsed_s: float = 0.0, **changes) -> SearchView:
    return SearchView(validate(tune_job(**changes)), rows, elapsed_s)


ROWS = [row("a", ap=0.5, gflops=10), row("b", ap=0.4, gflops=5), row("c", ap=0.3, gflops=7), row("d", ap=0.6, gflops=20),
        row("e", ap=0.6, gflops=25), row("f", "paused", 1, ap=0.35, gflops=4), row("g", "paused", 1, ap=0.2, gflops=20),
        row("h", "failed", 0, ap=None, gflops=1), row("i", "running", 0, ap=None, gflops=1)]


def test_the_front_holds_what_no_other_fully_trained_trial_dominates():
    shown = view(ROWS)
    assert [member["trial"] for member in shown.front] == ["d", "a", "b"]
    assert [member["trial"] for member in shown.hopeful] == ["f"], "none is better in both, however far it has come"
    assert shown.best["trial"] == "d"
    assert [member["trial"] for member in view([row("a"), row("b")]).front] == ["a", "b"], "equals are both of it"


def test_before_a_trial_is_fully_trained_the_best_is_unfinished():
    shown = view([row("f", "paused", 1, ap=0.35), row("g", "running", 1, ap=0.4), row("h", "running", 0, ap=None)])
    assert shown.front == [] and shown.best["trial"] == "g"
    assert "best g (AP 0.4, GFLOPs 1.5, unfinished)" in progress(shown)
    assert view([row("h", "running", 0, ap=None)]).best is None


def test_a_single_objective_has_a_front_of_one():
    search = {"optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}
    shown = view([row("a", ap=0.3), row("b", ap=0.4), row("c", ap=0.1)], search=search)
    assert dict(shown.objectives) == {"ap": "max"} and [member["trial"] for member in shown.front] == ["b"]


def test_time_left_follows_the_compute():
    rows = [row("a", gflops=1.0, epoch=2), row("b", "paused", gflops=3.0, epoch=1)]
    shown = view(rows, 100.0, budget={"trials": 10, "share": 0.5})
    assert shown.spent == 2 + 3 and shown.full == 2.0 * 10 * 2, "of a mean cost of 2, 10 trials, 2 epochs"
    assert shown.budget == 20 and shown.eta_s == 300, "5 took 100 s, 15 are left"
    assert view(rows, 100.0, budget={"trials": 10, "share": 0.5, "hours": 0.05}).eta_s == 80
    assert view([], 100.0).eta_s is None and view(rows).eta_s is None
    assert progress(shown) == ("2 of 10 trials: 1 paused, 1 trained · best a (AP 0.25, GFLOPs 1) · front of 1 · "
                               "25% of the budget · about 5 min left")


def test_time_left_counts_the_finalists():
    rows = [row("a", gflops=1.0, epoch=2), row("b", "paused", gflops=3.0, epoch=1)]
    budget = {"trials": 10, "share": 0.5}
    longer = view(rows, 100.0, budget=budget, finalists={"count": 2, "epochs": 10, "seeds": 3})
    assert longer.eta_s == 300 + 2 * 3 * 10 * 1.0 * 20, "of a model of the front, which costs 1 an epoch, 20 s each"
    assert view(rows, 100.0, budget=budget | {"hours": 0.05}, finalists={"count": 2, "epochs": 10}).eta_s == 80 + 400
    assert view(rows, 100.0, budget=budget, finalists={"count": 3, "seeds": 2}).eta_s == 300 + 3 * 1 * 2 * 20, (
        "with the epochs of a trial the first seed is the trial itself")


@pytest.mark.parametrize(("found", "line"), [
    (row("a"), "trial a  trained after epoch 2: AP 0.25, GFLOPs 1.5"),
    (row("b", "paused", 1, 0.125, reason="3 of 4 by what they add"),
     "trial b  paused after epoch 1: AP 0.125, GFLOPs 1.5; 3 of 4 by what they add"),
    (row("c", "paused", 1, None), "trial c  paused after epoch 1: AP –, GFLOPs 1.5"),
    (row("d", "failed", 0, None, error="Traceback\n  x\nOSError: no space\n"), "trial d  failed: OSError: no space"),
    (row("e", "rejected", 0, None, reason="parameters 4e+06 is not <= 3e+06"),
     "trial e  rejected: parameters 4e+06 is not <= 3e+06")])
def test_what_became_of_a_trial_is_one_line(found, line):
    assert trial_line(found, view([found])) == line


def test_figures_are_written_as_people_write_them():
    assert [number(value) for value in (None, 0.123456, 3_146_000, 12, "adamw", True, 2.5e9, 250_000)] == [
        "–", "0.1235", "3.15M", "12", "adamw", "True", "2.5G", "250k"]
    assert [duration(seconds) for seconds in (40, 600, 12_600, 200_000)] == ["40 s", "10 min", "3.5 h", "2.3 days"]
    assert [label(figure) for figure in ("ap", "ap50", "ap_small", "ap/cat", "gflops", "latency_ms")] == [
        "AP", "AP50", "AP small", "AP of cat", "GFLOPs", "latency ms"]
    assert short_names(["model.width", "loss.box_gain", "a.x", "b.x"]) == {
        "model.width": "width", "loss.box_gain": "box_gain", "a.x": "a.x", "b.x": "b.x"}


def test_the_table_shows_what_runs_then_the_best_and_counts_the_rest():
    from rich.console import Console

    many = [row(f"t{index:02d}", "paused", 1, ap=0.01 * index) for index in range(20)]
    text = io.StringIO()
    Console(file=text, width=150).print(rendered(view([*ROWS, *many])))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("29 of 29 trials: 1 running, 22 paused, 5 trained, 1 failed · best d (AP 0.6, GFLOPs 20)")
    assert [line.split()[0:2] for line in lines[2:6]] == [["i", "running"], ["●", "d"], ["●", "a"], ["●", "b"]]
    assert any(line.split()[0:2] == ["○", "f"] for line in lines)
    assert lines[1].split() == ["trial", "epoch", "AP", "GFLOPs", "width", "learning_rate"]
    assert lines[-1] == "and 13 more"


def test_a_long_reason_gives_way_to_the_figures():
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=90).print(rendered(view([row("001", "paused", 1, 0.2, reason="low " * 40), row("002")])))
    header, first, second = text.getvalue().splitlines()[-3:]
    assert header.split() == ["trial", "epoch", "AP", "GFLOPs", "width", "learning_rate"]
    assert first.split() == ["●", "002", "trained", "2/2", "0.25", "1.5", "0.25", "0.01"]
    assert second.split()[:8] == ["001", "paused", "1/2", "0.2", "1.5", "0.25", "0.01", "low"] and second.endswith("…")


def test_epochs_say_how_far_a_trial_goes():
    shown = view(ROWS)
    assert [epochs_of(found, shown) for found in (row("a"), row("b", "paused", 1), row("c", "running", 0, rung=1),
                                                  row("d", "running", 1, rung=2), row("e", "finalist", 7, finalist="a"))] == [
        "2/2", "1/2", "0→1/2", "1/2", "7/7"]


def test_without_a_terminal_there_is_no_table():
    stream = io.StringIO()
    with live_table(stream) as show:
        show(view(ROWS))
    assert stream.getvalue() == ""


def test_on_a_terminal_printed_lines_stay_above_the_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, terminal = pty.openpty()
    stream = os.fdopen(terminal, "w")
    monkeypatch.setattr("sys.stdout", stream)
    with live_table() as show:
        show(view(ROWS))
        print("trial a  epoch 1/2")
    stream.close()
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the end of a terminal
        pass
    text = seen.decode()
    assert "trial a  epoch 1/2" in text and "9 of 9 trials" in text
    assert text.index("trial a  epoch 1/2") < text.rindex("9 of 9 trials")
