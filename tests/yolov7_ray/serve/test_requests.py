"""The routes over real HTTP without Ray: what a hostile or mistaken request costs, and what it is answered."""

import contextlib
import json
import selectors
import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from local_endpoint import LIMITS, Endpoint, LocalModel, served
from serving import ask, expected_boxes, picture

from yolov7_ray.serve import uploads
from yolov7_ray.serve.limits import whole_number

MAX_LOOP_CPU_S = 1.0
"""What the event loop's thread may work on a whole attack; the attacks that this bounds took it 10 to 40 s."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with served() as running:
        yield running


def infer(endpoint: Endpoint, body: bytes | dict, **headers: str):
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    return ask(f"{endpoint.url}/v2/models/shapes/infer", body, content_type="application/json", **headers)


def pixels_request(values: np.ndarray, datatype: str, **more) -> dict:
    tensor = {"name": "image", "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist()}
    return {"inputs": [tensor]} | more


GREY = np.full((4, 6, 3), 128, np.uint8)


# --- one request costs what one answer costs -------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5_000, 20_000])
def test_repeated_outputs_are_refused_before_anything_is_computed(endpoint, count):
    infer(endpoint, pixels_request(GREY, "UINT8"))
    before = endpoint.loop_cpu_s()
    answer = infer(endpoint, pixels_request(GREY, "UINT8", outputs=[{"name": "boxes"}] * count))
    assert answer.status == 400 and len(answer.body) < 300
    assert endpoint.loop_cpu_s() - before < MAX_LOOP_CPU_S
    if count <= 3:
        assert answer.json == {"error": "outputs: 'boxes' is requested twice; request each output once"}


HEAVY = {
    "unknown inputs": b'{"inputs": [' + b"{}," * 100_000 + b"{}]}",
    "many values": b'{"inputs": [{"name": "image", "shape": [1, 1, 3], "data": [' + b"1," * 2_000_000 + b"1]}]}",
    "empty lists": b'{"inputs": [{"name": "image", "shape": [1, 1, 3], "datatype": "UINT8", "data": ['
                   + b"[]," * 1_000_000 + b"[]]}]}",
    "words": b'{"inputs": [{"name": "image", "shape": [1, 1, 3], "datatype": "UINT8", "data": ['
             + b'"a",' * 400_000 + b'"' + b"a" * 5_000 + b'"]}]}',
    "long shape": b'{"inputs": [{"name": "image", "shape": [' + b"1," * 1_000_000 + b"1]}]}",
}


@pytest.mark.parametrize("attack", HEAVY)
def test_heavy_bodies_are_refused_off_the_event_loop(endpoint, attack):
    before = endpoint.loop_cpu_s()
    answer = infer(endpoint, HEAVY[attack])
    assert answer.status in (400, 413) and len(answer.body) < 500, answer.body[:200]
    assert endpoint.loop_cpu_s() - before < MAX_LOOP_CPU_S


def test_every_output_once_is_answered(endpoint):
    answer = infer(endpoint, pixels_request(GREY, "UINT8", outputs=[{"name": name} for name in
                                                                    ("labels", "scores", "boxes")])).json
    assert [output["name"] for output in answer["outputs"]] == ["labels", "scores", "boxes"]
    assert [output["shape"] for output in answer["outputs"]] == [[4], [4], [4, 4]]


# --- pixels ----------------------------------------------------------------------------------------------


def test_fp32_pixels_beyond_one_are_refused(endpoint):
    answer = infer(endpoint, pixels_request(GREY.astype(np.float32), "FP32"))
    assert answer.status == 400 and answer.json == {"error": (
        "image: FP32 values reach from 128 to 128; divide pixels of 0 to 255 by 255: FP32 is RGB in [0, 1]; or send "
        "them as UINT8")}
    assert infer(endpoint, pixels_request(np.full((4, 6, 3), -0.5), "FP32")).status == 400
    for scale in (1 / 255, (1 + 5e-4) / 128):  # rounding on the client's side is no mistake
        answer = infer(endpoint, pixels_request(GREY.astype(np.float32) * np.float32(scale), "FP32")).json
        boxes = np.array(answer["outputs"][0]["data"]).reshape(-1, 4)
        np.testing.assert_allclose(boxes[np.lexsort(boxes.T)], expected_boxes(4, 6), atol=0.1)


def test_uint8_pixels_between_whole_numbers_are_refused(endpoint):
    answer = infer(endpoint, pixels_request(GREY / 255, "UINT8"))
    assert answer.status == 400 and "values are not all whole numbers from 0 to 255" in answer.json["error"]


def test_metadata_states_type_layout_and_range(endpoint):
    inputs = ask(f"{endpoint.url}/v2/models/shapes").json["inputs"]
    assert inputs == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3], "parameters": {
        "datatypes": ["UINT8", "FP16", "FP32", "BYTES"], "layout": "HWC or CHW", "color": "RGB",
        "range": {"UINT8": [0, 255], "FP16": [0, 1], "FP32": [0, 1]}}}]


# --- headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["²", "٣".encode().decode("latin-1"), "9" * 5_000, "-1", "1.5", "", "0x10"])
def test_malformed_length_of_the_json(endpoint, length):
    body = json.dumps(pixels_request(GREY, "UINT8")).encode()
    answer = infer(endpoint, body, Inference_Header_Content_Length=length)
    assert answer.status == 400 and answer.json["error"].startswith("Inference-Header-Content-Length: "), answer.body
    assert len(answer.body) < 300


@pytest.mark.parametrize("text, number", [("12", 12), ("0" * 9_000 + "7", 7), ("101", 101), ("9" * 9_000, 101),
                                          ("²", None), ("٣", None), ("", None), ("-1", None)])
def test_whole_number(text, number):
    found = whole_number(text, 100)
    assert found == number or (number == 101 and found > 100)


# --- slow uploads ----------------------------------------------------------------------------------------


def begin_upload(endpoint: Endpoint) -> socket.socket:
    """A connection whose body has begun, and goes no further."""
    connection = socket.create_connection(("127.0.0.1", endpoint.port), timeout=60)
    connection.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
                       b"Content-Length: 1000\r\n\r\n\xff")
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    """Status and JSON of the answer that ends a connection."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
        if b"\r\n\r\n" in data and data.endswith(b"}"):
            break
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_full_model_refuses_before_the_body_is_read(monkeypatch):
    monkeypatch.setattr(LocalModel, "full", True)
    with served() as endpoint, begin_upload(endpoint) as connection:
        status, body = answer_of(connection)
        assert status == 503 and body["error"]["problem"] == "has too many requests waiting"


