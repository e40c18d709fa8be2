"""The endpoint over real HTTP on a real local Ray Serve: right answers, limits, errors, protocols, upgrades."""

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from conftest import coco_source, make_coco
from serving import (
    CLASSES, SIZE_PX, ask, blind_model, deployed, endpoint_spec, expected_boxes, picture, register_blind_model,
    tiny_model,
)

from yolov7.images.sample import decode_image, encode_image
from yolov7_ray.data.ingest.ingest import ingest
from yolov7_ray.errors import JobError, NotFound
from yolov7_ray.predict.images import FolderImages
from yolov7_ray.predict.predictor import Predictor
from yolov7_ray.predict.spec import PredictSpec
from yolov7_ray.registry.model_source import LoadedModel, locate
from yolov7_ray.serve.limits import check_header, Limits, RequestError
from yolov7_ray.serve.probe import ProbeImage
from yolov7_ray.detect.options import Options
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.serve.spec import Probe

LIMITS = Limits(max_bytes=1_000_000, max_pixels=4_000_000)
SCORE = 0.81


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("registry")
    register_blind_model(str(directory / "registry"), directory, "shapes", label=1)
    register_blind_model(str(directory / "registry"), directory, "cars", label=0)
    return str(directory / "registry")


@pytest.fixture(scope="module")
def endpoint(ray_session, registry):
    with deployed(registry, max_batch_size=4, batch_wait_ms=20) as url:
        yield url


def boxes(answer: dict) -> np.ndarray:
    found = np.array([detection["box_xyxy"] for detection in answer["detections"]]).reshape(-1, 4)
    return found[np.lexsort(found.T)]


# --- detection ----------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("size", [(96, 128), (64, 64), (333, 47)])
def test_boxes_are_in_pixels_of_the_sent_image(endpoint, size):
    answer = ask(f"{endpoint}/v1/detect", picture(*size)).json
    assert (answer["height_px"], answer["width_px"]) == size
    assert (answer["model"], answer["version"]) == ("shapes", "1")
    np.testing.assert_allclose(boxes(answer), expected_boxes(*size), atol=0.1 * max(size) / SIZE_PX)
    for detection in answer["detections"]:
        assert detection["label"] == 1 and detection["name"] == "dog" and abs(detection["score"] - SCORE) < 1e-3
    assert answer["inference_ms"] > 0 and answer["batch_size"] >= 1


@pytest.mark.ray
@pytest.mark.parametrize("extension, content_type", [
    (".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp")])
def test_every_format_raw_and_as_form(endpoint, extension, content_type):
    image = picture(extension=extension)
    raw = ask(f"{endpoint}/v1/detect", image, content_type=content_type)
    form = ask(f"{endpoint}/v1/detect", multipart(image), content_type="multipart/form-data; boundary=line")
    for answer in (raw, form):
        assert answer.status == 200, answer.body
        np.testing.assert_allclose(boxes(answer.json), expected_boxes(96, 128), atol=0.3)


def multipart(data: bytes, name: str = "file", filename: str = '; filename="x.jpg"') -> bytes:
    head = f'--line\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
    return head.encode() + data + b"\r\n--line--\r\n"


