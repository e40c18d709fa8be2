"""Roll-outs without Ray: who answers, what is counted, what is kept, and what is asked for."""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from yolov7_ray.detect.options import Options
from yolov7_ray.errors import AlreadyExists, Corrupt, JobError
from yolov7_ray import storage
from yolov7_ray.serve.limits import RequestError
from yolov7_ray.serve.rollout import canary
from yolov7_ray.serve.rollout.canary import Canary, Reports
from yolov7_ray.serve.rollout.decision import Thresholds
from yolov7_ray.serve.rollout.record import Records, RollOut
from yolov7_ray.serve.rollout.request import request
from yolov7_ray.serve.rollout.split import Remembered, Split
from yolov7_ray.serve.served import Detected, ServedInfo

SPLIT = Split("a", 0, 0.25, False, None, "candidates", "shapes:2")


# --- who answers ----------------------------------------------------------------------------------------


def test_a_split_is_decided_by_the_key_and_grows():
    keys = [str(number) for number in range(20_000)]
    taken = {weight: {key for key in keys if replace(SPLIT, weight=weight).takes(key)} for weight in (0.0, 0.05, 0.25, 1)}
    assert not taken[0.0] and len(taken[1]) == 20_000
    assert abs(len(taken[0.05]) - 1000) < 4 * 31 and abs(len(taken[0.25]) - 5000) < 4 * 62, "four standard deviations"
    assert taken[0.05] < taken[0.25], "who is in stays in"
    assert {key for key in keys if replace(SPLIT, roll_out="b").takes(key)} != taken[0.25], "each roll-out draws anew"


@pytest.mark.parametrize("sticky, headers, key", [
    (None, [(b"x-user", b"anna")], "id"), ("X-User", [(b"x-user", b"anna")], "anna"), ("X-User", [], "id")])
def test_the_key_is_the_requests_id_or_a_header(sticky, headers, key):
    seen = []

    async def app(scope, receive, send) -> None:
        for number in range(40):
            seen.append(replace(SPLIT, sticky=sticky, roll_out=str(number)).takes_current())

    asyncio.run(Remembered(app)({"type": "http", "request_id": "id", "headers": headers}, None, None))
    assert seen == [replace(SPLIT, roll_out=str(number)).takes(key) for number in range(40)]


class Model:
    """A model that answers with one dog, or fails."""

    def __init__(self, version: str, failure: Exception | None = None, full: bool = False) -> None:
        self.info = ServedInfo("shapes", f"shapes:{version}", version, classes=("cat", "dog"))
        self.failure, self.full, self.asked, self.wait = failure, full, 0, None

    def check_room(self) -> None:
        if self.full:
            raise RequestError(503, "model", "is full")

    async def detect(self, image, options, draw=False) -> Detected:
        self.asked += 1
        if self.wait is not None:
            await self.wait.wait()
        if self.failure is not None:
            raise self.failure
        return Detected(self.info, np.array([[0, 0, 1, 1, 0.9, 1]], np.float32), (4, 4), 1, 1.0)

    async def is_ready(self) -> bool:
        return True

    async def newer(self) -> None:
        return None


def run(split: Split, *models: Model, requests: int = 1) -> tuple[Canary, Counter]:
    """Versions that answered, or errors."""
    stable, candidate = models

    async def ask() -> tuple[Canary, Counter]:
        found, versions = Canary(stable, lambda split: candidate), Counter()
        await found.follow(split)
        for _ in range(requests):
            try:
                versions[(await found.detect(b"", Options())).info.version] += 1
            except RequestError as error:
                versions[error.status] += 1
        await asyncio.gather(*found._copies, return_exceptions=True)
        return found, versions

    return asyncio.run(ask())


ALL = replace(SPLIT, weight=1.0)


def test_a_request_without_an_id_is_drawn_at_random():
    half = replace(SPLIT, weight=0.5, sticky=None)
    assert 20 < sum(half.takes_current() for _ in range(100)) < 80, "as over gRPC, where nothing is remembered"



def test_without_a_roll_out_nothing_is_counted():
    found, versions = run(None, Model("1"), Model("2"))
    assert versions == {"1": 1} and found.comparison is None


