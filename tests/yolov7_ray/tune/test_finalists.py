"""Finalists: which trials are trained in full, and which of them is best."""

import pytest
from training_jobs import train_job

from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.finalists import chosen, finalists, noise, outcome

WIDTHS = {"model.width": {"choice": [0.25, 0.5, 0.75, 1.0]}}


def spec(**changes):
    return validate({"kind": "tune", "train": train_job("data", "runs", epochs=9, seed=7), "search": WIDTHS,
                     "finalists": {"count": 2, "epochs": 30, "seeds": 2}} | changes)


def row(trial: str, width: float, ap: float | None, epochs: int = 9, **changes) -> dict:
    return {"trial": trial, "values": {"model.width": width}, "epochs": epochs, "error": None,
            "figures": {"ap": ap, "gflops": 10 * width}} | changes


ROWS = [row("a", 0.25, 0.2), row("b", 0.5, 0.4), row("c", 0.75, 0.35), row("d", 1.0, 0.5),
        row("e", 1.0, 0.9, epochs=3), row("f", 0.25, None), row("g", 0.25, 0.9, error="lost")]


@pytest.mark.parametrize(("count", "trials"), [
    (1, "d"), (2, "da"), (3, "dab"), (4, "dabc"), (9, "dabc")])
def test_the_front_goes_first_from_its_best_end_and_spread(count, trials):
    assert "".join(found["trial"] for found in chosen(spec(finalists={"count": count}), ROWS)) == trials


def test_the_best_end_is_that_of_the_accuracy():
    assert [found["trial"] for found in chosen(spec(objectives={"gflops": "min", "ap": "max"}), ROWS)] == ["d", "a"]


def test_without_finalists_nothing_follows():
    assert finalists(spec(finalists=None), ROWS) == [] and finalists(spec(), []) == []


def test_each_is_the_trials_job_with_its_epochs_and_seeds():
    jobs = dict(finalists(spec(), ROWS))
    assert list(jobs) == ["d-seed-7", "d-seed-8", "a-seed-7", "a-seed-8"]
    for name, job in jobs.items():
        assert (job.name, job.epochs, job.seed) == (name, 30, int(name[-1]))
        assert job.model.width == {"d": 1.0, "a": 0.25}[name[0]]
    assert dict(finalists(spec(finalists={"count": 1}), ROWS))["d-seed-7"].epochs == 9
    searched = spec(search=WIDTHS | {"seed": {"choice": [3]}})
    assert [name for name, _ in finalists(searched, [row("x", 0.5, 0.1) | {
        "values": {"model.width": 0.5, "seed": 3}}])] == ["x-seed-3", "x-seed-4"]


def test_epochs_that_the_train_job_refuses_are_found_at_once():
    train = train_job("data", "runs", epochs=9, optimizer={"warmup_epochs": 5})
    with pytest.raises(JobError, match="finalists.epochs: 3 is refused by the train job: optimizer.warmup_epochs: 5 "):
        spec(train=train, finalists={"epochs": 3})


def test_means_and_spreads_over_seeds():
    found = outcome(spec(), ROWS, {
        "d-seed-7": {"ap": 0.52, "ap50": 0.8}, "d-seed-8": {"ap": 0.48, "ap50": 0.6}, "a-seed-7": {"ap": 0.3}})
    assert [one["finalist"] for one in found] == ["d", "a"]
    assert found[0]["figures"] == {"gflops": 10.0, "ap": pytest.approx(0.5), "ap50": pytest.approx(0.7)}
    assert found[0]["spread"] == {"ap": pytest.approx(0.0282842712), "ap50": pytest.approx(0.1414213562)}
    assert found[1]["figures"] == {"gflops": 2.5, "ap": 0.3} and found[1]["spread"] == {}
    assert found[0]["seeds"] == [{"ap": 0.52, "ap50": 0.8}, {"ap": 0.48, "ap50": 0.6}]


@pytest.mark.parametrize(("of_a", "order"), [
    ((0.50, 0.46), "ad"),  # 0.02 below with a standard deviation of 0.028: as good, and cheaper
    ((0.46, 0.44), "da"),  # 0.05 below with one of 0.022
    ((None, None), "da"),  # failed
])
def test_ties_within_the_noise_go_to_the_cheaper(of_a, order):
    results = {"d-seed-7": {"ap": 0.52}, "d-seed-8": {"ap": 0.48}}
    results |= {f"a-seed-{seed}": {"ap": ap} for seed, ap in zip((7, 8), of_a) if ap is not None}
    assert "".join(one["finalist"] for one in outcome(spec(), ROWS, results)) == order


def test_noise_is_pooled_over_models():
    pairs = [[{"ap": 0.1}, {"ap": 0.3}], [{"ap": 0.5}, {"ap": 0.5}, {"ap": None}], [{"ap": 0.7}], []]
    assert noise(pairs, "ap") == pytest.approx(0.1)  # variances 0.02 and 0, one degree of freedom each
    assert noise([[{"ap": 0.1}], [{"ap": 0.3}]], "ap") == 0.0
