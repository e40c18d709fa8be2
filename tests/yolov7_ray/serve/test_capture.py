"""Images that an endpoint keeps: which, where, how much memory; and the way from there to a COCO file."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ingest_here
from local_endpoint import LocalModel, served
from serving import CLASSES, ask, deployed, expected_boxes, picture, register_blind_model
from test_hosted import labels, samples

from yolov7.images.sample import decode_image
from yolov7_ray import storage
from yolov7_ray.data.export.export import export
from yolov7_ray.data.export.spec import ExportDatasetSpec
from yolov7_ray.data.sources.spec import ParquetSource
from yolov7_ray.detect.options import Options
from yolov7_ray.errors import JobError, StorageError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.serve.capture import recorder
from yolov7_ray.serve.capture.recorder import Recorder
from yolov7_ray.serve.capture.selection import reason_to_keep
from yolov7_ray.serve.capture.spec import Capture
from yolov7_ray.serve.served import Detected


def rows(uri: str) -> list[dict]:
    return [row for file in sorted(Path(uri).rglob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]


# --- which images ----------------------------------------------------------------------------------------


def keep(request_id: str, *scores: float, **keys) -> str | None:
    return reason_to_keep(Capture(uri="here", **keys), request_id, np.array(scores))


def test_a_share_by_the_requests_id():
    ids = [f"request-{number}" for number in range(2000)]
    kept = [request_id for request_id in ids if keep(request_id, share=0.1)]
    assert kept == [each for each in ids if int(hashlib.sha256(each.encode()).hexdigest()[:16], 16) < 0.1 * 2**64]
    assert 150 < len(kept) < 250 and set(kept) < {each for each in ids if keep(each, share=0.2)}
    assert all(keep(each, share=1) == "share" for each in ids) and not any(keep(each, share=0) for each in ids)


@pytest.mark.parametrize("uncertain, scores, reason", [
    (False, [0.3], None), (True, [0.3], "uncertain"), (True, [0.9, 0.5], "uncertain"), (True, [0.51, 0.24], None),
    (True, [], None), ([0.8, 0.9], [0.85], "uncertain"), ([0.8, 0.9], [0.5], None)])
def test_those_that_are_uncertain(uncertain, scores, reason):
    assert keep("x", *scores, share=0, uncertain=uncertain) == reason


def test_keys():
    job = {"kind": "serve", "models": {"a": {"model": "a"}}, "registry": "r"}
    assert validate(job).capture is None
    assert validate(job | {"capture": {"uri": "s3://b/c"}}).capture.share == 0.01
    for keys in ({"uncertain": [0.5, 0.2]}, {"share": 2}, {"uncertain": [0.5]}):
        with pytest.raises(JobError, match="capture"):
            validate(job | {"capture": {"uri": "here"} | keys})


# --- from the endpoint to COCO ---------------------------------------------------------------------------


def test_from_the_endpoint_to_coco(tmp_path):
    """Encoded images and pixels, of one and of several in a request; their predictions become objects."""
    capture = Capture(uri=str(tmp_path / "captured"), share=1)
    images = {"first": picture(96, 128), "third": picture(64, 80, ".png")}
    pixels = decode_image(picture(40, 60))
    with served(capture=capture) as endpoint:
        ask(f"{endpoint.url}/v1/detect", images["first"], X_Request_ID="first")
        ask(f"{endpoint.url}/v1/detect", b"no image", X_Request_ID="bad")
        ask(f"{endpoint.url}/v1/detect?confidence=0.9", images["third"], X_Request_ID="../third")
        tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 40, 60, 3], "data": [*pixels.ravel().tolist()] * 2}
        ask(f"{endpoint.url}/v2/models/shapes/infer", json.dumps({"inputs": [tensor]}).encode(), X_Request_ID="second")
    kept = {row["file_name"]: row for row in rows(capture.uri)}
    assert [row["request_id"] for row in kept.values()] == ["first", "../third", "second", "second"]
    assert {(row["model"], row["version"], row["reason"]) for row in kept.values()} == {("shapes", "1", "share")}
    first, third, *second = kept.values()
    assert first["image"] == images["first"] and third["image"] == images["third"]
    assert first["file_name"].startswith("first-") and third["file_name"].startswith("___third-")
    assert third["file_name"].endswith(".png") and third["objects"] == []
    for row in second:
        np.testing.assert_array_equal(decode_image(row["image"]), pixels)
    assert [str(file.relative_to(capture.uri).parent) for file in Path(capture.uri).rglob("*.parquet")] == [
        f"shapes/{first['captured_at']:%Y-%m-%d}"]

    dataset, exported = str(tmp_path / "dataset"), tmp_path / "exported"
    ingest_here(ParquetSource(format="parquet", uri=f"{capture.uri}/shapes", classes=CLASSES), dataset)
    export(ExportDatasetSpec(kind="export-dataset", dataset=dataset, format="coco", output=str(exported)), "export")
    coco = json.loads((exported / "annotations/instances_train.json").read_text())
    assert [category["name"] for category in coco["categories"]] == CLASSES
    found = {image["file_name"]: image for image in coco["images"]}
    assert found.keys() == kept.keys()
    for name, row in kept.items():
        image = found[name]
        assert (image["height"], image["width"]) == (row["height"], row["width"])
        assert (exported / "train" / name).read_bytes() == row["image"]
        boxes = np.array([annotation["bbox"] for annotation in coco["annotations"]
                          if annotation["image_id"] == image["id"]]).reshape(-1, 4)
        if name == third["file_name"]:
            assert len(boxes) == 0
            continue
        boxes[:, 2:] += boxes[:, :2]
        expected = expected_boxes(image["height"], image["width"])
        np.testing.assert_allclose(boxes[np.lexsort(boxes.round(2).T)], expected, atol=0.2)
    assert {annotation["category_id"] for annotation in coco["annotations"]} == {coco["categories"][1]["id"]}


# --- memory, storage, the end ----------------------------------------------------------------------------


def found() -> Detected:
    return Detected(LocalModel.info, np.zeros((0, 6), np.float32), (1, 1), 1, 1.0)


class Counts(dict):
    def __call__(self, model: str, outcome: str, count: int) -> None:
        self[outcome] = self.get(outcome, 0) + count


@pytest.mark.parametrize("limit, kept", [("MAX_IMAGES", 3), ("MAX_BYTES", 2)])
def test_what_is_too_much_is_dropped_and_counted(tmp_path, monkeypatch, limit, kept):
    """Storage hangs: nothing waits for it, and memory stays bounded; once it goes on, what was kept is written."""
    monkeypatch.setattr(recorder, limit, {"MAX_IMAGES": 3, "MAX_BYTES": 250}[limit])
    monkeypatch.setattr(recorder, "FILE_IMAGES", 1)
    hangs, goes_on, write = threading.Event(), threading.Event(), storage.write_bytes

    def hang(*arguments) -> None:
        hangs.set()
        assert goes_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(storage, "write_bytes", hang)
    counts = Counts()
    kept_in = Recorder(Capture(uri=str(tmp_path), share=1), counts)
    kept_in.detected(bytes(100), Options(), found(), 0.1)
    assert hangs.wait(60)
    for _ in range(10):
        kept_in.detected(bytes(100), Options(), found(), 0.1)
    in_work = 1
    assert counts == {"dropped": 10 - (kept if limit == "MAX_IMAGES" else kept - in_work)}
    goes_on.set()
    kept_in.close()
    assert counts["written"] == 11 - counts["dropped"] == len(rows(str(tmp_path)))
    kept_in.detected(bytes(100), Options(), found(), 0.1)
    assert counts["written"] + counts["dropped"] == 12, "after the end nothing is kept"


def test_storage_that_fails_is_told_once_and_counted(tmp_path, monkeypatch, capfd):
    def fail(uri: str, data: bytes) -> None:
        raise StorageError("s3://bucket", "is full")

    monkeypatch.setattr(storage, "write_bytes", fail)
    monkeypatch.setattr(recorder, "FILE_IMAGES", 2)
    counts = Counts()
    failing = Recorder(Capture(uri=str(tmp_path), share=1), counts)
    for _ in range(6):
        failing.detected(b"", Options(), found(), 0.1)
    failing.close()
    assert counts == {"failed": 6}
    assert capfd.readouterr().out == "serve: 2 captured images of shapes could not be written: s3://bucket: is full\n"


def test_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "MAX_BYTES", 1)
    with served(capture=Capture(uri=str(tmp_path), share=1)) as endpoint:
        ask(f"{endpoint.url}/v1/detect", picture())
        assert samples(endpoint.url)["yolov7_captured_images_total" + labels(model="shapes", outcome="dropped")] == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_gateway_that_ends_writes_what_it_holds(ray_session, tmp_path):
    registry = str(tmp_path / "registry")
    register_blind_model(registry, tmp_path)
    uri = str(tmp_path / "captured")
    with deployed(registry, models={"shapes": {"model": "shapes"}}, capture={"uri": uri, "share": 0, "uncertain": [0.8, 0.9]}
                  ) as url:
        assert ask(f"{url}/v1/detect", picture()).status == 200
        assert ask(f"{url}/v1/detect?confidence=0.9", picture()).status == 200
    assert [row["reason"] for row in rows(uri)] == ["uncertain"]
