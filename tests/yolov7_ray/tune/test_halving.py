"""Asynchronous successive halving: rungs, decisions and what survives a restart."""

import json

import pytest

from yolov7_ray import storage
from yolov7_ray.tune.halving import Halving, rungs


@pytest.mark.parametrize(("first", "reduction", "epochs", "every", "expected"), [
    (2, 3, 6, 1, [2]),  # 6 would be the end of a trial
    (1, 3, 27, 1, [1, 3, 9]),
    (1, 3, 28, 1, [1, 3, 9, 27]),
    (1, 2, 12, 5, [5, 10]),  # evaluated at 5, 10 and 12
    (1, 2, 10, 5, [5]),
    (4, 3, 4, 1, []),
    (1, 3, 10, 10, []),
])
def test_rungs_are_evaluated_epochs_before_the_end(first, reduction, epochs, every, expected):
    assert rungs(first, reduction, epochs, every) == expected


def test_a_trial_goes_on_among_the_best_third_of_those_before_it():
    halving = Halving(3, [1, 3])
    assert halving.decide("a", 1, 0.2) is None  # the first
    assert halving.decide("b", 1, 0.1) == (
        "AP 0.1 at epoch 1 is below 0.2, from which on a trial is among the best 1/3 of the 1 before it")
    assert halving.decide("c", 1, 0.25) is None
    assert "is below 0.2167" in halving.decide("d", 1, 0.21)  # 0.1, 0.2, 0.25: a third of the way from 0.2 to 0.25
    assert halving.decide("a", 2, 0.0) is None  # no rung
    assert halving.decide("a", 3, 0.0) is None and halving.decide("c", 4, 0.1) is None  # rung 3, reached late
    assert halving.recorded == {"1": {"a": 0.2, "b": 0.1, "c": 0.25, "d": 0.21}, "3": {"a": 0.0, "c": 0.1}}


def test_a_trial_that_was_lost_gets_the_same_answer_after_a_restart():
    halving = Halving(2, [1, 2])
    halving.decide("a", 1, 0.5)
    reason = halving.decide("b", 1, 0.4)
    again = Halving(2, [1, 2], **json.loads(json.dumps(halving.state())))
    assert again.decide("a", 1, 0.1) is None and again.decide("b", 1, 0.9) == reason
    assert again.decide("b", 0, None) is None, "it resumed from a checkpoint before its end"
    assert again.decide("b", 1, None) == reason and again.decide("c", 0, None) is None
    assert again.recorded["1"] == {"a": 0.5, "b": 0.4}
    assert again.decide("c", 1, 0.44) and again.decide("d", 1, 0.45) is None  # medians 0.45 and 0.44


@pytest.mark.ray
@pytest.mark.slow
def test_a_judge_that_is_lost_goes_on_from_the_directory_of_the_search(ray_session, tmp_path):
    import ray

    from yolov7_ray.tune.judge import EarlyStop, Judge, read_state

    judge = Judge.remote(str(tmp_path), 2, [1])
    assert EarlyStop(judge, "a")(1, 0.5) is None
    reason = EarlyStop(judge, "b")(1, 0.4)
    ray.kill(judge, no_restart=False)
    assert EarlyStop(judge, "b")(1, None) == reason and "below 0.5" in reason
    assert EarlyStop(judge, "c")(1, 0.45) is None  # the median of 0.4 and 0.5
    assert read_state(str(tmp_path)) == storage.read_json(str(tmp_path / "rungs.json")) == {
        "recorded": {"1": {"a": 0.5, "b": 0.4, "c": 0.45}}, "stopped": {"b": {"epoch": 1, "reason": reason}}}
    ray.kill(judge)
