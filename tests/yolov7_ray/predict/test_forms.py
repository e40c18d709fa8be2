"""What predictions become: CSV, YOLO labels, drawn images, a contact sheet."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import jpeg

from yolov7.architectures.family import architecture
from yolov7.checkpoints.weights import save_model
from yolov7.images.draw import class_color
from yolov7.images.sample import decode_image
from yolov7.model.detector import build_model
from yolov7_ray import storage
from yolov7_ray.jobs.kinds import kind_named
from yolov7_ray.predict import predict as room
from yolov7_ray.predict.drawing import ContactSheet, drawn
from yolov7_ray.predict.images import FolderImages
from yolov7_ray.predict.output import replace
from yolov7_ray.predict.predictor import Predictor
from yolov7_ray.predict.results import ROW, Names
from yolov7_ray.predict.spec import PredictSpec
from yolov7_ray.registry.model_source import locate

CLASSES = ["dog", "bird"]
ROWS = [{"image_id": 3, "file_name": "a/one.jpg", "width_px": 100, "height_px": 50, "boxes_xyxy": [[10, 5, 30, 25], [0, 0, 100, 50]],
         "scores": [0.75, 0.5], "labels": [1, 0]},
        {"image_id": 4, "file_name": "a/two, with a comma.png", "width_px": 20, "height_px": 20, "boxes_xyxy": [], "scores": [],
         "labels": []}]


def written(form: str, directory) -> None:
    with room.WRITERS[form](directory, CLASSES, [1, 2]) as writer:
        for row in ROWS:
            writer.write(pa.Table.from_pylist([row], schema=ROW))


def test_csv_has_a_line_for_each_detection_and_one_for_each_image(tmp_path):
    written("csv", tmp_path)
    found = list(csv.DictReader(io.StringIO((tmp_path / "detections.csv").read_text())))
    assert [(row["file_name"], row["x1"], row["y2"], row["score"], row["class"]) for row in found] == [
        ("a/one.jpg", "10.0", "25.0", "0.75", "bird"), ("a/one.jpg", "0.0", "50.0", "0.5", "dog")]
    images = list(csv.reader(io.StringIO((tmp_path / "images.csv").read_text())))
    assert images[1:] == [["3", "a/one.jpg", "100", "50", "2"], ["4", "a/two, with a comma.png", "20", "20", "0"]]


def test_yolo_labels_are_shares_of_the_image(tmp_path):
    written("yolo", tmp_path)
    assert (tmp_path / "labels/a/one.txt").read_text() == (
        "1 0.200000 0.300000 0.200000 0.400000 0.750000\n0 0.500000 0.500000 1.000000 1.000000 0.500000\n")
    assert (tmp_path / "labels/a/two, with a comma.txt").read_text() == "", "looked at, and nothing found"
    assert (tmp_path / "classes.txt").read_text() == "dog\nbird\n"


def test_names_mirror_the_images_never_meet_and_never_leave_the_folder(tmp_path):
    names = Names(tmp_path, ".txt")
    given = ["a/1.jpg", "a/1.png", "a/1.png", "../../x.jpg", "/etc/y.jpg", "..", "b\\2.jpg", ".hidden.jpg"]
    found = [names.path(name).relative_to(tmp_path).as_posix() for name in given]
    assert found == ["a/1.txt", "a/1.png.txt", "a/1.png-2.txt", "x.txt", "etc/y.txt", "image.txt", "b/2.txt", "hidden.txt"]


@pytest.mark.parametrize("side_px", [24, 128, 1000])
def test_every_detection_is_drawn_also_more_than_a_hundred(side_px):
    boxes = [[side_px * x / 20, side_px * y / 20, side_px * (x + 1) / 20, side_px * (y + 1) / 20] for x in range(20) for y in range(6)]
    row = {"boxes_xyxy": boxes, "scores": np.linspace(1, .1, 120), "labels": [1] * 120}
    picture = decode_image(drawn(np.zeros((side_px, side_px, 3), np.uint8), row, CLASSES))
    assert max(picture.shape) >= 480 and picture.shape[0] % side_px == 0
    scale = picture.shape[0] / side_px
    last = picture[int(side_px * 5.5 / 20 * scale), int(side_px * scale) - 1]
    assert np.abs(last.astype(int) - class_color(1)).max() < 90, "the last one's right side; JPEG blurs it"


def test_the_contact_sheet_holds_the_first_images(tmp_path):
    sheet = ContactSheet()
    sheet.write(tmp_path)
    assert not list(tmp_path.iterdir())
    for number in range(30):
        sheet.add(jpeg(number, 480, 640))
    sheet.write(tmp_path)
    assert decode_image((tmp_path / "contact-sheet.jpg").read_bytes()).shape == (5 * 240, 5 * 320, 3)


def test_nested_results_take_the_place_of_earlier_ones(tmp_path):
    output = str(tmp_path / "out")
    for names in (("labels/a/1.txt", "labels/2.txt"), ("labels/2.txt", "drawn/2.jpg")):
        folder = tmp_path / names[0].replace("/", "-")
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        replace(output, folder, {})
    assert [info.path for info in storage.list_files(output)] == [
        "predictions.json", "predictions/drawn/2.jpg", "predictions/labels/2.txt"]


# --- the whole job, its workers in this process -------------------------------------------------------


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = build_model(architecture("yolov7-tiny").scaled(depth=0.33, width=0.25), num_classes=len(CLASSES))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, model, CLASSES, image_size_px=64)
    return str(path)


@pytest.fixture
def job(model_uri, tmp_path, monkeypatch):
    """Makes a job over three good images and a broken one."""
    for path, data in {"in/b/1.jpg": jpeg(1), "in/b/2.png": jpeg(2), "in/3.jpg": jpeg(3), "in/bad.jpg": b"none"}.items():
        storage.write_bytes(str(tmp_path / path), data)
    monkeypatch.setattr(room, "results", lambda images, source, spec: Predictor(images, source, spec)(
        pa.table({"index": range(len(images))})))
    return lambda **values: PredictSpec(kind="predict", model=model_uri, images=str(tmp_path / "in"), output=str(tmp_path / "out"),
                                        **{"confidence_threshold": 1e-4, "batch_size": 2} | values)


def test_a_job_that_draws_leaves_every_image_and_a_sheet(job, tmp_path):
    outputs = room.predict(job(draw=True, format="yolo"), "run")
    assert outputs == {"output": str(tmp_path / "out"), "sheet": str(tmp_path / "out/predictions/contact-sheet.jpg")}
    files = {info.path for info in storage.list_files(str(tmp_path / "out/predictions"))}
    assert files == {"classes.txt", "contact-sheet.jpg", "undecodable.json", *(
        f"{folder}/{name}{suffix}" for folder, suffix in (("labels", ".txt"), ("drawn", ".jpg")) for name in ("b/1", "b/2", "3"))}
    assert decode_image((tmp_path / "out/predictions/drawn/3.jpg").read_bytes()).shape == (4 * 96, 4 * 128, 3)
    summary = storage.read_json(str(tmp_path / "out/predictions.json"))
    assert len(summary["files"]) == len(files) and summary["num_undecodable"] == 1


def test_a_job_keeps_the_best_detections_alone(job, tmp_path):
    room.predict(job(format="csv", max_detections=3), "run")
    images = list(csv.DictReader(io.StringIO((tmp_path / "out/predictions/images.csv").read_text())))
    assert [row["num_detections"] for row in images] == ["3", "3", "3"]
    assert not (tmp_path / "out/predictions/drawn").exists()


def test_nothing_is_read_twice_unless_it_is_drawn(job, model_uri, monkeypatch):
    read: list[int] = []
    images = FolderImages(job().images)
    counted = SimpleNamespace(file_name=images.file_name, read=lambda index: (read.append(index), images.read(index))[1])
    for draw, times in ((False, 1), (True, 2)):
        read.clear()
        tables = list(Predictor(counted, locate(model_uri), job(draw=draw))(pa.table({"index": [0, 1]})))
        assert sorted(read) == sorted([0, 1] * times)
        assert [row["drawn"] is not None for table in tables for row in table.to_pylist()] == [draw, draw]


def test_the_next_step_is_to_look_and_then_to_serve(job):
    kind = kind_named("predict")
    assert kind.next_command(job(), {}).endswith("-drawn --set draw=true")
    served = kind.next_command(job(draw=True), {})
    assert served.startswith("python submit.py jobs/serve-detector.yaml --set models.detector.model=")
