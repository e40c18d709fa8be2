"""Routes of SageMaker, Vertex AI and KServe v1, HEAD, images without a type, metrics and log, over real HTTP."""

import base64
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from local_endpoint import LocalModel, served
from prometheus_client.parser import text_string_to_metric_families
from serving import ask, picture

from yolov7_ray.registry.validation import NUM_SCORES, Validation
from yolov7_ray.serve.access.spec import Token
from yolov7_ray.serve.access.tokens import Tokens
from yolov7_ray.serve.capture import recorder
from yolov7_ray.serve.capture.spec import Capture
from yolov7_ray.serve.limits import RequestError
from yolov7_ray.serve.monitoring import drift


@pytest.fixture(scope="module")
def url():
    with served() as running:
        yield running.url


def instances(*given: object, **more: object) -> bytes:
    return json.dumps({"instances": given} | more).encode()


B64 = base64.b64encode(picture()).decode()


def post(url: str, body: bytes, content_type: str = "application/json", **headers: str):
    return ask(url, body, content_type=content_type, **headers)


# --- hosted routes ---------------------------------------------------------------------------------------


def test_every_route_answers_as_our_own(url):
    expected = post(f"{url}/v1/detect", picture(), "image/jpeg").json | {"inference_ms": 1.0}
    assert len(expected["detections"]) == 4
    for path in ("/v1/models/shapes:predict", "/invocations"):
        for instance in ({"b64": B64}, {"image": {"b64": B64}}, {"image_bytes": {"b64": B64}}, {"image": B64}, B64):
            assert post(url + path, instances(instance)).json == {"predictions": [expected]}
    assert post(f"{url}/invocations", picture(), "image/jpeg").json == expected
    assert post(f"{url}/invocations", picture(), "application/octet-stream").json == expected
    assert post(f"{url}/v1/detect", picture(), "application/octet-stream").json == expected


def test_several_instances_and_parameters(url):
    answer = post(f"{url}/v1/models/shapes:predict", instances(B64, {"b64": B64}, parameters={"max_detections": 2}))
    assert [len(found["detections"]) for found in answer.json["predictions"]] == [2, 2]
    none = post(f"{url}/v1/models/shapes:predict", instances(B64, parameters={"confidence": 0.9, "unknown": 1}))
    assert none.json["predictions"][0]["detections"] == []


@pytest.mark.parametrize("body, where, problem", [
    (b"{}", "body", "is no JSON object with `instances`"),
    (b"[]", "body", "is no JSON object with `instances`"),
    (b"\xff", "body", "is no JSON object with `instances`"),
    (b"[" * 100_000, "body", "is no JSON object with `instances`"),
    (instances(), "instances", "is empty"),
    (b'{"instances": 3}', "instances", "is no list of a suitable length"),
    (instances(*["AA=="] * 65), "instances", "is no list of a suitable length"),
    (instances(B64, 5), "instances.1", "holds no base64 text"),
    (instances({"c": B64}), "instances.0", "holds no base64 text"),
    (instances("é"), "instances.0", "is no base64 ("),
    (instances("AA=="), "image", "cannot be decoded"),
    (instances(B64, parameters={"confidence": "1"}), "parameters.confidence", "1 does not fit"),
    (instances(B64, parameters={"iou": 2}), "parameters.iou", "2 does not fit"),
    (instances(B64, parameters={"iou": True}), "parameters.iou", "True does not fit"),
    (instances(B64, parameters={"max_detections": 0}), "parameters.max_detections", "0 does not fit"),
    (instances(B64, parameters={"max_detections": 1e9}), "parameters.max_detections", "1000000000.0 does not fit"),
])
def test_what_is_malformed(url, body, where, problem):
    answer = post(f"{url}/v1/models/shapes:predict", body)
    error = answer.json["error"]
    assert (answer.status, error["where"]) == (400, where) and error["problem"].startswith(problem), error