@pytest.mark.parametrize("weight, answered", [(0.0, {"1": 5}), (1.0, {"2": 5})])
def test_each_version_is_counted(weight, answered):
    found, versions = run(replace(SPLIT, weight=weight), Model("1"), Model("2"), requests=5)
    windows = {"1": found.comparison.stable, "2": found.comparison.candidate}
    assert versions == answered
    for version, window in windows.items():
        count = answered.get(version, 0)
        assert (window.requests, window.errors, window.classes["dog"]) == (count, 0, count)


@pytest.mark.parametrize("failure", [ValueError("broken"), RequestError(503, "model", "is down")])
def test_what_a_candidate_fails_the_stable_version_answers(failure):
    found, versions = run(ALL, Model("1"), Model("2", failure), requests=3)
    assert versions == {"1": 3}
    assert (found.comparison.candidate.requests, found.comparison.candidate.errors) == (3, 3)
    assert (found.comparison.stable.requests, found.comparison.stable.errors) == (3, 0)


def test_a_wrong_request_is_nobodys_failure():
    wrong = RequestError(400, "image", "cannot be decoded")
    found, versions = run(ALL, Model("1"), Model("2", wrong))
    assert versions == {400: 1} and found.comparison.candidate.requests == found.comparison.stable.requests == 0


def test_a_full_candidate_leaves_its_requests_to_the_stable_version():
    found, versions = run(ALL, Model("1"), Model("2", full=True))
    assert versions == {"1": 1} and found.comparison.candidate.requests == 0


def test_a_candidate_that_hangs_has_failed(monkeypatch):
    monkeypatch.setattr(canary, "CANDIDATE_TIMEOUT_S", 0.01)
    hanging = Model("2")

    async def ask() -> tuple[str, Canary]:
        hanging.wait = asyncio.Event()
        found = Canary(Model("1"), lambda split: hanging)
        await found.follow(ALL)
        return (await found.detect(b"", Options())).info.version, found

    version, found = asyncio.run(ask())
    assert version == "1" and (found.comparison.candidate.requests, found.comparison.candidate.errors) == (1, 1)


def test_a_shadow_is_counted_and_not_returned():
    for failure, errors in ((None, 0), (ValueError("broken"), 3)):
        found, versions = run(replace(ALL, shadow=True), Model("1"), Model("2", failure), requests=3)
        assert versions == {"1": 3}
        assert (found.comparison.candidate.requests, found.comparison.candidate.errors) == (3, errors)
        assert (found.comparison.candidate.pairs, found.comparison.candidate.agreed) == (3 - errors, 3 - errors)


def test_a_shadow_never_keeps_an_answer_waiting():
    shadow = Model("2")

    async def ask() -> Canary:
        shadow.wait = asyncio.Event()
        found = Canary(Model("1"), lambda split: shadow)
        await found.follow(replace(ALL, shadow=True))
        for _ in range(canary.MAX_COPIES + 5):
            assert (await asyncio.wait_for(found.detect(b"", Options()), 10)).info.version == "1"
        await asyncio.sleep(0)
        assert shadow.asked == canary.MAX_COPIES and found.comparison.left_out == 5
        shadow.wait.set()
        await asyncio.gather(*found._copies)
        return found

    assert asyncio.run(ask()).comparison.candidate.requests == canary.MAX_COPIES


def test_counts_begin_anew_with_each_step_and_add_up_over_gateways():
    first, _ = run(ALL, Model("1"), Model("2"), requests=3)
    second, _ = run(ALL, Model("1"), Model("2"), requests=4)
    other, _ = run(replace(ALL, step=1), Model("1"), Model("2"), requests=9)
    reports = Reports()
    for gateway, found in (("a", first), ("b", second), ("b", second), ("c", other)):
        reports.add(gateway, {"shapes": found.comparison})
    assert reports.total("shapes", ALL).candidate.requests == 7
    assert reports.total("shapes", replace(ALL, step=2)).candidate.requests == 0
    before = first.comparison
    asyncio.run(first.follow(ALL))
    assert first.comparison is before
    asyncio.run(first.follow(replace(ALL, step=1)))
    assert first.comparison.candidate.requests == 0


# --- what is kept ---------------------------------------------------------------------------------------


STATE = RollOut("m", "shapes:1", "shapes:1", "shapes:2", (0.05, 0.25, 1.0), 60)


