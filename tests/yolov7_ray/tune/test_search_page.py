"""The page of a search: what its charts say, and that it works from disk in a real headless Chromium."""

import math
from pathlib import Path

import pytest
from browser import check_everywhere, chromium
from searches import record_search, row, tune_job

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.page.axis import Axis
from yolov7_ray.tune.report.importance import compared_epoch, importances
from yolov7_ray.tune.report.page import Page, page, progress_over_compute
from yolov7_ray.tune.report.view import SearchView

# --- axes -------------------------------------------------------------------------------------------


def test_ticks_are_round_values_at_their_places():
    axis = Axis(0.0, 10.0)
    assert axis.ticks() == [(0.0, "0"), (0.2, "2"), (0.4, "4"), (0.6, "6"), (0.8, "8"), (1.0, "10")]
    assert [text for _, text in Axis(0.0, 2.5, whole=True).ticks()] == ["0", "1", "2"]
    log = Axis(-3.0, -1.0, log=True)
    assert [text for _, text in log.ticks()] == ["0.001", "0.003", "0.01", "0.03", "0.1"]
    assert log.place(0.01) == pytest.approx(0.5)
    words = Axis.of(["sgd", "adamw", "sgd"])
    assert words.ticks() == [(0.25, "sgd"), (0.75, "adamw")] and words.place("adamw") == 0.75


def test_a_few_values_to_choose_from_are_the_ticks():
    assert Axis.of([64, 96]).ticked([64, 96]).ticks() == [(pytest.approx(1 / 22), "64"), (pytest.approx(21 / 22), "96")]
    assert len(Axis.of(list(range(20))).ticked(list(range(20))).ticks()) == 4, "too many: round ones"
    assert Axis.of(["sgd"]).ticked(["sgd"]).ticks() == Axis.of(["sgd"]).ticks()


def test_an_axis_holds_its_values():
    for values in ([0.3, 0.5], [4], [], [0.0, 0.0], [1e-5, 1.0], [-2.0, 3.0], [True, False]):
        axis = Axis.of(values, log=True)
        assert all(0 <= axis.place(value) <= 1 for value in values)
        assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in axis.ticks())
    assert Axis.of([0.001, 0.1], log=True).log and not Axis.of([0.5, 1.0], log=True).log, "where it shows more"
    assert Axis.of([3, 9], zero=True).low == 0


# --- what the charts say ----------------------------------------------------------------------------


def test_hypervolume_grows_with_each_fully_trained_model():
    rows = [row("a", ap=0.2, gflops=1.0), row("b", ap=0.4, gflops=3.0), row("c", "paused", 1, ap=0.1, gflops=5.0)]
    history = [[1.0, "c", 1], [3.0, "a", 1], [5.0, "a", 2], [20.0, "b", 2]]
    view = SearchView(validate(tune_job()), rows, history=history)
    # AP from 0 to 0.4, GFLOPs from 5 down to 1: a is (0.5, 1), b is (1, 0.5)
    assert progress_over_compute(view) == [(5.0, pytest.approx(0.5)), (20.0, pytest.approx(0.75))]


