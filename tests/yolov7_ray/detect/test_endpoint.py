"""`Endpoint`: the face of `Detector` over real HTTP."""

import http.server
import json
import threading
from contextlib import contextmanager

import numpy as np
import PIL.Image
import pytest
from local_endpoint import served
from serving import CLASSES, SIZE_PX, blind_model, picture

from yolov7.images.sample import decode_image
from yolov7_ray import Detector, Endpoint
from yolov7_ray.errors import JobError
from yolov7_ray.registry.model_source import LoadedModel
from yolov7_ray.serve.access.spec import Token, sha256_of
from yolov7_ray.serve.access.tokens import Tokens


@pytest.fixture(scope="module")
def url():
    with served() as running:
        yield running.url


def test_it_answers_as_the_detector_does(url, tmp_path):
    detector = Detector(LoadedModel(blind_model(), CLASSES, SIZE_PX, "here", {}), rectangular=False)
    path = tmp_path / "a.bmp"  # a format that endpoints do not take
    PIL.Image.fromarray(decode_image(picture(50, 70))).save(path)
    images = [picture(), decode_image(picture(64, 64)), path, PIL.Image.open(path)]
    endpoint = Endpoint(url + "/")
    assert endpoint.classes == tuple(CLASSES)
    for expected, found in zip(detector(images), endpoint(images), strict=True):
        np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        assert (found.names, found.size_hw, found.source) == (expected.names, expected.size_hw, expected.source)
        np.testing.assert_array_equal(found.picture(), expected.picture())
    assert len(endpoint(picture(), confidence=0.9)) == 0 and len(endpoint(picture(), max_detections=2)) == 2


def test_what_it_refuses_is_said_in_its_words(url):
    with pytest.raises(JobError, match="model: 'bikes' is unknown; served are shapes"):
        Endpoint(url, model="bikes")(picture())
    with pytest.raises(JobError, match="confidence"):
        Endpoint(url)(picture(), confidence=3)
    with pytest.raises(JobError, match=f"^{url}: image"):
        Endpoint(url)(picture()[:200])
    with served(tokens=Tokens({"a": Token(sha256=sha256_of("secret"))})) as guarded:
        with pytest.raises(JobError, match="bearer token is missing"):
            Endpoint(guarded.url)(picture())
        assert len(Endpoint(guarded.url, "secret")(picture())) == 4


def test_addresses_that_are_none():
    for url in ("127.0.0.1:8000", "ftp://x", "", "http://"):
        with pytest.raises(JobError, match="is no address of an endpoint; give one such as http://127.0.0.1:8000"):
            Endpoint(url)
    with pytest.raises(JobError, match="http://127.0.0.1:9: cannot be reached"):
        Endpoint("http://127.0.0.1:9")(picture())


@contextmanager
def scripted(*answers: tuple[int, dict, bytes]):
    """The URL of a server that gives these answers in turn, closing each connection after one, and what it was asked."""
    waiting, asked = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Content-Type"], body))
            status, headers, content = waiting.pop(0)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True  # without saying so: the client finds its kept connection closed

        def do_GET(self):
            content = json.dumps({"models": [{"name": "m", "default": True, "classes": CLASSES}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/base", asked
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


NOTHING = json.dumps({"detections": [], "width_px": 128, "height_px": 96}).encode()
BUSY = json.dumps({"error": {"where": "model 'm'", "problem": "has too many requests waiting", "remedy": "ask later"}})


def test_a_busy_endpoint_is_asked_again_as_it_says():
    with scripted((503, {"Retry-After": "0"}, BUSY.encode()), (429, {"Retry-After": "0"}, b"{}"),
                  (200, {}, NOTHING)) as (url, asked):
        image = picture()
        assert Endpoint(url)(image).size_hw == (96, 128)
        assert asked == [("/base/v1/detect?", "image/jpeg", image)] * 3


def test_one_that_stays_busy_is_given_up():
    with scripted((503, {"Retry-After": "30"}, BUSY.encode())) as (url, asked):
        with pytest.raises(JobError, match="model 'm': has too many requests waiting; ask later"):
            Endpoint(url, timeout_s=5)(picture())
        assert len(asked) == 1


def test_a_proxys_own_words():
    with scripted((502, {}, b"<html>bad gateway</html>")) as (url, _):
        with pytest.raises(JobError, match="answered 502: <html>bad gateway</html>"):
            Endpoint(url)(picture())
