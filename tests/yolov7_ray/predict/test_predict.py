"""Batch inference: every image once and in order, boxes in its own pixels, files whole or absent."""

import json
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import coco_source, jpeg, make_coco
from yolov7_ray import storage
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.errors import JobError, NotFound
from yolov7_ray.predict import results as prediction_files
from yolov7_ray.detect.detector import least_canvas_hw
from yolov7_ray.predict.images import DatasetImages, FolderImages, images_of
from yolov7_ray.predict.output import replace
from yolov7_ray.predict.predict import predict
from yolov7_ray.predict.predictor import Predictor
from yolov7_ray.predict.results import ROW, ArrowWriter, CocoWriter, JsonList, category_ids
from yolov7_ray.predict.spec import PredictSpec
from yolov7_ray.registry.model_source import locate

from yolov7.architectures.family import architecture
from yolov7.checkpoints.weights import save_model
from yolov7.evaluation.postprocess import postprocess
from yolov7.images.batch import normalize
from yolov7.images.sample import decode_image, encode_image, letterbox
from yolov7.model.detector import build_model

CLASSES = ["dog", "bird"]  # a dataset of conftest has cat and dog, ids 3 and 7
SIZE_PX = 64


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = build_model(architecture("yolov7-tiny").scaled(depth=0.33, width=0.25), num_classes=len(CLASSES))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, model, CLASSES)
    return str(path)


def job(model_uri: str, images, output, **values) -> PredictSpec:
    resources = {"workers": 1, "cpus_per_worker": 0.5}
    return PredictSpec(kind="predict", model=model_uri, images=str(images), output=str(output),
                       **{"image_size_px": SIZE_PX, "confidence_threshold": 1e-4, "batch_size": 2,
                          "resources": resources} | values)


def read_arrow(output: str) -> pa.Table:
    summary = storage.read_json(storage.join(output, "predictions.json"))
    shards = [storage.read_bytes(storage.join(output, file["path"]), sha256=file["sha256"])
              for file in summary["files"] if file["path"].endswith(".arrow")]
    return pa.concat_tables([pa.ipc.open_file(shard).read_all() for shard in shards])


def expected_detections(model_uri: str, image: np.ndarray) -> np.ndarray:
    """(n, 6) in pixels of the image, by the shortest way: one image, the unfolded model."""
    model = locate(model_uri).load().model
    square = (SIZE_PX, SIZE_PX)
    fitted, fit = letterbox(image, square, canvas_hw=least_canvas_hw(image.shape[:2], SIZE_PX, 32))
    with torch.inference_mode():
        found = postprocess(model(normalize(torch.from_numpy(fitted).permute(2, 0, 1)[None])), 1e-4, 0.45)[0].numpy()
    return np.concatenate([fit.to_original(found[:, :4]), found[:, 4:]], axis=1)


# --- the whole job ------------------------------------------------------------------------------------


@pytest.mark.ray
def test_folder_to_arrow(ray_session, place, model_uri, capsys):
    images = {f"part-{i % 2}/{i}.jpg": jpeg(i, 96 + 8 * i, 128) for i in range(5)}
    for path, data in {**images, "broken.PNG": b"\x89PNG no image", "notes.txt": b"not an image"}.items():
        storage.write_bytes(storage.join(place, "in", path), data)
    output = storage.join(place, "out")

    assert predict(job(model_uri, storage.join(place, "in"), output), "run-1") == {"output": output}

    table = read_arrow(output)
    assert table.schema.equals(ROW) and json.loads(table.schema.metadata[b"classes"]) == CLASSES
    assert table["file_name"].to_pylist() == sorted(images)
    for row in table.to_pylist():
        image = decode_image(images[row["file_name"]])
        assert (row["height_px"], row["width_px"]) == image.shape[:2]
        boxes = np.array(row["boxes_xyxy"])
        assert boxes.min() >= 0 and (boxes.max(axis=0) <= [row["width_px"], row["height_px"]] * 2).all()
        expected = expected_detections(model_uri, image)
        assert len(boxes) == len(expected) > 0
        np.testing.assert_allclose(row["scores"], expected[:, 4], rtol=1e-3, atol=1e-5)
        # Folding moves scores by 1e-7, which may decide a near tie in NMS: nearly all boxes, not all, are the same.
        distances_px = np.abs(boxes[:, None] - expected[None, :, :4]).max(axis=2).min(axis=1)
        assert (distances_px < 0.1).mean() > 0.95
    summary = storage.read_json(storage.join(output, "predictions.json"))
    assert (summary["num_images"], summary["num_undecodable"], summary["run"]) == (5, 1, "run-1")
    assert summary["num_detections"] == sum(map(len, table["scores"].to_pylist()))
    assert len(summary["undecodable"]) == 1 and "broken.PNG" in summary["undecodable"][0]
    assert storage.read_json(storage.join(output, "predictions/undecodable.json")) == summary["undecodable"]
    assert "predict: 6/6 images" in capsys.readouterr().out


