"""Roll-outs on a real Ray Serve, under load: promoted, rolled back, shadowed; and what dies meanwhile."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from serving import ask, deployed, endpoint_spec, picture, register_blind_model
from test_lost_gateways import pids

from yolov7_ray import storage
from yolov7_ray.cluster.jobs_api import CANDIDATE, CONTROLLER, ENDPOINT
from yolov7_ray.errors import JobError
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.version import MODEL_FILE
from yolov7_ray.serve.rollout.command import answer, described
from yolov7_ray.serve.rollout.record import RollOut
from yolov7_ray.serve.rollout.request import request

pytestmark = [pytest.mark.ray, pytest.mark.long]
SETTINGS = {"models": {"shapes": {"model": "shapes:1"}}, "cpus_per_replica": 0.2, "replicas": 2}
DEADLINE_S = 300


class Clients:
    """Steady clients that note who answered."""

    def __init__(self, url: str) -> None:
        self.url, self.answers, self._stop = url, Counter(), threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = ask(f"{self.url}/v1/detect", picture())
            self.answers[answer.json["version"] if answer.status == 200 else answer.body] += 1

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> str:
    """Of shapes: 1, 2 and 5 alike, 3 of another class, 4 damaged."""
    directory = tmp_path_factory.mktemp("registry")
    for label in (1, 1, 0, 1, 1):
        register_blind_model(str(directory / "registry"), directory, label=label)
    found = Registry(str(directory / "registry"))
    storage.write_bytes(found.file_uri(found.resolve("shapes:4"), MODEL_FILE), b"damaged")
    return found.uri


@pytest.fixture(scope="module")
def url(ray_session, registry) -> Iterator[str]:
    with deployed(registry, **SETTINGS) as url:
        yield url


@pytest.fixture
def clients(url) -> Iterator[Clients]:
    """Whatever happens, every request is answered."""
    running = Clients(url)
    try:
        yield running
    finally:
        running.end()
    assert set(running.answers) <= {"1", "2", "3", "5"}


def controller(method: str, *arguments):
    from ray import serve

    return getattr(serve.get_deployment_handle(CONTROLLER, ENDPOINT), method).remote(*arguments).result(timeout_s=120)


def wait(condition, what: str):
    """The first answer that is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}; {controller('status')}"
        time.sleep(0.2)
    return found


def state() -> RollOut:
    return controller("status")[0]["roll_out"]


def ended() -> RollOut:
    """The roll-out once it has ended and its candidate is gone."""
    from ray import serve

    found = wait(lambda: (now := state()) and not now.is_active and now, "the roll-out ends")
    wait(lambda: f"{CANDIDATE}shapes" not in serve.status().applications, "the candidate is removed")
    return found


def begin(ref: str, **options) -> None:
    words = {"steps": "50,100", "hold": "1s", "limits": ["min_requests=30", "max_latency=100"]} | options
    controller("start", request(ref, **words))


def test_a_shadow_answers_nothing_and_what_is_asked_twice_is_refused(clients):
    begin("shapes:2", steps=None, shadow=True)
    with pytest.raises(Exception, match="is being rolled out to shapes:2"):
        begin("shapes:5")
    found = ended()
    assert (found.status, found.stable) == ("passed", "shapes:1") and set(clients.answers) == {"1"}
    for text, options in (("serves shapes:1 already", {"ref": "shapes:1"}), ("names no model", {"ref": "cars:1"}),
                          ("version 9 of model 'shapes' does not exist", {"ref": "shapes:9"})):
        with pytest.raises(Exception, match=text):
            begin(**options)
    with pytest.raises(JobError, match="has no roll-out to roll back"):
        answer("roll-back", None, None)


def test_a_candidate_that_cannot_be_loaded_is_rolled_back(clients):
    begin("shapes:4")
    found = ended()
    assert (found.status, found.stable) == ("rolled back", "shapes:1") and "cannot be served" in found.reason
    assert "shapes:4" in found.reason or "sha256" in found.reason, "with the cause"
    assert set(clients.answers) == {"1"}


def test_a_candidate_of_other_answers_is_rolled_back_though_controller_and_gateways_die(clients):
    begin("shapes:3", limits=["min_requests=100"], hold="1s")
    wait(lambda: clients.answers["3"] > 3, "the candidate answers")
    for name in (CONTROLLER, "Gateway"):
        for pid in pids(name):
            os.kill(pid, signal.SIGKILL)
    found = ended()
    assert (found.status, found.stable) == ("rolled back", "shapes:1")
    assert found.reason.startswith("the distribution of classes has changed: population stability index")
    assert [event.partition("UTC  ")[2].partition(":")[0] for event in found.events] == [
        "candidate shapes", "shapes"], "it went on; it did not begin anew"


def test_a_candidate_as_good_is_promoted_outlives_a_restart_and_can_be_undone(clients, registry):
    from yolov7_ray.serve.app import serve

    begin("shapes:2", sticky="X-User")
    found = wait(lambda: (now := controller("status")[0])["counts"] and now["counts"].candidate.requests and now, "counts")
    assert "requests  errors  p99 ms   empty" in described(found)
    found = ended()
    assert (found.status, found.stable, found.previous) == ("promoted", "shapes:2", "shapes:1")
    versions = {ask(f"{clients.url}/v1/detect", picture()).json["version"] for _ in range(10)}
    assert versions == {"2"}

    clients.answers.clear()
    serve(endpoint_spec(registry, **SETTINGS), "again")  # every process is another one
    clients.answers.clear()
    wait(lambda: sum(clients.answers.values()) > 30, "answers")
    assert set(clients.answers) == {"2"}
    table = answer("list", None, None).split("\n")
    assert table[0] == "endpoint RUNNING" and table[2].split() == ["shapes", "shapes:2", "HEALTHY", "2", "shapes:2",
                                                                  "promoted"]

    assert answer("roll-back", None, "shapes") == "shapes: shapes:2 is rolled back to shapes:1"
    wait(lambda: ask(f"{clients.url}/v1/detect", picture()).json["version"] == "1", "the version before is back")
    assert answer("status", None, None).startswith("shapes: shapes:1, shapes:2 rolled back\n  asked for\n")
