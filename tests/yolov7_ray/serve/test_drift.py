"""Drift: what a version detected on its validation split, kept at publish, against what an endpoint detects."""

import json
import math

import numpy as np
import pytest
from local_endpoint import LocalModel, served
from serving import ask, picture, register_blind_model
from test_hosted import labels, samples

from yolov7_ray.detect.options import Options
from yolov7_ray.errors import Corrupt
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.validation import NUM_SCORES, VALIDATION_FILE, Validation, load_validation
from yolov7_ray.registry.version import MODEL_FILE
from yolov7_ray.serve.monitoring import drift
from yolov7_ray.serve.monitoring.drift import Drift, compared, drift_index
from yolov7_ray.serve.served import Detected, ServedInfo


def rows(*given: tuple) -> np.ndarray:
    return np.array(given, np.float32).reshape(-1, 6)


# --- what is kept at publish -----------------------------------------------------------------------------


def test_detections_are_counted_as_an_endpoint_gives_them():
    """An evaluation has low scores, a second label for a box, and boxes that an endpoint suppresses."""
    first = rows((0, 0, 10, 10, 0.9, 1), (0, 0, 10, 10, 0.4, 0), (0, 0, 10, 11, 0.8, 1), (50, 50, 60, 60, 0.3, 1),
                 (50, 50, 60, 61, 0.26, 0), (0, 90, 9, 99, 0.249, 0))
    found = Validation.of(np.concatenate([first, rows((0, 0, 5, 5, 0.1, 0)), rows((0, 0, 5, 5, 1.0, 0))]), [6, 1, 0, 1], 2)
    assert (found.num_images, found.num_empty) == (4, 2)
    assert np.argwhere(found.counts).tolist() == [[0, 5], [0, 19], [1, 6], [1, 18]] and found.counts.max() == 1
    again = Validation.from_json(found.to_json(), "here")
    assert (again.num_images, again.num_empty) == (4, 2)
    np.testing.assert_array_equal(again.counts, found.counts)
    for damage in (b"{", b"[]", b'{"num_images": 1, "num_empty": 0, "counts": [[1]]}'):
        with pytest.raises(Corrupt, match="^here: "):
            Validation.from_json(damage, "here")


def publish(tmp_path, validation: Validation | None) -> str:
    """A registry with shapes:1, which may have a validation."""
    uri = str(tmp_path / "registry")
    version = register_blind_model(uri, tmp_path)
    if validation is None:
        return uri
    record = json.loads(version.to_json())
    for key in ("name", "version", "created_at", "files"):
        del record[key]
    Registry(uri).register("shapes", {MODEL_FILE: b"", VALIDATION_FILE: validation.to_json()}, record)
    return uri


def test_a_version_tells_its_validation(tmp_path):
    counts = np.zeros((2, NUM_SCORES), int)
    counts[1, 16] = 40
    uri = publish(tmp_path, Validation(10, 0, counts))
    assert load_validation(uri, "shapes:1") is None and load_validation(uri, "other:1") is None
    np.testing.assert_array_equal(load_validation(uri, "shapes:2").counts, counts)


# --- the index -------------------------------------------------------------------------------------------


def test_index_by_hand():
    """Shares 0.5, 0.5 and 0.75, 0.25: 0.25 ln 1.5 - 0.25 ln 0.5 = 0.25 ln 3, but for half a count in each."""
    assert drift_index(np.array([1e9, 1e9]), np.array([3e9, 1e9])) == pytest.approx(0.25 * math.log(3), rel=1e-6)
    share = np.array([1, 1e-4]) / 1.0001
    found = (share + [0, 4]) / 5
    assert drift_index(np.array([10, 0]), np.array([0, 4])) == pytest.approx(
        (found[0] - share[0]) * math.log(found[0] / share[0]) + (found[1] - share[1]) * math.log(found[1] / share[1]))
    assert drift_index(np.array([10, 0]), np.array([0, 0])) == pytest.approx(0), "nothing seen is no change"