def test_with_one_objective_the_best_value_is_drawn():
    spec = validate(tune_job(search={"optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}))
    rows = [row(name, ap=ap) for name, ap in (("a", 0.3), ("b", 0.2), ("c", 0.5))]
    view = SearchView(spec, rows, history=[[2.0, "a", 2], [4.0, "b", 2], [6.0, "c", 1], [8.0, "c", 2]])
    assert progress_over_compute(view) == [(2.0, 0.3), (4.0, 0.3), (8.0, 0.5), (9.0, 0.5)]


def test_trials_are_compared_at_the_highest_epoch_that_enough_have_reached():
    curves = {f"t{index}": [(epoch, 0.1) for epoch in range(1, last + 1)] for index, last in enumerate([9] * 3 + [3] * 6 + [1] * 4)}
    assert compared_epoch(curves) == 3, "9 of 13, at least 8"
    assert compared_epoch(dict(list(curves.items())[:7])) is None and compared_epoch({}) is None


def test_the_value_that_decides_matters_most():
    spec = validate(tune_job(search={"optimizer.algorithm": {"choice": ["sgd", "adamw"]},
                                     "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]},
                                     "augment.scale": {"uniform": [0.1, 0.9]}}))
    rows = [row(f"{index:02d}", values={"optimizer.algorithm": ["sgd", "adamw"][index % 2],
                                        "optimizer.learning_rate": 10 ** (-3 + 2 * (index * 7 % 40) / 40),
                                        "augment.scale": 0.1 + 0.8 * (index * 11 % 40) / 40}) for index in range(40)]
    curves = {found["trial"]: [(1, -math.log10(found["values"]["optimizer.learning_rate"] / 0.01) ** 2)] for found in rows}
    shares, epoch = importances(SearchView(spec, rows), curves)
    assert epoch == 1 and list(shares)[0] == "optimizer.learning_rate" and shares["optimizer.learning_rate"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(SearchView(spec, rows[:7]), {name: curves[name] for name in list(curves)[:7]}) == ({}, 0)


def test_the_page_of_a_search_that_has_just_begun_is_whole():
    spec = validate(tune_job())
    for rows in ([], [row("a", "running", 0, None)], [row("a", "failed", 0, None, error="x")]):
        text = page(SearchView(spec, rows, run="runs/s"), {})
        assert f"{len(rows)} of 3" in text and "<svg" not in text


def test_names_are_text_not_html(tmp_path):
    spec = validate(tune_job(search={"model.weights": {"choice": ["<script>a</script>", "'b'"]}}))
    rows = [row("a", values={"model.weights": "<script>a</script>"}, reason="<b>"), row("b", values={"model.weights": "'b'"})]
    text = page(SearchView(spec, rows, run="runs/<i>"), {"a": [{"epoch": 1, "ap": 0.2}]})
    assert "<script>a" not in text and "<b>&" not in text and "<i>" not in text and "&lt;script&gt;a" in text


def test_epochs_are_read_again_only_of_trials_that_went_on(tmp_path, monkeypatch):
    run = str(tmp_path / "search")
    view = record_search(run, 6)
    writer, read, real = Page(run), [], storage.read_json
    monkeypatch.setattr(storage, "read_json", lambda uri: read.append(uri) or real(uri))
    writer.write(view)
    read.clear()
    rows = [dict(found) for found in view.rows]
    rows[0]["epoch"] += 1
    writer.write(SearchView(view.spec, rows, run=run))
    assert read == [f"{rows[0]['run']}/results.json"]


def test_a_class_has_a_learning_curve_of_its_own(tmp_path):
    spec = validate(tune_job(objectives={"ap/dog": "max", "gflops": "min"}))
    rows = [row("a", run=str(tmp_path / "trials/a"), figures={"ap/dog": 0.4, "gflops": 1.0})]
    storage.write_json(f"{rows[0]['run']}/results.json", {"classes": ["cat", "dog"], "epochs": [
        {"epoch": 1, "ap": 0.1, "class_ap": [0.9, 0.2]}, {"epoch": 2, "ap": 0.2, "class_ap": [None, 0.4]}]})
    Page(str(tmp_path)).write(SearchView(spec, rows, run=str(tmp_path)))
    text = (tmp_path / "report/index.html").read_text()
    assert "AP of dog after each epoch" in text and text.count("class='curve trained front' data-trial='a'") == 1


# --- in a browser -----------------------------------------------------------------------------------


@pytest.fixture
def browser():
    with chromium() as browser:
        yield browser


def column(page, number: int) -> list[str]:
    return page.locator(f".trials tbody tr td:nth-child({number})").all_inner_texts()


@pytest.mark.slow
def test_the_page_works_from_disk_in_light_and_dark_on_wide_and_narrow_screens(browser, tmp_path):
    run = tmp_path / "search"
    view = record_search(str(run))
    Page(str(run)).write(view)
    check_everywhere(browser, run / "report/index.html", ".trials tbody tr", "search")


@pytest.mark.slow
def test_the_table_sorts_and_a_trial_is_lit_everywhere(browser, tmp_path):
    run = tmp_path / "search"
    view = record_search(str(run))
    Page(str(run)).write(view)
    page = browser.new_page()
    page.goto((run / "report/index.html").as_uri())
    rows = view.rows
    heads = page.locator(".trials th").all_inner_texts()
    assert heads == ["●", "trial", "status", "epochs", "AP", "GFLOPs", "depth", "width", "learning_rate", "algorithm", "why"]
    known = sorted((found["figures"]["ap"] for found in rows if found["figures"]["ap"] is not None))
    for direction in (known[::-1], known):
        page.locator(".trials th button", has_text="AP").click()
        assert [text for text in column(page, 5) if text != "–"] == [f"{value:.4g}" for value in direction]
        assert column(page, 5)[len(known):] == ["–"] * (len(rows) - len(known)), "what is unknown comes last, either way"
    page.locator(".trials th button", has_text="status").click()
    assert column(page, 3) == sorted((found["status"] for found in rows), reverse=True)
    trial = next(found for found in rows if found["status"] == "trained")
    link = page.locator(f".trials tr[data-trial='{trial['trial']}'] a")
    assert Path(run / "report" / link.get_attribute("href")).resolve() == run / "trials" / trial["trial"] / "report/index.html"
    page.locator(f".trials tr[data-trial='{trial['trial']}'] td").nth(2).hover()
    lit = page.locator(".lit")
    assert {lit.nth(index).get_attribute("data-trial") for index in range(lit.count())} == {trial["trial"]}
    assert page.locator("svg .lit").count() == 1 + 1 + 1 + 4, "front, learning, parallel coordinates, a slice for each value"
