"""Open Inference Protocol v2 over real HTTP: batches, datatypes, layouts, compression, statistics, configuration.

Expectations are the specification's and those of Triton's extensions; where Triton's own client is installed
(`pip install 'tritonclient[http]'`), it asks too.
"""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from local_endpoint import Endpoint, LocalModel, served
from serving import Answer, ask, expected_boxes, picture

from yolov7.images.sample import decode_image
from yolov7_ray.serve.access.spec import Token, sha256_of
from yolov7_ray.serve.access.tokens import Tokens
from yolov7_ray.serve.limits import RequestError

SIZES = [(96, 128), (64, 64), (40, 60)]
IMAGES = [picture(*size) for size in SIZES]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with served() as running:
        yield running


def infer(endpoint: Endpoint, tensor: dict, raw: bytes | None = None, headers: dict = {}, **more) -> Answer:
    """The answer to an inference request, its tensor's data in JSON, or `raw` behind it."""
    tensor = {"name": "image"} | tensor
    if raw is not None:
        tensor["parameters"] = tensor.get("parameters", {}) | {"binary_data_size": len(raw)}
        more |= {"parameters": {"binary_data_output": False}}
    head = json.dumps({"inputs": [tensor]} | more).encode()
    if raw is not None:
        headers = headers | {"Inference-Header-Content-Length": str(len(head))}
    return ask(f"{endpoint.url}/v2/models/shapes/infer", head + (raw or b""), **headers)


def outputs(answer: Answer) -> dict[str, np.ndarray]:
    assert answer.status == 200, answer.body
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer.json["outputs"]}


def check(found: dict[str, np.ndarray], sizes: list[tuple[int, int]]) -> None:
    """Four objects in each image, where they are known to be, in the order of the images."""
    assert found["num_detections"].tolist() == [4] * len(sizes)
    assert found["labels"].tolist() == [1] * 4 * len(sizes) and found["scores"].shape == (4 * len(sizes),)
    for size, boxes in zip(sizes, np.split(found["boxes"], np.cumsum(found["num_detections"])[:-1]), strict=True):
        np.testing.assert_allclose(boxes[np.lexsort(boxes.T)], expected_boxes(*size), atol=0.1 * max(size) / 64)