@pytest.mark.ray
@pytest.mark.parametrize(("file_format", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_every_orientation_is_answered_as_predict_does(endpoint, registry, tmp_path, file_format, options):
    """One frame everywhere: the picture as displayed."""
    stored = Image.open(io.BytesIO(picture(96, 128)))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / f"{orientation}.{file_format.lower()}", file_format, exif=exif, **options)
    spec = PredictSpec(kind="predict", model="shapes", registry=registry, images=str(tmp_path), output="unused",
                       rectangular=False, multi_label=False)
    predictor = Predictor(FolderImages(str(tmp_path)), locate("shapes", registry), spec)
    rows = pa.concat_tables(predictor(pa.table({"index": range(8)}))).to_pylist()
    for orientation, row in enumerate(rows, 1):
        answer = ask(f"{endpoint}/v1/detect", (tmp_path / row["file_name"]).read_bytes(),
                     content_type=f"image/{file_format.lower()}").json
        width, height = (128, 96) if orientation <= 4 else (96, 128)
        assert (answer["width_px"], answer["height_px"]) == (row["width_px"], row["height_px"]) == (width, height)
        np.testing.assert_allclose(boxes(answer), expected_boxes(height, width), atol=0.3)
        assert len(row["boxes_xyxy"]) == len(boxes(answer)) > 0
        np.testing.assert_allclose(row["boxes_xyxy"], boxes(answer), atol=0.01)


@pytest.mark.ray
def test_model_is_chosen_by_name(endpoint):
    answer = ask(f"{endpoint}/v1/detect?model=cars", picture()).json
    assert answer["model"] == "cars" and {d["name"] for d in answer["detections"]} == {"cat"}


@pytest.mark.ray
@pytest.mark.parametrize("query, count", [("confidence=0.8", 4), ("confidence=0.82", 0), ("max_detections=3", 3)])
def test_options(endpoint, query, count):
    answer = ask(f"{endpoint}/v1/detect?{query}", picture())
    assert answer.status == 200 and len(answer.json["detections"]) == count


@pytest.mark.ray
def test_drawn_image(endpoint):
    image = picture()
    answer = ask(f"{endpoint}/v1/detect?format=image", image)
    assert answer.headers["content-type"] == "image/png"
    drawn, sent = decode_image(answer.body), decode_image(image)
    assert drawn.shape == sent.shape
    changed = (drawn != sent).any(axis=-1)
    assert 0.01 < changed.mean() < 0.9, "boxes are drawn, the rest of the image stays"


@pytest.mark.ray
def test_concurrent_requests_share_batches_and_keep_their_own_answers(endpoint):
    sizes = [(64 + 8 * i, 200 - 8 * i) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda size: ask(f"{endpoint}/v1/detect", picture(*size)), sizes))
    for size, answer in zip(sizes, answers):
        assert answer.status == 200, answer.body
        np.testing.assert_allclose(boxes(answer.json), expected_boxes(*size), atol=0.1 * max(size) / SIZE_PX)
    assert 1 < max(answer.json["batch_size"] for answer in answers) <= 4


@pytest.mark.ray
def test_models_and_health(endpoint):
    models = ask(f"{endpoint}/v1/models").json["models"]
    assert [(m["name"], m["version"], m["ref"], m["default"]) for m in models] == [
        ("shapes", "1", "shapes:1", True), ("cars", "1", "cars:1", False)]
    assert models[0]["classes"] == CLASSES and models[0]["image_size_px"] == SIZE_PX
    assert ask(f"{endpoint}/healthz").json["status"] == "live"
    ready = ask(f"{endpoint}/readyz")
    assert ready.status == 200 and ready.json == {"status": "ready", "models": {"shapes": True, "cars": True}}


@pytest.mark.ray
def test_api_description_and_pages_need_no_network(endpoint):
    api = ask(f"{endpoint}/openapi.json").json
    assert {"/v1/detect", "/v1/models", "/healthz", "/readyz", "/v2/models/{name}/infer"} <= set(api["paths"])
    assert set(api["paths"]["/v1/detect"]["post"]["requestBody"]["content"]) == {
        "image/jpeg", "image/png", "image/webp", "application/octet-stream", "multipart/form-data"}
    for path in ("/", "/docs"):
        page = ask(f"{endpoint}{path}")
        assert page.headers["content-type"].startswith("text/html")
        assert not re.findall(rb"""(?:src|href|url|import)\s*[=(]\s*["']?(?:https?:)?//""", page.body)