def test_models_by_name(url):
    assert ask(f"{url}/v1/models/shapes").json == {"name": "shapes", "ready": True}
    assert ask(f"{url}/v1/models/no").status == post(f"{url}/v1/models/no:predict", instances(B64)).status == 404
    answer = post(f"{url}/invocations", picture(), "image/jpeg", X_Amzn_SageMaker_Target_Model="no")
    assert answer.status == 404 and "served are shapes" in answer.json["error"]["remedy"]
    assert ask(f"{url}/ping").json == {"ready": True}


def test_a_token_guards_what_detects_and_no_health():
    with served(tokens=Tokens({"a": Token(sha256="0" * 64)})) as guarded:
        assert post(f"{guarded.url}/invocations", picture(), "image/jpeg").status == 401
        assert post(f"{guarded.url}/v1/models/shapes:predict", instances(B64)).status == 401
        assert ask(f"{guarded.url}/ping").status == 200


def test_vertex_ai_names_its_routes(monkeypatch):
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/alive")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/guess")
    with served() as running:
        assert ask(f"{running.url}/alive").json == {"ready": True}
        assert len(post(f"{running.url}/guess", instances(B64)).json["predictions"][0]["detections"]) == 4


# --- HEAD ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/v1/models", "/openapi.json"])
def test_head_is_get_without_a_body(url, path):
    get, head = ask(url + path), ask(url + path, method="HEAD")
    assert (head.status, head.body) == (200, b"") and head.headers["content-length"] == get.headers["content-length"]


# --- metrics ---------------------------------------------------------------------------------------------