def test_scores_below_the_models_threshold_are_not_compared():
    expected, actual = np.zeros((2, NUM_SCORES), int), np.zeros((2, NUM_SCORES), int)
    expected[0, 5:] = actual[0, 10:] = 1000
    at = {confidence: compared(Validation(1, 0, expected), actual, confidence)["scores"] for confidence in (0.1, 0.5)}
    assert at[0.5] < 1e-3 and at[0.1] > 1


def test_rare_classes_count_as_one():
    expected, actual = np.zeros((80, NUM_SCORES), int), np.zeros((80, NUM_SCORES), int)
    expected[:20, 16] = actual[:20, 16] = 1000
    expected[20:, 16], actual[20:40, 16] = 1, 3
    assert compared(Validation(1, 0, expected), actual, 0.25)["classes"] < 1e-3


# --- on the endpoint -------------------------------------------------------------------------------------

INFO = ServedInfo("shapes", "shapes:2", "2", "yolov7-tiny", 64, ("cat", "dog"))


def see(observer: Drift, detections: np.ndarray, times: int = 1, **options) -> None:
    for _ in range(times):
        observer.detected(b"", Options(**options), Detected(INFO, detections, (9, 9), 1, 1.0), 0.1)


def figures(observer: Drift) -> dict[str, float]:
    return {sample.labels.get("of", "images"): sample.value for family in observer.collect() for sample in family.samples}


def with_validation(observer: Drift, counts: np.ndarray) -> Drift:
    """The window's validation, as if it had been loaded."""
    see(observer, rows(), confidence=0.25)
    [window] = observer._windows.values()
    window.validation, window.blocks = Validation(10, 0, counts), []
    return observer


def test_the_last_images_are_compared(monkeypatch):
    monkeypatch.setattr(drift, "WINDOW", 20)
    monkeypatch.setattr(drift, "MIN_IMAGES", 10)
    dogs, cats = rows((0, 0, 5, 5, 0.82, 1)), rows((0, 0, 5, 5, 0.82, 0))
    counts = np.zeros((2, NUM_SCORES), int)
    counts[1, 16] = 100
    observer = with_validation(Drift("0"), counts)
    see(observer, dogs, 9)
    assert figures(observer) == {"images": 9}, "too few"
    see(observer, dogs, 1)
    assert figures(observer)["images"] == 10 and figures(observer)["classes"] < 0.1 > figures(observer)["scores"]
    see(observer, cats, 100)
    found = figures(observer)
    assert found["images"] == 20 and found["classes"] > 1 and found["scores"] < 0.1
    see(observer, cats, 100, confidence=0.5)
    see(observer, cats, 100, max_detections=1)
    assert figures(observer) == found, "requests that ask for less are not compared"
    see(observer, dogs, 20, confidence=0.05)
    assert figures(observer)["classes"] < 0.1


def test_metrics_of_an_endpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "MIN_IMAGES", 1)
    counts = np.zeros((2, NUM_SCORES), int)
    counts[1, 16] = 400  # as the blind model: dogs, 0.81
    registry = publish(tmp_path, Validation(100, 0, counts))
    info = ServedInfo("shapes", "shapes:2", "2", "yolov7-tiny", 64, ("cat", "dog"), registry=registry)
    monkeypatch.setattr(LocalModel, "info", info)
    loaded, load = drift.threading.Event(), drift._Window.load
    monkeypatch.setattr(drift._Window, "load", lambda window: (load(window), loaded.set()))
    with served() as endpoint:
        for _ in range(100):
            assert ask(f"{endpoint.url}/v1/detect", picture()).status == 200
        assert loaded.wait(60)
        found = samples(endpoint.url)
    of = {of: found["yolov7_drift_index" + labels(model="shapes", version="2", of=of)] for of in ("scores", "classes")}
    assert of["scores"] < 0.01 > of["classes"]
    assert found["yolov7_drift_images" + labels(model="shapes", version="2")] == 100
    assert found["yolov7_images_total" + labels(model="shapes", version="2", status="200")] == 100