@pytest.mark.ray
def test_probe_sends_a_held_out_image_and_stores_the_answer(endpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path / "cache"))
    dataset, output = str(tmp_path / "dataset"), tmp_path / "probe"
    source = coco_source(make_coco(tmp_path / "coco", num_images=2, splits=("val",)), splits=("val",))
    ingest(IngestSpec(kind="ingest", source=source, dataset=dataset), "test")
    ProbeImage.of(Probe(dataset=dataset, index=1, output=str(output))).run(endpoint)
    answer = json.loads((output / "detections.json").read_text())
    np.testing.assert_allclose(boxes(answer), expected_boxes(96, 128), atol=0.3)
    assert decode_image((output / "image.jpg").read_bytes()).shape == (96, 128, 3)
    assert decode_image((output / "drawn.png").read_bytes()).shape == (4 * 96, 4 * 128, 3), "enlarged for people"
    said = capsys.readouterr().out
    assert "4 detections, 2 objects in its annotation" in said and said.count("dog") == 4
    with pytest.raises(JobError, match="probe.index: 2 is past the end of split 'val' .*; it has 2 images"):
        ProbeImage.of(Probe(dataset=dataset, index=2, output=str(output)))


# --- errors ---------------------------------------------------------------------------------------------


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of 60 bytes whose header declares 2.5 gigapixels."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b""))


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF")
    return buffer.getvalue()


REFUSED = {
    "empty body": (b"", "image/jpeg", "", 400, "body", "is empty"),
    "wrong content type": (b"hello", "text/plain", "", 415, "content-type", "'text/plain' is not supported"),
    "curl's default type": (b"x", "application/x-www-form-urlencoded", "", 415, "content-type", "is not supported"),
    "undecodable": (b"no image", "image/jpeg", "", 400, "image", "cannot be decoded"),
    "header without pixels": (picture()[:300], "image/jpeg", "", 400, "image", "cannot be decoded"),
    "another format": (gif(), "image/jpeg", "", 400, "image", "cannot be decoded"),
    "image bomb": (bomb(), "image/png", "", 413, "image", "has far too many pixels"),
    "a little too large": (bomb(2001, 2000), "image/png", "", 413, "image", "has 2001 x 2000 pixels"),
    "too many bytes": (b"\xff" * 1_000_001, "image/jpeg", "", 413, "body", "holds 1000001 bytes"),
    "unknown model": (picture(), "image/jpeg", "?model=bikes", 404, "model", "'bikes' is unknown"),
    "form without file": (multipart(b"x", filename=""), "multipart/form-data; boundary=line", "", 400, "body",
                          "holds no file"),
    "form with empty file": (multipart(b""), "multipart/form-data; boundary=line", "", 400, "file", "is empty"),
    "broken form": (b"--other", "multipart/form-data; boundary=line", "", 400, "body", ""),
    "form without boundary": (multipart(b"x"), "multipart/form-data", "", 400, "body", "is no readable multipart form"),
    "confidence out of range": (picture(), "image/jpeg", "?confidence=2", 422, "query.confidence", "'2' does not fit"),
    "confidence not a number": (picture(), "image/jpeg", "?confidence=nan", 422, "query.confidence",
                                "'nan' does not fit"),
    "too many detections": (picture(), "image/jpeg", "?max_detections=301", 422, "query.max_detections",
                            "does not fit"),
    "unknown format": (picture(), "image/jpeg", "?format=xml", 422, "query.format", "'xml' does not fit"),
}


@pytest.mark.ray
@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests(endpoint, case):
    body, content_type, query, status, where, problem = REFUSED[case]
    answer = ask(f"{endpoint}/v1/detect{query}", body, content_type=content_type)
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert error["where"] == where and problem in error["problem"] and error["remedy"]
    if case == "unknown model":
        assert error["remedy"] == "served are shapes, cars"


@pytest.mark.ray
def test_unknown_route_and_method(endpoint):
    assert ask(f"{endpoint}/v1/nothing").json["error"]["where"] == "GET /v1/nothing"
    answer = ask(f"{endpoint}/v1/detect")
    assert answer.status == 405 and answer.json["error"]["problem"] == "Method Not Allowed"