def test_body_has_a_deadline(monkeypatch):
    monkeypatch.setattr(uploads, "GRACE_S", 0.3)
    with served() as endpoint, begin_upload(endpoint) as connection:
        status, body = answer_of(connection)
        assert status == 408 and body["error"] | {"request_id": ""} == {
            "where": "body", "problem": "only 1 bytes arrived in 0 s", "remedy": "send at least 50 kB a second",
            "request_id": ""}


@pytest.mark.parametrize("limits, refused", [
    ({"max_slow_uploads_per_client": 3}, 429), ({"max_slow_uploads": 3}, 503)])
def test_slow_uploads_are_few_and_hinder_no_others(monkeypatch, limits, refused):
    monkeypatch.setattr(uploads, "SLOW_S", 0.1)
    monkeypatch.setattr(uploads, "GRACE_S", 300.0)
    with served(replace(LIMITS, **limits)) as endpoint, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(begin_upload(endpoint)) for _ in range(50)]
        waiting = selectors.DefaultSelector()
        for connection in slow:
            waiting.register(connection, selectors.EVENT_READ)
        for _ in range(47):
            connection = waiting.select(60)[0][0].fileobj
            waiting.unregister(connection)
            status, body = answer_of(connection)
            assert status == refused and body["error"]["where"] == "body"
        assert len(waiting.get_map()) == 3, "as many as may be slow still have time"
        assert ask(f"{endpoint.url}/healthz").status == 200
        assert ask(f"{endpoint.url}/v1/detect", picture()).status == 200, "an upload that comes at once needs no place"
        for key in list(waiting.get_map().values()):
            key.fileobj.sendall(b"\xff" * 999)
            assert answer_of(key.fileobj)[0] == 400, "no image, but whole"
        connection = stack.enter_context(begin_upload(endpoint))
        waiting.register(connection, selectors.EVENT_READ)
        connection.sendall(b"\xff" * 999)
        assert answer_of(connection)[0] == 400, "the places are free again"