def test_steps_of_a_roll_out():
    begun = STATE.begin(10.0)
    assert (begun.weight, begun.step_began, begun.is_active, STATE.step_began) == (0.05, 10, True, None)
    second = begun.advance("good", 20.0)
    assert (second.weight, second.step, second.step_began, second.stable) == (0.25, 1, 20, "shapes:1")
    done = second.advance("good", 30.0)
    assert (done.status, done.stable, done.previous, done.weight) == ("promoted", "shapes:2", "shapes:1", 0)
    assert [event.partition("UTC  ")[2] for event in done.events] == [
        "candidate shapes:2 is up: 0.05 of the requests", "0.25 of the requests: good", "shapes:2 is promoted: good"]
    undone = done.roll_back("asked for")
    assert (undone.status, undone.stable, undone.previous, undone.reason) == ("rolled back", "shapes:1", None, "asked for")
    stopped = second.roll_back("errors")
    assert (stopped.status, stopped.stable, stopped.is_active) == ("rolled back", "shapes:1", False)


def test_a_roll_out_may_end_before_all_and_a_shadow_ends_without_promotion():
    assert STATE.has_next and not replace(STATE, step=2).has_next and not replace(STATE, weights=(0.1,)).has_next
    shadow = replace(STATE, shadow=True, weights=(1.0,))
    assert shadow.has_next and shadow.advance("good", 1.0).status == "passed"
    assert shadow.advance("good", 1.0).stable == "shapes:1"


def test_records_are_replaced_by_whoever_read_the_last(place):
    records = Records(place, "default")
    assert records.read("m") == (None, None) and records.stable_ref("m", "shapes:1") == "shapes:1"
    etag = records.swap(STATE, None)
    assert records.read("m") == (STATE, etag)
    with pytest.raises(AlreadyExists):
        records.swap(STATE, None)
    promoted = replace(STATE, step=1).advance("good", 1.0)
    records.swap(promoted, etag)
    with pytest.raises(AlreadyExists):
        records.swap(STATE, etag)
    assert records.read("m")[0] == promoted
    assert records.stable_ref("m", "shapes:1") == "shapes:2"
    assert records.stable_ref("m", "shapes:7") == "shapes:7", "another one was deployed since"
    assert Records(place, "staging").read("m") == (None, None)


def test_a_damaged_record_is_told(tmp_path):
    storage.write_bytes(str(tmp_path / "_endpoints/default/m.json"), b"{}")
    with pytest.raises(Corrupt, match="is no roll-out"):
        Records(str(tmp_path), "default").read("m")


# --- what is asked for ------------------------------------------------------------------------------------


def test_requests():
    assert request("shapes@candidate").weights == (0.05, 0.25, 1.0)
    found = request("m=shapes:2", weight="5%", steps="5,25,100", hold="10m", sticky="X-User", limits=[
        "max_errors=0.5%", "max_latency=2", "min_requests=50"])
    assert (found.model, found.ref, found.weights, found.hold_s, found.sticky) == (
        "m", "shapes:2", (0.05, 0.25, 1.0), 600, "X-User")
    assert found.thresholds == Thresholds(max_errors=0.005, max_latency=2, min_requests=50)
    assert request("s", weight="10", steps="5,25,100").weights == (0.1, 0.25, 1.0)
    assert request("s", shadow=True).weights == (1.0,) and request("s", shadow=True, weight="20%").weights == (0.2,)
    assert (request("s", hold="2h").hold_s, request("s", hold="1.5").hold_s) == (7200, 1.5)


@pytest.mark.parametrize("target, options, problem", [
    ("runs/x", {}, "is no model to roll out"), ("M=shapes", {}, "is no model to roll out"),
    ("s", {"steps": "25,5"}, "do not rise"), ("s", {"steps": "5,,"}, "is no percentage"),
    ("s", {"weight": "0"}, "is no percentage"), ("s", {"weight": "101%"}, "is no percentage"),
    ("s", {"hold": "soon"}, "is no time"), ("s", {"shadow": True, "steps": "5"}, "do not fit a shadow"),
    ("s", {"sticky": "a b"}, "is no name of a header"), ("s", {"limits": ["max=1"]}, "is no threshold"),
    ("s", {"limits": ["min_requests=5%"]}, "is no threshold")])
def test_requests_that_cannot_work(target, options, problem):
    with pytest.raises(JobError, match=problem):
        request(target, **options)