@pytest.mark.ray
def test_body_without_length_is_cut_off(endpoint):
    """A chunked body does not declare its length; it is refused once it exceeds the limit."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(endpoint).netloc, timeout=300)
    chunks = (b"\xff" * 100_000 for _ in range(15))
    connection.request("POST", "/v1/detect", chunks, {"Content-Type": "image/jpeg"}, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 413 and "more than 1000000 bytes" in json.loads(response.read())["error"]["problem"]
    connection.close()


def test_bytes_are_checked_before_pixels_and_pixels_before_decoding():
    start = time.thread_time()
    with pytest.raises(RequestError) as error:
        check_header(bomb(), LIMITS)
    assert error.value.status == 413 and time.thread_time() - start < 1
    check_header(picture(), LIMITS)


# --- Open Inference Protocol v2 ------------------------------------------------------------------------


def infer(endpoint: str, tensor: dict, **more) -> dict:
    body = json.dumps({"inputs": [{"name": "image"} | tensor]} | more).encode()
    return ask(f"{endpoint}/v2/models/shapes/infer", body, content_type="application/json")


def v2_boxes(answer: dict) -> np.ndarray:
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert [outputs[name]["datatype"] for name in ("boxes", "scores", "labels")] == ["FP32", "FP32", "INT64"]
    assert outputs["boxes"]["shape"] == [4, 4] and outputs["labels"]["data"] == [1, 1, 1, 1]
    np.testing.assert_allclose(outputs["scores"]["data"], SCORE, atol=1e-3)
    found = np.array(outputs["boxes"]["data"]).reshape(-1, 4)
    return found[np.lexsort(found.T)]


@pytest.mark.ray
def test_v2_metadata(endpoint):
    assert ask(f"{endpoint}/v2").json == {"name": "yolov7_ray", "version": "2", "extensions": [
        "binary_tensor_data", "model_configuration", "statistics", "model_repository"]}
    assert ask(f"{endpoint}/v2/health/live").json == {"live": True}
    assert ask(f"{endpoint}/v2/health/ready").json == {"ready": True}
    model = ask(f"{endpoint}/v2/models/cars/versions/1").json
    assert model["name"] == "cars" and model["versions"] == ["1"] and model["parameters"]["classes"] == CLASSES
    assert ask(f"{endpoint}/v2/models/cars/ready").json == {"name": "cars", "ready": True}


@pytest.mark.ray
def test_v2_takes_encoded_images_and_pixels(endpoint):
    pixels = decode_image(picture(40, 60))
    encoded = base64.b64encode(picture(40, 60)).decode()
    tensors = [
        {"shape": [1], "datatype": "BYTES", "data": [encoded]},
        {"shape": [40, 60, 3], "datatype": "UINT8", "data": pixels.tolist()},
        {"shape": [1, 40, 60, 3], "datatype": "UINT8", "data": pixels.ravel().tolist()},
        {"shape": [40, 60, 3], "datatype": "FP32", "data": (pixels / 255).ravel().tolist()},
    ]
    for tensor in tensors:
        answer = infer(endpoint, tensor, id="seven")
        assert answer.status == 200, answer.body
        assert answer.json["id"] == "seven" and answer.json["model_name"] == "shapes"
        np.testing.assert_allclose(v2_boxes(answer.json), expected_boxes(40, 60), atol=0.1)


@pytest.mark.ray
def test_v2_binary_tensors(endpoint):
    pixels = decode_image(picture(40, 60))
    head = json.dumps({"inputs": [{"name": "image", "shape": [40, 60, 3], "datatype": "UINT8",
                                   "parameters": {"binary_data_size": pixels.size}}],
                       "outputs": [{"name": "labels", "parameters": {"binary_data": True}},
                                   {"name": "boxes", "parameters": {"binary_data": True}},
                                   {"name": "scores"}]}).encode()
    answer = ask(f"{endpoint}/v2/models/shapes/infer", head + pixels.tobytes(), content_type="application/octet-stream",
                 Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 200, answer.body
    split = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.body[:split])["outputs"]
    assert [output["name"] for output in outputs] == ["labels", "boxes", "scores"] and len(outputs[2]["data"]) == 4
    assert np.frombuffer(answer.body[split : split + 32], "<i8").tolist() == [1, 1, 1, 1]
    found = np.frombuffer(answer.body[split + 32 :], "<f4").reshape(4, 4)
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected_boxes(40, 60), atol=0.1)


@pytest.mark.ray
def test_v2_parameters(endpoint):
    tensor = {"shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture()).decode()]}
    answer = infer(endpoint, tensor, parameters={"confidence": 0.82}, outputs=[{"name": "boxes"}])
    assert answer.json["outputs"] == [{"name": "boxes", "datatype": "FP32", "shape": [0, 4], "data": []}]


V2_REFUSED = {
    "no base64": ({"shape": [1], "datatype": "BYTES", "data": ["%%%"]}, 400, "image: is no base64"),
    "no text": ({"shape": [2], "datatype": "BYTES", "data": ["", 2]}, 400, "image: data is no list of strings"),
    "fewer than the shape says": ({"shape": [2], "datatype": "BYTES", "data": [""]}, 400, "does not fit 1 elements"),
    "no image": ({"shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}, 400, "image: cannot be decoded"),
    "bomb": ({"shape": [1], "datatype": "BYTES", "data": [base64.b64encode(bomb()).decode()]}, 413,
             "has far too many pixels"),
    "shape and data differ": ({"shape": [2, 2, 3], "datatype": "UINT8", "data": [1, 2]}, 400, "data does not fit"),
    "value out of range": ({"shape": [1, 1, 3], "datatype": "UINT8", "data": [1, 2, 256]}, 400, "data does not fit"),
    "no picture shape": ({"shape": [12], "datatype": "UINT8", "data": [1] * 12}, 400, "shape [12] does not fit"),
    "too many": ({"shape": [65, 1, 1, 3], "datatype": "UINT8", "data": [1] * 195}, 400, "image: holds 65 images"),
    "none": ({"shape": [0], "datatype": "BYTES", "data": []}, 400, "image: holds 0 images"),
    "unknown type": ({"shape": [1, 1, 3], "datatype": "INT4", "data": [1] * 3}, 400,
                     "datatype 'INT4' is not supported"),
    "not a number": ({"shape": [1, 1, 3], "datatype": "FP32", "data": [1, "NaN", 2]}, 400, "not finite"),
    "another tensor": ({"name": "pixels", "shape": [1], "datatype": "BYTES", "data": [""]}, 400,
                       "inputs: are ['pixels']"),
}


@pytest.mark.ray
@pytest.mark.parametrize("case", V2_REFUSED)
def test_v2_errors_are_one_string(endpoint, case):
    tensor, status, message = V2_REFUSED[case]
    answer = infer(endpoint, tensor)
    assert answer.status == status and message in answer.json["error"], answer.body


@pytest.mark.ray
def test_v2_malformed_requests(endpoint):
    url = f"{endpoint}/v2/models/shapes/infer"
    assert ask(url, b"{", content_type="application/json").status == 400
    assert ask(url, b'{"inputs": 1}', content_type="application/json").json["error"].startswith("inputs: ")
    assert ask(url, b"{}", content_type="application/json", Inference_Header_Content_Length="99").status == 400
    unknown = ask(f"{endpoint}/v2/models/bikes/infer", b"{}", content_type="application/json")
    assert unknown.status == 404 and unknown.json["error"] == "model: 'bikes' is unknown; served are shapes, cars"
    assert ask(f"{endpoint}/v2/models/shapes/versions/9").json["error"] == (
        "model 'shapes': version '9' is not served; served is version 1")


# --- the replica's model without Ray ---------------------------------------------------------------------


def test_batch_matches_single_images():
    from yolov7_ray.detect.detector import Detector

    detector = Detector(LoadedModel(blind_model(), CLASSES, SIZE_PX, "here", {}))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8) for _ in range(3)]
    options = [Options(0.1, 0.5), Options(0.9, 0.5), Options(0.1, 0.5, max_detections=2)]
    together = detector.run(images, options)
    assert [len(found) for found in together] == [4, 0, 2]
    for image, wanted, found in zip(images, options, together):
        np.testing.assert_allclose(detector.run([image], [wanted])[0], found, rtol=1.3e-6, atol=1e-5)


def test_trained_model_is_folded_before_it_is_served():
    from yolov7_ray.detect.detector import Detector

    detector = Detector(LoadedModel(tiny_model(), CLASSES, SIZE_PX, "here", {}))
    assert detector.engine.model.is_folded
    detector.warm_up(2)


# --- invalid jobs: rejected before anything is deployed ------------------------------------------------


@pytest.mark.parametrize("settings, error, message", [
    ({"models": {"a": {"model": "bikes@latest"}}}, NotFound, "model 'bikes' is not registered"),
    ({"models": {"a": {"model": "shapes@best"}}}, NotFound, "alias 'best' of model 'shapes' does not exist"),
    ({"models": {"a": {"model": "no/such/run"}}}, NotFound, "holds no trained model"),
    ({"models": {"a": {"model": "shapes", "image_size_px": 100}}}, JobError,
     "models.a.image_size_px: 100 is not a multiple"),
    ({"token_env": "YOLOV7_TEST_NO_TOKEN"}, JobError, "environment variable YOLOV7_TEST_NO_TOKEN is not set"),
])
def test_invalid_jobs(registry, settings, error, message):
    from yolov7_ray.serve.app import build_app

    with pytest.raises(error, match=message):
        build_app(endpoint_spec(registry, **settings))


@pytest.mark.ray
def test_address_for_people(ray_session):
    from yolov7_ray.serve.app import _head_ip, _url

    head = _head_ip()
    assert socket.inet_aton(head)
    assert _url("0.0.0.0", 8000) == _url("::", 8000) == f"http://{head}:8000"
    assert _url("127.0.0.1", 8000) == "http://127.0.0.1:8000" and _url("::1", 80) == "http://[::1]:80"


@pytest.mark.ray
def test_another_address_of_a_running_endpoint_is_refused(endpoint, registry):
    from yolov7_ray.serve.app import serve

    with pytest.raises(JobError, match=r"^0\.0\.0\.0:0: cannot be listened on: Ray Serve already listens at 127\.0\.0\.1"):
        serve(endpoint_spec(registry, host="0.0.0.0"), "test")


@pytest.mark.ray
def test_port_in_use(ray_session, registry):
    from ray import serve as ray_serve

    from yolov7_ray.serve.app import serve

    ray_serve.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(JobError, match="cannot be listened on .*; set `port: 0`"):
            serve(endpoint_spec(registry, port=taken.getsockname()[1]), "test")


# --- upgrade, token, overload, and the end ----------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_upgrade_fails_no_request_then_token_and_overload(ray_session, registry, monkeypatch):
    """A second job upgrades the running endpoint; the new one wants a token and has a short queue."""
    from yolov7_ray.serve.app import serve

    with deployed(registry) as url:
        stop, answers = threading.Event(), []

        def keep_asking() -> None:
            while not stop.is_set():
                answers.append(ask(f"{url}/v1/detect", picture()))

        client = threading.Thread(target=keep_asking)
        client.start()
        monkeypatch.setenv("YOLOV7_TEST_TOKEN", "open sesame")
        models = {"shapes": {"model": "shapes@latest", "image_size_px": 960}}
        upgraded = serve(endpoint_spec(registry, models=models, token_env="YOLOV7_TEST_TOKEN", max_batch_size=1,
                                       max_queued_requests=2), "test")["url"]
        stop.set()
        client.join(300)
        assert upgraded == url
        assert answers[0].status == 200
        assert not [answer for answer in answers if answer.status not in (200, 401)], "the new one wants a token"

        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic b3Blbg=="}):
            for path, body in (("/v1/detect", picture()), ("/v1/models", None), ("/v2/models/shapes", None)):
                refused = ask(f"{url}{path}", body, **header)
                assert refused.status == 401 and refused.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"):
            assert ask(f"{url}{path}").status == 200
        token = {"Authorization": "Bearer open sesame"}
        assert ask(f"{url}/v1/detect", picture(), **token).status == 200

        with ThreadPoolExecutor(24) as pool:
            flood = list(pool.map(lambda _: ask(f"{url}/v1/detect", picture(), **token), range(48)))
        assert {answer.status for answer in flood} == {200, 503}
        refused = next(answer for answer in flood if answer.status == 503)
        assert refused.headers["retry-after"] == "1"
        expected = {"where": "model 'shapes'", "problem": "has too many requests waiting", "remedy": "try again in 1 s"}
        assert refused.json["error"].items() >= expected.items()


@pytest.mark.ray
@pytest.mark.slow
def test_moved_alias_is_told_and_full_endpoint_refuses_at_once(ray_session, tmp_path):
    """Resolved once for all replicas: what the alias points to later is told, and not served unasked.

    What is above the queue is refused in JSON while the replica works on, and health is answered beside it.
    """
    registry = str(tmp_path / "registry")
    for name in ("shapes", "cars"):
        register_blind_model(registry, tmp_path, name)
    models = {"shapes": {"model": "shapes@latest", "image_size_px": 960}, "cars": {"model": "cars:1"}}
    with deployed(registry, models=models, max_batch_size=2, max_queued_requests=4, max_request_mb=8) as url:
        noise = encode_image(np.random.default_rng(0).integers(0, 256, (1200, 1400, 3), np.uint8), ".png")
        assert len(noise) > 4 << 20  # more than a message of gRPC holds
        assert len(ask(f"{url}/v1/detect?model=cars", noise, content_type="image/png").json["detections"]) == 4
        for name in ("shapes", "cars"):
            register_blind_model(registry, tmp_path, name, label=0)
        told = ask(f"{url}/v1/models").json["models"]
        assert [(model["ref"], model["newer"]) for model in told] == [("shapes:1", "shapes:2"), ("cars:1", None)]

        with ThreadPoolExecutor(64) as pool:
            flood = [pool.submit(ask, f"{url}/v1/detect", picture()) for _ in range(64)]
            assert ask(f"{url}/healthz").status == 200
            answers = [answer.result() for answer in flood]
    assert {answer.status for answer in answers} == {200, 503}
    assert sum(answer.status == 200 for answer in answers) >= 4 + 2 * 2
    assert {answer.json["version"] for answer in answers if answer.status == 200} == {"1"}
    assert all(answer.json["error"]["problem"] == "has too many requests waiting" and answer.headers["retry-after"]
               for answer in answers if answer.status == 503)


SERVE_UNTIL_STOPPED = """
import sys, ray
from serving import endpoint_spec
from yolov7_ray.serve.app import serve
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20, _temp_dir=sys.argv[2])
print("ended with", serve(endpoint_spec(sys.argv[1], wait=True), "test"), flush=True)
ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_serves_until_terminated(registry, tmp_path_factory):
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root / "platform"), str(root), str(Path(__file__).parents[1])])
    directory = tmp_path_factory.mktemp("r")
    process = subprocess.Popen([sys.executable, "-u", "-c", SERVE_UNTIL_STOPPED, registry, str(directory)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": path})
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "try it" in line:
                break
        url = re.search(r"curl .*(http://[^/]+)/v1/detect", "".join(lines)).group(1)
        assert ask(f"{url}/v1/detect", picture()).status == 200
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(300) == 0 and f"ended with {{'url': '{url}'}}" in rest, rest
        with pytest.raises(OSError):
            ask(f"{url}/healthz")
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(60)