def elements(images: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


# --- batches, datatypes, layouts -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[3], [3, 1], [1, 3]])
def test_encoded_images_of_any_size_in_one_request(endpoint, shape):
    texts = [base64.b64encode(image).decode() for image in IMAGES]
    nested = np.array(texts).reshape(shape).tolist()
    for data in (texts, nested):
        check(outputs(infer(endpoint, {"shape": shape, "datatype": "BYTES", "data": data})), SIZES)
    check(outputs(infer(endpoint, {"shape": shape, "datatype": "BYTES"}, elements(IMAGES))), SIZES)


PIXELS = np.stack([decode_image(picture(40, 60))] * 2)


@pytest.mark.parametrize("datatype, dtype", [("UINT8", "<u1"), ("FP16", "<f2"), ("FP32", "<f4")])
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_pixels(endpoint, datatype, dtype, layout, count):
    """A count of 0 is one image without the dimension of the batch."""
    values = PIXELS.astype(dtype) if datatype == "UINT8" else (PIXELS / 255).astype(dtype)
    values = values[:count] if count else values[0]
    values = values if layout == "HWC" else np.moveaxis(values, -1, -3)
    tensor = {"shape": list(values.shape), "datatype": datatype}
    check(outputs(infer(endpoint, tensor, values.tobytes())), [(40, 60)] * (count or 1))
    check(outputs(infer(endpoint, tensor | {"data": values.tolist()})), [(40, 60)] * (count or 1))


def test_the_same_pixels_whatever_the_layout(monkeypatch, endpoint):
    seen = []

    async def look(self, image, options, draw=False):
        seen.append(image)
        raise RequestError(400, "image", "is seen")

    monkeypatch.setattr(LocalModel, "detect", look)
    for layout, shape in ((None, [2, 3, 3]), ("HWC", [2, 3, 3]), ("CHW", [3, 2, 3]), (None, [3, 2, 4]), (None, [3, 5, 3])):
        values = np.arange(np.prod(shape), dtype=np.uint8)
        tensor = {"shape": shape, "datatype": "UINT8", "parameters": {"layout": layout} if layout else {}}
        assert "is seen" in infer(endpoint, tensor, values.tobytes()).json["error"]
        channels_first = layout == "CHW" or shape[2] != 3
        expected = values.reshape(shape).transpose(1, 2, 0) if channels_first else values.reshape(shape)
        np.testing.assert_array_equal(seen[-1], expected)


@pytest.mark.parametrize("tensor, raw, problem", [
    ({"shape": [2], "datatype": "BYTES"}, elements(IMAGES[:1]), "image: shape [2] does not fit 1 elements"),
    ({"shape": [1], "datatype": "BYTES"}, elements(IMAGES[:1])[:-1], "image: is no whole BYTES tensor"),
    ({"shape": [1], "datatype": "BYTES"}, b"\1\0", "image: is no whole BYTES tensor"),
    ({"shape": [65], "datatype": "BYTES"}, elements([b""] * 65), "image: holds 65 images"),
    ({"shape": [9999], "datatype": "BYTES"}, elements([b""] * 9999), "image: shape [9999] does not fit 65 elements"),
    ({"shape": [2], "datatype": "BYTES"}, elements([IMAGES[0], b"x"]), "image: cannot be decoded"),
    ({"shape": [1, 2, 2, 4], "datatype": "UINT8"}, bytes(16), "image: shape [1, 2, 2, 4] does not fit"),
    ({"shape": [3, 2, 2], "datatype": "UINT8", "parameters": {"layout": "HWC"}}, bytes(12), "image: shape [3, 2, 2]"),
    ({"shape": [2, 2, 3], "datatype": "UINT8", "parameters": {"layout": "HCW"}}, bytes(12), "inputs.0.parameters.layout"),
    ({"shape": [1, 1, 3], "datatype": "FP16"}, np.full(3, 128, "<f2").tobytes(), "image: FP16 values reach from 128"),
    ({"shape": [1, 1, 3], "datatype": "FP16"}, np.full(3, np.nan, "<f2").tobytes(), "image: holds values that are not"),
    ({"shape": [1, 1, 3], "datatype": "FP16"}, bytes(5), "image: data does not fit FP16"),
    ({"shape": [1, 1, 3], "datatype": "FP64"}, bytes(24), "image: datatype 'FP64' is not supported"),
])
def test_what_does_not_fit(endpoint, tensor, raw, problem):
    answer = infer(endpoint, tensor, raw)
    assert answer.status == 400 and answer.json["error"].startswith(problem), answer.body


# --- compression -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding, compress", [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_and_answers(endpoint, encoding, compress):
    tensor = {"shape": [3], "datatype": "BYTES", "data": [base64.b64encode(image).decode() for image in IMAGES]}
    body = compress(json.dumps({"inputs": [{"name": "image"} | tensor]}).encode())
    url = f"{endpoint.url}/v2/models/shapes/infer"
    answer = ask(url, body, Content_Encoding=encoding, Accept_Encoding=f"br, {encoding};q=0.5")
    assert answer.headers["content-encoding"] == encoding
    inflated = zlib.decompress(answer.body, 47)
    check(outputs(Answer(answer.status, {}, inflated)), SIZES)
    assert "content-encoding" not in ask(url, body, Content_Encoding=encoding, Accept_Encoding=f"{encoding};q=0").headers
    detected = ask(f"{endpoint.url}/v1/detect", compress(picture()), Content_Encoding=encoding)
    assert len(detected.json["detections"]) == 4


def test_compressed_requests_that_are_refused(endpoint):
    url = f"{endpoint.url}/v2/models/shapes/infer"
    whole = gzip.compress(b'{"inputs": []}')
    for body, encoding, status, problem in (
            (whole, "br", 415, "content-encoding: 'br' is not supported"),
            (whole[:-1], "gzip", 400, "body: is no whole gzip stream"),
            (whole + whole, "gzip", 400, "body: is no whole gzip stream"),
            (whole, "deflate", 400, "body: is no deflate ("),
            (gzip.compress(bytes(21_000_000)), "gzip", 413, "body: holds more than 20000000 bytes"),
            (whole, "gzip", 400, "inputs: are []")):
        answer = ask(url, body, Content_Encoding=encoding)
        assert answer.status == status and answer.json["error"].startswith(problem), answer.body


# --- configuration, statistics, repository ---------------------------------------------------------------


def test_configuration(endpoint):
    config = ask(f"{endpoint.url}/v2/models/shapes/config").json
    assert config == ask(f"{endpoint.url}/v2/models/shapes/versions/1/config").json
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("shapes", "yolov7_ray", 0)
    assert config["version_policy"] == {"specific": {"versions": [1]}}
    assert config["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "format": "FORMAT_NONE",
                                "dims": [-1, -1, -1, 3]}]
    assert [(output["name"], output["data_type"], output["dims"]) for output in config["output"]] == [
        ("boxes", "TYPE_FP32", [-1, 4]), ("scores", "TYPE_FP32", [-1]), ("labels", "TYPE_INT64", [-1]),
        ("num_detections", "TYPE_INT64", [-1])]
    assert config["parameters"]["confidence_threshold"] == {"string_value": "0.25"}
    assert ask(f"{endpoint.url}/v2/models/shapes/versions/2/config").status == 404