@pytest.mark.ray
def test_dataset_to_coco_on_every_cpu_that_there_is(ray_session, tmp_path, model_uri):
    from pycocotools.coco import COCO
    from yolov7_ray.data.ingest.ingest import ingest

    source = make_coco(tmp_path / "coco")
    raw = IngestSpec(kind="ingest", source=coco_source(source), dataset=str(tmp_path / "set"))
    dataset = ingest(raw, "ingest")["dataset"]
    spec = job(model_uri, dataset, tmp_path / "out", format="coco", resources={"workers": 2, "cpus_per_worker": 1})
    output = predict(spec, "run")["output"]
    summary = storage.read_json(storage.join(output, "predictions.json"))

    truth = COCO(str(source / "val.json"))
    results = truth.loadRes(storage.join(output, "predictions/results.json"))  # refuses unknown image ids
    assert set(results.getImgIds()) == set(truth.getImgIds()) and len(results.anns) == summary["num_detections"] > 0
    assert {found["category_id"] for found in results.anns.values()} <= {7, 8}, "dog is the dataset's 7, bird is new"
    assert summary["classes"] == [{"name": "dog", "category_id": 7}, {"name": "bird", "category_id": 8}]
    for found in results.anns.values():
        x, y, width, height = found["bbox"]
        assert min(x, y, width, height) >= 0 and x + width <= 128.01 and y + height <= 96.01
    images = storage.read_json(storage.join(output, "predictions/images.json"))
    assert [image["id"] for image in images] == sorted(truth.getImgIds())


# --- parts, without Ray -------------------------------------------------------------------------------


def test_actor_answers_every_image_once_and_survives_bad_ones(tmp_path, model_uri):
    for i in range(7):
        (tmp_path / f"{i}.jpg").write_bytes(b"" if i in (0, 1, 4) else jpeg(i))
    spec = job(model_uri, tmp_path, tmp_path / "out")
    predictor = Predictor(FolderImages(str(tmp_path)), locate(model_uri), spec)
    tables = list(predictor(pa.table({"index": range(7)})))
    assert [table.num_rows for table in tables] == [2, 2, 2, 1], "the first batch holds bad images only"
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["image_id"] for row in rows] == [None, None, 2, 3, None, 5, 6]
    assert [bool(row["problem"]) for row in rows] == [True, True, False, False, True, False, False]


def test_actor_detects_as_the_job_asks(tmp_path, model_uri):
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    images, source = FolderImages(str(tmp_path)), locate(model_uri)

    def row(**options) -> dict:
        predictor = Predictor(images, source, job(model_uri, tmp_path, tmp_path / "out", **options))
        [table] = predictor(pa.table({"index": [0]}))
        return table.to_pylist()[0]

    plain = row()
    assert len(row(multi_label=False)["labels"]) < len(plain["labels"])
    assert len(row(class_agnostic=True)["labels"]) < len(plain["labels"])
    more = row(test_time_augmentation=True)
    assert max(more["scores"]) >= max(plain["scores"]), "nothing that the plain view sees is lost to a weaker one"
    assert np.max(more["boxes_xyxy"]) <= 128 and more["scores"] != plain["scores"]