def samples(url: str) -> dict[str, float]:
    """name{labels} -> value."""
    text = ask(f"{url}/metrics").body.decode()
    return {sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def labels(**given: str) -> str:
    return json.dumps({"gateway": "0"} | given, sort_keys=True)


def test_requests_and_detections_are_counted():
    model = labels(model="shapes", version="1")
    with served() as running:
        for _ in range(3):
            post(f"{running.url}/v1/detect", picture(), "image/jpeg")
        post(f"{running.url}/v1/detect?confidence=0.9", picture(), "image/jpeg")
        post(f"{running.url}/v1/detect", b"x", "image/jpeg")
        post(f"{running.url}/v1/models/shapes:predict", instances(B64, B64))
        for number in range(5):
            ask(f"{running.url}/no/such/path/{number}")
        found = samples(running.url)
    detect = {"method": "POST", "route": "/v1/detect"}
    assert found["yolov7_requests_total" + labels(**detect, status="200")] == 4
    assert found["yolov7_requests_total" + labels(**detect, status="400")] == 1
    assert found["yolov7_requests_total" + labels(method="GET", route="other", status="404")] == 5
    assert found["yolov7_request_seconds_count" + labels(route="/v1/detect")] == 5
    assert found["yolov7_objects_per_image_count" + model] == 6 and found["yolov7_objects_per_image_sum" + model] == 20
    assert found["yolov7_detections_total" + labels(model="shapes", version="1", class_name="dog")] == 20
    assert found["yolov7_detection_score_bucket" + labels(model="shapes", version="1", le="0.8")] == 0
    assert found["yolov7_detection_score_bucket" + labels(model="shapes", version="1", le="0.9")] == 20
    assert found["yolov7_stage_seconds_count" + labels(model="shapes", version="1", stage="model")] == 6
    assert found["yolov7_stage_seconds_sum" + labels(model="shapes", version="1", stage="model")] == pytest.approx(0.006)
    assert found["yolov7_batch_size_sum" + model] == 6
    assert found["yolov7_model_info" + labels(model="shapes", version="1", engine="")] == 1
    assert found["yolov7_requests_in_flight" + labels()] == 1  # the scrape itself


def test_refusals_of_a_full_model_are_counted(monkeypatch):
    def refuse(self):
        raise RequestError(503, "model 'shapes'", "has too many requests waiting", retry_after_s=1)

    monkeypatch.setattr(LocalModel, "check_room", refuse)
    with served() as running:
        assert post(f"{running.url}/invocations", picture(), "image/jpeg").status == 503
        found = samples(running.url)
    assert found["yolov7_requests_total" + labels(method="POST", route="/invocations", status="503")] == 1
    assert not re.search("yolov7_objects_per_image_count.*shapes", json.dumps(found))


class AtOnce(threading.Thread):
    """A thread that has ended once it is started."""

    def start(self) -> None:
        super().start()
        self.join()


def test_the_dashboard_asks_for_what_there_is(tmp_path, monkeypatch):
    """Metrics and labels of every query of the dashboard are those of an endpoint that has answered."""
    monkeypatch.setattr(drift, "MIN_IMAGES", 1)
    monkeypatch.setattr(drift._Window, "load", lambda window: setattr(
        window, "validation", Validation(1, 0, np.ones((2, NUM_SCORES), int))))
    monkeypatch.setattr(drift, "threading", SimpleNamespace(Lock=threading.Lock, Thread=AtOnce))
    monkeypatch.setattr(recorder, "MAX_IMAGES", 0)
    with served(capture=Capture(uri=str(tmp_path), share=1)) as running:
        post(f"{running.url}/v1/detect", picture(), "image/jpeg")
        text = ask(f"{running.url}/metrics").body.decode()
    known = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads((Path(__file__).parents[3] / "cluster/grafana/endpoint.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for query in queries:
        names = set(re.findall(r"yolov7_\w+", query))
        assert names and names <= known.keys()
        used = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
        used |= {label for group in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)=~?\"", group)}
        assert used <= set.union(*(known[name] for name in names)), query
    assert len(queries) == 16


# --- ids and log -----------------------------------------------------------------------------------------

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_every_answer_has_the_requests_id(url):
    for given, kept in (("abc-1", True), ("a b", False), ("x" * 129, False), ("", False)):
        answer = ask(f"{url}/v1/nothing", X_Request_ID=given)
        found = answer.headers["x-request-id"]
        assert (found == given) == kept and answer.json["error"]["request_id"] == found
        assert kept or re.fullmatch("[0-9a-f]{32}", found)
    assert ask(f"{url}/healthz").headers["x-request-id"] != ask(f"{url}/healthz").headers["x-request-id"]


def test_a_trace_is_passed_through(url):
    assert ask(f"{url}/healthz", traceparent=TRACE).headers["traceparent"] == TRACE
    assert "traceparent" not in ask(f"{url}/healthz", traceparent="00-x").headers


@pytest.mark.parametrize("access_log, logged", [
    ("off", []), ("errors", [404, 400]), ("all", [200, 404, 400, 200])])
def test_the_access_log(capfd, access_log, logged):
    with served(access_log=access_log) as running:
        ask(f"{running.url}/healthz?secret=1", authorization="Bearer secret", X_Request_ID="first")
        ask(f"{running.url}/nothing", traceparent=TRACE)
        post(f"{running.url}/v1/detect", b"x", "image/jpeg")
        answer = post(f"{running.url}/v1/detect", picture(), "image/jpeg")
    output = capfd.readouterr().out
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines] == logged and "secret" not in output
    assert all(line["client"] == "127.0.0.1" and line["ms"] >= 0 for line in lines)
    if access_log == "all":
        assert [line["path"] for line in lines] == ["/healthz", "/nothing", "/v1/detect", "/v1/detect"]
        assert lines[0]["request_id"] == "first" and lines[1]["traceparent"] == TRACE
        assert lines[3]["bytes"] == len(answer.body)


def test_a_share_of_the_good_requests_is_logged(capfd, monkeypatch):
    from yolov7_ray.serve.access import log

    numbers = iter([5, 0, 99])
    monkeypatch.setattr(log.random, "randrange", lambda count: next(numbers))
    with served(access_log="sampled") as running:
        for number in range(3):
            ask(f"{running.url}/healthz", X_Request_ID=f"n{number}")
        ask(f"{running.url}/nothing", X_Request_ID="bad")
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["request_id"] for line in lines] == ["n1", "bad"]