def test_statistics():
    with served() as endpoint:
        def stats(path: str = "shapes/stats") -> dict:
            [found] = ask(f"{endpoint.url}/v2/models/{path}").json["model_stats"]
            return found

        assert stats()["inference_count"] == stats()["last_inference"] == 0 and stats()["batch_stats"] == []
        infer(endpoint, {"shape": [3], "datatype": "BYTES"}, elements(IMAGES))
        ask(f"{endpoint.url}/v1/detect", picture())
        found = stats()
        assert found == stats("stats") == stats("shapes/versions/1/stats")
        assert (found["name"], found["version"]) == ("shapes", "1") and found["last_inference"] > 1.7e12
        assert found["inference_count"] == found["execution_count"] == 4  # the local model makes batches of one
        counts = {name: duration["count"] for name, duration in found["inference_stats"].items()}
        assert counts == {"success": 4, "fail": 0, "queue": 4, "compute_input": 4, "compute_infer": 4,
                          "compute_output": 4, "cache_hit": 0, "cache_miss": 0}
        assert found["inference_stats"]["compute_infer"]["ns"] == 4_000_000  # 1 ms each, as the local model says
        [batch] = found["batch_stats"]
        assert batch["batch_size"] == 1 and batch["compute_infer"] == {"count": 4, "ns": 4_000_000}
        assert batch.keys() == {"batch_size", "compute_input", "compute_infer", "compute_output"}
        durations = found["inference_stats"]
        assert durations["success"]["ns"] == pytest.approx(sum(durations[stage]["ns"] for stage in (
            "queue", "compute_input", "compute_infer", "compute_output")), abs=100)


def test_failures_are_counted(monkeypatch):
    async def fail(self, image, options, draw=False):
        raise RequestError(503, "model", "is gone")

    monkeypatch.setattr(LocalModel, "detect", fail)
    with served() as endpoint:
        assert infer(endpoint, {"shape": [1], "datatype": "BYTES"}, elements(IMAGES[:1])).status == 503
        [found] = ask(f"{endpoint.url}/v2/models/stats").json["model_stats"]
    assert found["inference_stats"]["fail"]["count"] == 1 and found["inference_count"] == 0