class WhiteBox(torch.nn.Module):
    """Detects the white rectangle of each image, wherever it lies, and remembers the shapes of its batches."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        found = []
        for image in images:
            y, x = torch.nonzero(image.amin(dim=0) > 0.75, as_tuple=True)
            x1, x2, y1, y2 = x.min(), x.max() + 1, y.min(), y.max() + 1
            found.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 1.0, 1.0, 0.0])
        return torch.tensor(found)[:, None]


@pytest.mark.parametrize("max_waiting", [64e6, 1.0])
def test_rectangles_are_batched_by_shape_and_give_the_squares_boxes(tmp_path, model_uri, monkeypatch, max_waiting):
    monkeypatch.setattr("yolov7_ray.predict.predictor.WAITING_BYTES", max_waiting)
    sizes_hw = [(96, 128), (128, 60), (62, 128), (128, 128), (20, 128), (33, 33), (96, 128), (60, 128), (128, 128)]
    for number, (height, width) in enumerate(sizes_hw):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[height // 4:height // 2, width // 4:width // 2] = 255
        (tmp_path / f"{number}.png").write_bytes(encode_image(pixels, ".png"))
    rows, shapes = {}, {}
    for rectangular in (False, True):
        predictor = Predictor(FolderImages(str(tmp_path)), locate(model_uri),
                              job(model_uri, tmp_path, "unused", rectangular=rectangular, batch_size=3))
        predictor.detector.engine.model = WhiteBox()
        rows[rectangular] = pa.concat_tables(predictor(pa.table({"index": range(len(sizes_hw))}))).to_pylist()
        shapes[rectangular] = predictor.detector.engine.model.shapes
    assert [row["index"] for row in rows[True]] == list(range(len(sizes_hw)))
    for square, rectangle, (height, width) in zip(rows[False], rows[True], sizes_hw):
        np.testing.assert_allclose(rectangle["boxes_xyxy"], square["boxes_xyxy"], atol=1e-3)
        [box] = rectangle["boxes_xyxy"]
        expected = [width // 4, height // 4, width // 2, height // 2]
        np.testing.assert_allclose(box, expected, atol=max(height, width) / SIZE_PX)
    assert {shape[2:] for shape in shapes[False]} == {(SIZE_PX, SIZE_PX)}
    assert {shape[2:] for shape in shapes[True]} == {(64, 64), (64, 32), (32, 64)}
    assert max(shape[0] for shape in shapes[True]) == (3 if max_waiting > 1 else 1)
    assert sum(shape[0] for shape in shapes[True]) == len(sizes_hw)


def test_the_least_canvas():
    assert least_canvas_hw((480, 640), 640, 32) == (480, 640)
    assert least_canvas_hw((427, 640), 320, 32) == (224, 320)
    assert least_canvas_hw((4000, 1), 640, 64) == (640, 64)


def test_pictures_are_decoded_within_the_budget():
    """Threads wait for each other; one that is larger than the budget goes alone."""
    from yolov7_ray.predict.pixel_budget import PixelBudget

    budget, held, lock, seen = PixelBudget(100), [], threading.Lock(), []

    def decode(num_bytes):
        with budget.of(num_bytes):
            with lock:
                held.append(min(100, 100 if num_bytes is None else num_bytes))
                seen.append(sum(held))
            time.sleep(0.002)
            with lock:
                held.remove(min(100, 100 if num_bytes is None else num_bytes))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 40, 200, None, 10, 100, 60, 50] * 5))
    assert len(seen) == 40 and max(seen) <= 100 and budget._used_bytes == 0


def test_no_picture_is_held_after_it_was_letterboxed(tmp_path, model_uri, monkeypatch):
    """Of 12 pictures of 24 megapixels, batch 12, at most those within the budget are in memory at once."""
    alive, most = weakref.WeakSet(), [0]

    class Picture(np.ndarray):
        """An array that can be watched."""

    def decode(data):
        picture = np.zeros((40, 60, 3), np.uint8).view(Picture)
        alive.add(Alive(picture))
        most[0] = max(most[0], len(alive))
        return picture

    class Alive:
        def __init__(self, picture):
            picture.owner = self  # lives as long as the picture

    monkeypatch.setattr("yolov7_ray.detect.detector.decode_image", decode)
    for i in range(12):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    predictor = Predictor(FolderImages(str(tmp_path)), locate(model_uri), job(model_uri, tmp_path, "x", batch_size=12))
    assert sum(table.num_rows for table in predictor(pa.table({"index": range(12)}))) == 12
    assert most[0] <= 2, f"{most[0]} full pictures at once"


def test_bad_image_of_a_dataset_is_no_end(tmp_path, model_uri):
    """Ingest lets none in, but a dataset may come from elsewhere."""
    class Dataset:
        def truth(self, index):
            return SimpleNamespace(image_id=5, file_name="five.jpg")

        def image_bytes(self, index):
            return b"no image"

    images = object.__new__(DatasetImages)
    images.dataset = Dataset()
    predictor = Predictor(images, locate(model_uri), job(model_uri, tmp_path, "x", reduced_decoding=True))
    [row] = predictor.alone(0).to_pylist()
    assert row["problem"].startswith("five.jpg: decode_image: 8 bytes starting with b'no image'")
    assert predictor.detector.reduced_decoding


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_every_orientation_is_predicted_as_displayed(tmp_path, model_uri, file_format):
    """The same picture stored in eight ways gives the same detections, in pixels of the displayed picture."""
    from PIL import Image
    from yolov7.images.orientation import upright

    inverse = {6: 8, 8: 6}
    displayed = decode_image(jpeg(0))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright(displayed, inverse.get(orientation, orientation))
        options = {"lossless": True} if file_format == "WEBP" else {"quality": 100} if file_format == "JPEG" else {}
        Image.fromarray(stored).save(tmp_path / f"{orientation}.{file_format.lower()}", file_format, exif=exif, **options)
    predictor = Predictor(FolderImages(str(tmp_path)), locate(model_uri),
                          job(model_uri, tmp_path, tmp_path / "out", confidence_threshold=0.001))
    rows = pa.concat_tables(predictor(pa.table({"index": range(8)}))).to_pylist()
    assert {(row["height_px"], row["width_px"]) for row in rows} == {(96, 128)}
    if file_format != "JPEG":
        assert len(rows[0]["boxes_xyxy"]) > 0
        for row in rows:
            np.testing.assert_allclose(row["boxes_xyxy"], rows[0]["boxes_xyxy"], atol=0.01)


def put(folder, **files) -> str:
    """A directory with these files."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_second_run_leaves_nothing_of_the_first(place, tmp_path):
    storage.write_bytes(storage.join(place, "mine.txt"), b"x")
    replace(place, put(tmp_path / "one", a="1", b="1"), {"run": "one"})
    replace(place, put(tmp_path / "two", b="2", c="2"), {"run": "two"})
    assert [info.path for info in storage.list_files(place)] == [
        "mine.txt", "predictions.json", "predictions/b", "predictions/c"]
    summary = storage.read_json(storage.join(place, "predictions.json"))
    assert summary["run"] == "two" and [file["path"] for file in summary["files"]] == ["predictions/b", "predictions/c"]
    assert storage.read_bytes(storage.join(place, "predictions/b"), sha256=summary["files"][0]["sha256"]) == b"2"


