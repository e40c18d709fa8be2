"""What the bench of searches compares with: replay, compute, Ray's own scheduler."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "bench"))

from bench_tune import Curve, figures_of, load, replay, synthetic  # noqa: E402
from tune_algorithms import HyperBand, Random, RayASHA, SuccessiveHalving, bracket_sizes, fraction_for  # noqa: E402

from yolov7_ray.tune.search.promotion import Promotion  # noqa: E402


def curve(cost: float, final: float, epochs: int = 9) -> Curve:
    """A trial that learns linearly."""
    return {"values": {"width": cost}, "cost": cost, "gflops": cost,
            "ap": [final * epoch / epochs for epoch in range(1, epochs + 1)]}


def pool(*trials: Curve) -> dict[str, Curve]:
    return {str(number): trial for number, trial in enumerate(trials)}


def test_rays_scheduler_decides_by_the_third_quantile_of_those_before():
    """Rungs at 1, 3, 9, none at the end of 9: a trial stops if it is below the best third of those that were there."""
    trials = pool(*(curve(1, final) for final in (0.9, 0.3, 0.6, 0.95)))
    trained, spent, _ = replay(trials, RayASHA(trials, [1, 3, 9], None), workers=1)
    assert trained == ["0", "3"]
    assert spent == 9 + 1 + 1 + 9


def test_random_trains_in_full_what_the_share_holds_in_the_order_of_the_pool():
    trials = pool(*(curve(1, 0.5) for _ in range(8)))
    assert replay(trials, Random(trials, [1, 3, 9], 0.25), workers=1) == (["0", "1"], 18, 18)


def test_halving_keeps_its_share_and_the_best():
    trials = pool(*(curve(1, 0.1 * number) for number in range(1, 10)))
    assert fraction_for(9, [1, 3, 9], 0.3) == pytest.approx(0.405)  # 9, 4 and 1 trials: 9 + 2 * 4 + 6 of 81 epochs
    trained, spent, _ = replay(trials, SuccessiveHalving(trials, [1, 3, 9], 0.3, None), workers=3)
    assert trained == ["8"] and spent == 9 + 2 * 4 + 6


def test_hyperband_has_the_brackets_of_its_paper():
    """R = 9, eta = 3: 9 trials from 1 epoch on, 5 from 3, 3 from 9 (Li et al. 2018, section 3): 21 + 21 + 27 epochs."""
    assert bracket_sizes(17, [1, 3, 9], 69 / 153, 3) == [9, 5, 3]
    assert bracket_sizes(17, [1, 3, 9], 68 / 153, 3) == [8, 4, 2], "scaled until it fits"
    trials = pool(*(curve(1, 0.01 * number) for number in range(17)))
    trained, spent, _ = replay(trials, HyperBand(trials, [1, 3, 9], 69 / 153), workers=4)
    assert sorted(trained) == ["13", "14", "15", "16", "8"] and spent == 69, "the best of each bracket, all of the last"


def test_workers_take_steps_side_by_side_and_spend_the_same_share():
    curves = synthetic("rates")[:12]
    trials = pool(*curves)
    for workers in (1, 4, 16):
        made = Promotion([1, 3, 9, 20], {"ap": "max", "gflops": "min"}, reduction=3, trials=12, share=0.3)
        trained, spent, now = replay(trials, made, workers)
        full = 20 * sum(curve["cost"] for curve in curves)
        assert spent == pytest.approx(made.spent()) and spent <= 0.3 * full * (1 + 1e-9) and trained
        assert now == pytest.approx(spent) if workers == 1 else now < spent


def test_figures_against_the_full_sweep_worked_out_by_hand():
    """Reference (0, 4.4): the sweep covers 0.2 * 0.4 + 3.4 * 0.2 … in (AP, cost), each trial alone its own box."""
    trials = pool(curve(1, 0.2), curve(4, 0.6))
    whole = 0.2 * 3.4 + 0.4 * 0.4
    assert figures_of(trials, ["0"], 9, 9, "gflops") == pytest.approx((0.2 * 3.4 / whole, 1 - 0.2 / 0.6, 0.2, 0.2, 1))
    assert figures_of(trials, ["0", "1"], 45, 9, "gflops") == pytest.approx((1, 0, 1, 0.2, 2))
    assert figures_of(trials, [], 0, 0, "gflops") == pytest.approx((0, 1, 0, 0, 0))


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "bench" / "curves").glob("*.json")),
                         ids=lambda path: path.stem)
def test_recorded_curves_are_whole(path):
    for found in load(path):
        assert len(found["ap"]) == len(found["ap50"]) == 20 and all(0 <= ap <= 1 for ap in found["ap"])
        assert found["cost"] > 0 and found["gflops"] > 0 and found["latency_ms"] > 0 and found["values"]