def test_repository_index(endpoint, monkeypatch):
    url = f"{endpoint.url}/v2/repository/index"
    entry = {"name": "shapes", "version": "1", "state": "READY", "reason": ""}
    assert [ask(url, body).json for body in (b"", b"{}", b'{"ready": true}')] == [[entry]] * 3
    assert ask(url, b"[]").status == ask(url, b"{").status == 400

    async def not_ready(self):
        return False

    monkeypatch.setattr(LocalModel, "is_ready", not_ready)
    with served() as waiting:
        url = f"{waiting.url}/v2/repository/index"
        assert ask(url, b"").json == [entry | {"state": "UNAVAILABLE", "reason": "no replica answers"}]
        assert ask(url, b'{"ready": true}').json == []


def test_loading_is_refused_and_asks_for_an_administrator(endpoint):
    for verb in ("load", "unload"):
        answer = ask(f"{endpoint.url}/v2/repository/models/shapes/{verb}", b"{}")
        assert (answer.status, answer.json["error"]) == (
            400, f"model 'shapes': is served by a job, so no request can {verb} it; submit the serve job with other "
                 "models; `follow: true` goes on with a moved alias")
    assert ask(f"{endpoint.url}/v2/repository/models/no/load", b"{}").status == 404
    tokens = Tokens({name: Token(sha256=sha256_of(name), scopes=[scope]) for name, scope in
                     (("one", "detect"), ("two", "admin"))})
    with served(tokens=tokens) as guarded:
        statuses = [ask(f"{guarded.url}/v2/repository/models/shapes/load", b"{}", Authorization=f"Bearer {token}").status
                    for token in ("one", "two", "three")]
    assert statuses == [403, 400, 401]


# --- Triton's own client ---------------------------------------------------------------------------------


@pytest.fixture
def triton(endpoint):
    http = pytest.importorskip("tritonclient.http", reason="Triton's client is not installed: tritonclient[http]")
    client = http.InferenceServerClient(endpoint.url.removeprefix("http://"), connection_timeout=300, network_timeout=300)
    yield http, client
    client.close()


def test_tritons_client_asks_about_the_server(triton):
    http, client = triton
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("shapes", "1")
    assert client.get_server_metadata()["name"] == "yolov7_ray"
    assert client.get_model_metadata("shapes")["inputs"][0]["name"] == "image"
    assert client.get_model_config("shapes", "1")["max_batch_size"] == 0
    assert client.get_model_repository_index() == [{"name": "shapes", "version": "1", "state": "READY", "reason": ""}]
    assert client.get_inference_statistics("shapes")["model_stats"][0]["name"] == "shapes"
    with pytest.raises(http.InferenceServerException, match="no request can load it"):
        client.load_model("shapes")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_sends_images(triton, binary, compression):
    http, client = triton
    texts = IMAGES if binary else [base64.b64encode(image) for image in IMAGES]
    arrays = [(np.array(texts, object), "BYTES", SIZES), (PIXELS, "UINT8", [(40, 60)] * 2),
              ((PIXELS / 255).astype(np.float32).transpose(0, 3, 1, 2), "FP32", [(40, 60)] * 2)]
    if binary:
        arrays.append(((PIXELS[0] / 255).astype(np.float16), "FP16", [(40, 60)]))
    for array, datatype, sizes in arrays:
        tensor = http.InferInput("image", list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        wanted = [http.InferRequestedOutput(name, binary_data=binary)
                  for name in ("boxes", "scores", "labels", "num_detections")]
        for outputs in (wanted, None):
            answer = client.infer("shapes", [tensor], outputs=outputs, request_id="seven",
                                  request_compression_algorithm=compression,
                                  response_compression_algorithm=compression)
            assert answer.get_response()["id"] == "seven"
            check({name: answer.as_numpy(name) for name in ("boxes", "scores", "labels", "num_detections")}, sizes)