@pytest.mark.parametrize("path", ["../x", "predictions/../../x", "/{outside}/x", "predictions/..", ".", "predictions", "",
                                  "predictions/sub/../../../x", "predictions\\..\\x", None, 7, ["../x"]])
def test_a_foreign_summary_removes_nothing_that_is_not_a_result(tmp_path, path):
    """One that somebody else wrote, or that came along with copied files."""
    output = tmp_path / "out"
    for file in (tmp_path / "x", output / "mine.txt", output / "predictions/keep"):
        storage.write_bytes(str(file), b"x")
    if isinstance(path, str):
        path = path.format(outside=tmp_path)
    storage.write_json(str(output / "predictions.json"), {"files": [{"path": path}]})
    replace(str(output), put(tmp_path / "new", b="2"), {"run": "two"})
    assert (tmp_path / "x").exists() and (output / "mine.txt").exists() and (output / "predictions/keep").exists()
    assert storage.read_json(str(output / "predictions.json"))["run"] == "two"


def test_results_behind_a_link_are_left_alone(tmp_path):
    storage.write_bytes(str(tmp_path / "elsewhere/x"), b"x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions").symlink_to(tmp_path / "elsewhere")
    storage.write_json(str(tmp_path / "out/predictions.json"), {"files": [{"path": "predictions/x"}]})
    replace(str(tmp_path / "out"), put(tmp_path / "new", b="2"), {"run": "two"})
    assert (tmp_path / "elsewhere/x").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", "not JSON", '{"files": 3}', '{"files": [3]}'])
