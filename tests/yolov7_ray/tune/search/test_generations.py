"""Decisions of population-based training: generations, who goes on from whom, and with which values."""

import random

import pytest

from yolov7_ray.tune.distributions import Choice, Integer, LogUniform
from yolov7_ray.tune.search.population import Population, explored, generations
from yolov7_ray.tune.search.records import Step
from yolov7_ray.tune.search.space import Space

AP = {"ap": "max"}


def population(trials: int = 8, objectives=AP, rungs=(2, 4, 6), seed: int = 0, state=None) -> Population:
    return Population(rungs, objectives, trials=trials, seed=seed, state=state)


def filled(found: dict[str, float], epoch: int = 2, **changes) -> Population:
    """All trials have ended the generation at this epoch with these AP."""
    rule = population(len(found), **changes)
    for trial, ap in found.items():
        rule.record(trial, epoch, {"ap": ap}, 1.0)
    return rule


def steps(rule: Population, running: dict[str, int] | None = None) -> list[Step]:
    """All that may be started now."""
    running, found = dict(running or {}), []
    while step := rule.next(running, can_propose=False):
        running[step.trial] = step.to_epoch
        found.append(step)
    return found


def test_generations_are_equally_long_and_the_last_ends_with_the_trial():
    assert generations(3, 9) == [3, 6, 9] and generations(3, 10) == [3, 6, 9, 10] and generations(4, 5) == [4, 5]


def test_all_begin_and_none_goes_on_before_all_have_come_as_far():
    rule, running = population(3), {}
    for trial in ("1", "2", "3"):
        assert rule.next(running, can_propose=True) == Step(None, 2)
        running[trial] = 2
    assert rule.next(running, can_propose=True) is None
    for trial in ("2", "1"):
        rule.record(trial, 2, {"ap": 0.1}, 1.0)
        del running[trial]
        assert rule.next(running, can_propose=True) is None, "a trial is behind"
    rule.record("3", 2, {"ap": 0.1}, 1.0)
    assert steps(rule) == [Step("1", 4), Step("2", 4), Step("3", 4)], "equals learn nothing from each other"


def test_the_lower_quarter_goes_on_from_the_upper_one_and_before_the_others():
    rule = filled({"a": 0.3, "b": 0.8, "c": 0.1, "d": 0.5, "e": 0.7, "f": 0.2, "g": 0.4, "h": 0.6})
    found = steps(rule)
    assert [step.trial for step in found] == ["c", "f", "a", "b", "d", "e", "g", "h"]
    assert all(step.to_epoch == 4 for step in found)
    assert all(step.donor in ("b", "e") for step in found[:2]) and {step.donor for step in found[2:]} == {None}
    donors = {found[0].donor for found in (
        steps(filled({name: ap for name, ap in zip("abcdefgh", range(8))}, seed=seed)) for seed in range(20))}
    assert donors == {"g", "h"}, "any of the upper quarter"


@pytest.mark.parametrize(("number", "replaced"), [(2, 1), (3, 1), (4, 1), (5, 2), (20, 5)])
def test_a_quarter_is_replaced_but_at_least_one(number, replaced):
    found = steps(filled({f"{trial:02d}": trial / 100 for trial in range(number)}))
    assert [step.trial for step in found if step.donor] == [f"{trial:02d}" for trial in range(replaced)]
    assert all(int(step.donor) >= number - replaced for step in found if step.donor)


def test_decisions_depend_neither_on_the_order_of_results_nor_on_what_runs():
    ap = {name: value for name, value in zip("abcdefgh", (0.3, 0.8, 0.1, 0.5, 0.7, 0.2, 0.4, 0.6))}
    expected = {step.trial: step.donor for step in steps(filled(ap))}
    for seed in range(5):
        order = random.Random(seed).sample(sorted(ap), 8)
        assert {step.trial: step.donor for step in steps(filled({name: ap[name] for name in order}))} == expected
    rule, running = filled(ap), {}
    for number in range(8):  # each ends its next generation before the next one starts, or is lost
        step = rule.next(running, can_propose=False)
        assert step.donor == expected.pop(step.trial)
        if number % 3:
            rule.record(step.trial, 4, {"ap": 0.9}, 1.0)
        else:
            running[step.trial] = 4
        rule = population(8, state=rule.state())  # and the search is killed in between


def test_a_trial_without_a_figure_follows_one_with_it_and_a_lost_one_is_followed_by_none():
    rule = filled({"a": None, "b": 0.0, "c": 0.1, "d": 0.2})
    assert steps(rule)[0] == Step("a", 4, "d")
    rule.lost("d")
    assert [(step.trial, step.donor) for step in steps(rule)] == [("a", None), ("b", None), ("c", None)]
    assert not any(step.donor for step in steps(filled(dict.fromkeys("abcd")))), "nothing is known of any"


def test_several_objectives_are_ranked_by_fronts():
    rule = population(4, {"ap": "max", "ap_small": "max"})
    for trial, point in {"a": (0.5, 0.1), "b": (0.1, 0.5), "c": (0.4, 0.05), "d": (0.3, 0.3)}.items():
        rule.record(trial, 2, dict(zip(("ap", "ap_small"), point)), 1.0)
    assert steps(rule)[0] == Step("c", 4, "a"), "the only one that is dominated, by the best of the first objective"
    rule = population(2, {"ap": "max", "ap_small": "max"})
    rule.record("a", 2, {"ap": 0.5, "ap_small": 0.1}, 1.0)
    rule.record("b", 2, {"ap": 0.1, "ap_small": 0.5}, 1.0)
    assert [step.donor for step in steps(rule)] == [None, None], "none of them is better"


def test_a_search_that_is_extended_compares_the_new_trials_among_themselves():
    rule = filled({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.9})
    for epoch in (4, 6):
        for trial in "abcd":
            rule.record(trial, epoch, {"ap": 0.9}, 1.0)
    assert steps(rule) == []
    longer = population(6, state=rule.state())
    assert longer.next({}, can_propose=True) == Step(None, 2)
    for trial, ap in {"e": 0.5, "f": 0.4}.items():
        longer.record(trial, 2, {"ap": ap}, 1.0)
    assert steps(longer) == [Step("f", 4, "e"), Step("e", 4)], "the checkpoints of d after epoch 2 are gone"
    assert longer.reason("f") == "paused after epoch 2: the search ended before its next generation"
    assert longer.reason("a") is None and longer.spent() == 4 * 6 + 2 * 2


def test_values_move_a_little_or_are_drawn_anew():
    space = Space({"rate": LogUniform(loguniform=(1e-3, 1e-1)), "steps": Integer(integer=(1, 9)),
                   "kind": Choice(choice=["a", "b"])})
    start = {"rate": 1e-2, "steps": 5, "kind": "a"}
    found = [explored(space, start, random.Random(seed)) for seed in range(400)]
    assert found[7] == explored(space, start, random.Random(7)) and all(map(space.contains, found))
    assert all(values["rate"] != 1e-2 for values in found)
    near = [values for values in found if 1e-2 / 1.6 < values["rate"] < 1.6e-2]  # two standard deviations
    assert 0.7 < len(near) / len(found) < 0.9, "three of four stay near, of the others a tenth do"
    assert {values["steps"] for values in found} == set(range(1, 10))
    assert sum(values["steps"] in (4, 6) for values in found) > 200, "at least the next one"
    assert min(values["rate"] for values in found) < 2e-3 and max(values["rate"] for values in found) > 5e-2