def test_a_summary_of_another_kind_is_replaced(tmp_path, text):
    storage.write_bytes(str(tmp_path / "out/predictions.json"), text.encode())
    replace(str(tmp_path / "out"), put(tmp_path / "new", b="2"), {"run": "two"})
    assert storage.read_json(str(tmp_path / "out/predictions.json"))["run"] == "two"


@pytest.mark.ray
def test_image_that_vanishes_is_explained(ray_session, tmp_path, model_uri, monkeypatch):
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    images = FolderImages(str(tmp_path))
    monkeypatch.setattr("yolov7_ray.predict.predict.images_of", lambda spec: images)
    (tmp_path / "0.jpg").unlink()
    replace(str(tmp_path / "out"), put(tmp_path / "new", b="2"), {"run": "earlier"})
    with pytest.raises(NotFound) as error:
        predict(job(model_uri, tmp_path, tmp_path / "out"), "run")
    assert str(error.value).startswith(f"{tmp_path}/0.jpg: ") and "\n" not in str(error.value)
    assert [info.path for info in storage.list_files(str(tmp_path / "out"))] == ["predictions.json", "predictions/b"]


def images_that_kill(folder, *killers: str) -> FolderImages:
    """Images of which some end the process that reads them, as a decoder that crashes does."""
    class Images(FolderImages):  # defined here, so that it travels to the workers by value
        def read(self, index):
            if self.paths[index] in killers:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(index)

    return Images(str(folder))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("killers", [("07.jpg",), ("00.jpg", "01.jpg", "39.jpg")])
def test_an_image_that_kills_its_worker_is_listed_and_the_rest_predicted(
        ray_session, tmp_path, model_uri, monkeypatch, killers):
    (tmp_path / "in").mkdir()
    for i in range(40):
        (tmp_path / f"in/{i:02d}.jpg").write_bytes(jpeg(i))
    monkeypatch.setattr("yolov7_ray.predict.predict.images_of", lambda spec: images_that_kill(tmp_path / "in", *killers))
    output = predict(job(model_uri, tmp_path / "in", tmp_path / "out", confidence_threshold=0.01), "run")["output"]
    table = read_arrow(output)
    assert table["file_name"].to_pylist() == [f"{i:02d}.jpg" for i in range(40) if f"{i:02d}.jpg" not in killers]
    summary = storage.read_json(storage.join(output, "predictions.json"))
    assert (summary["num_images"], summary["num_ended_workers"], summary["num_undecodable"]) == (
        40 - len(killers), len(killers), 0)
    assert summary["undecodable"] == [f"{name}: ended the worker that processed it, also alone" for name in killers]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("max_failures", [0, 1])
def test_workers_that_always_die_end_the_job_and_leave_earlier_results(
        ray_session, tmp_path, model_uri, monkeypatch, max_failures):
    names = [f"{i:02d}.jpg" for i in range(40)]
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(jpeg(i))
    replace(str(tmp_path / "out"), put(tmp_path / "new", b="2"), {"run": "earlier"})
    monkeypatch.setattr("yolov7_ray.predict.predict.images_of", lambda spec: images_that_kill(tmp_path / "in", *names))
    spec = job(model_uri, tmp_path / "in", tmp_path / "out",
               resources={"workers": 1, "cpus_per_worker": 0.5, "max_failures": max_failures})
    with pytest.raises(JobError, match=f"resources.max_failures: more than {max_failures} .*in a row; see the"):
        predict(spec, "run")
    assert storage.read_json(str(tmp_path / "out/predictions.json"))["run"] == "earlier"
    assert (tmp_path / "out/predictions/b").exists()


@pytest.mark.parametrize("values, message", [
    ({"images": "empty"}, "holds no images; give an Arrow dataset, or a directory of images"),
    ({"image_size_px": 70}, "image_size_px: 70 is not a multiple of the model's largest stride 32; choose 64 or 96"),
    ({"model": "nowhere.safetensors"}, "model file does not exist"),
])
def test_mistakes_are_explained_before_anything_starts(tmp_path, model_uri, values, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.jpg").write_bytes(jpeg(0))
    images = tmp_path / values.pop("images", "in")
    spec = job(values.pop("model", model_uri), images, tmp_path / "out", **values)
    with pytest.raises(JobError) as error:
        predict(spec, "run")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_images_of_a_folder_are_found_by_suffix(tmp_path, model_uri):
    for name in ("b.JPG", "a/c.webp", "readme.md", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(0))
    assert images_of(job(model_uri, tmp_path, tmp_path / "out")).paths == ["a/c.webp", "b.JPG"]


def rows(num_rows: int, num_boxes: int) -> pa.Table:
    return pa.Table.from_pylist(
        [{"image_id": i, "file_name": f"{i}.jpg", "width_px": 8, "height_px": 8,
          "boxes_xyxy": [[1, 2, 4, 7]] * num_boxes, "scores": [0.5] * num_boxes, "labels": [1] * num_boxes}
         for i in range(num_rows)], schema=ROW)


def test_arrow_shards_roll_over(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_files, "SHARD_BYTES", 1000)
    with ArrowWriter(tmp_path, CLASSES) as writer:
        for _ in range(6):
            writer.write(rows(2, 3))
    shards = [pa.ipc.open_file(path).read_all() for path in sorted(tmp_path.iterdir())]
    assert len(shards) > 1 and sum(shard.num_rows for shard in shards) == 12


@pytest.mark.parametrize("num_rows, num_boxes", [(0, 0), (2, 0), (2, 3)])
def test_both_formats_hold_nothing_too(tmp_path, num_rows, num_boxes):
    with ArrowWriter(tmp_path, CLASSES) as arrow, CocoWriter(tmp_path, [3, 7]) as coco:
        arrow.write(rows(num_rows, num_boxes))
        coco.write(rows(num_rows, num_boxes))
    assert pa.ipc.open_file(tmp_path / "00000.arrow").read_all().num_rows == num_rows
    assert len(json.loads((tmp_path / "images.json").read_text())) == num_rows
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == num_rows * num_boxes
    assert all(found == {"image_id": found["image_id"], "category_id": 7, "bbox": [1, 2, 3, 5], "score": 0.5}
               for found in results)


def test_json_list_is_json(tmp_path):
    for items in ([], [1], [{"a": "ü"}, None]):
        listed = JsonList(tmp_path / "list.json")
        listed.extend(items)
        listed.close()
        assert json.loads((tmp_path / "list.json").read_text()) == items


def test_category_ids():
    assert category_ids(["dog", "bird", "cat", "cow"], ("cat", "dog"), (3, 7)) == [7, 8, 3, 9]
    assert category_ids(["a", "b"], (), ()) == [1, 2]


def test_a_folder_is_searched_for_the_pictures_that_an_ingest_reads(tmp_path):
    names = {"a.JPG", "b.jfif", "c.gif", "d.avif", "deep/e.pgm"}
    for name in names | {"notes.txt", "f.heic", ".hidden.jpg"}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert set(FolderImages(str(tmp_path)).paths) == names
