"""Ingest: byte for byte, the same fingerprint however it is run, complete or absent, and honest about losses."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from conftest import coco_source, ingest_here, jpeg, make_coco, make_voc, make_yolo, real_data, write_coco_json
from memory import watched
from yolov7_ray import storage
from yolov7_ray.data.ingest import ingest as ingest_module
from yolov7_ray.data.ingest.ingest import REFUSED, ingest
from yolov7_ray.data.ingest.rows import CLIPPED, LEFT_OUT
from yolov7_ray.data.ingest.shards import plan_shards, write_shard
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.manifest import ARROW_SCHEMA, DROPPED, load_manifest
from yolov7_ray.data.reading.columns import read_columns
from yolov7_ray.data.sources.item import Item
from yolov7_ray.data.sources.spec import CocoSource, ShapesSource, VocSource, YoloSource
from yolov7_ray.errors import AlreadyExists, JobError
from yolov7_ray.jobs.progress_line import ProgressLine

SHAPES = ShapesSource(format="shapes", splits={"train": 12, "val": 4}, image_size_px=64)


def spec(source, dataset: str, **settings) -> IngestSpec:
    return IngestSpec(kind="ingest", source=source, dataset=dataset, **settings)


def files(uri: str) -> dict[str, bytes]:
    return {info.path: storage.read_bytes(storage.join(uri, info.path)) for info in storage.list_files(uri)}


def rows(uri: str, split: str = "train") -> list[dict]:
    tables = [read_columns(uri, shard, ARROW_SCHEMA.names) for shard in load_manifest(uri).split(split).shards]
    return pa.concat_tables(tables).to_pylist()


# --- what is written ------------------------------------------------------------------------------------


def test_images_are_stored_byte_for_byte(place, tmp_path):
    outputs = ingest_here(coco_source(make_coco(tmp_path / "raw")), place)
    manifest = load_manifest(place)
    assert outputs == {"dataset": place, "fingerprint": manifest.fingerprint}
    assert [row["image"] for row in rows(place)] == [jpeg(100 + index) for index in range(6)]
    train = manifest.split("train")
    assert (train.num_rows, train.num_objects, train.objects_per_class) == (6, 12, (6, 6))
    for shard in train.shards:
        data = storage.read_bytes(storage.join(place, shard.path), shard.sha256)
        assert len(data) == shard.num_bytes
        assert pa.ipc.open_file(data).schema == ARROW_SCHEMA
    assert set(files(place)) == {"dataset.json", DROPPED, *(s.path for p in manifest.splits.values() for s in p.shards)}


def test_shards_are_planned_by_the_input_alone():
    items = [Item(image_id=i, file_name=str(i), num_bytes=size, mark="") for i, size in enumerate([5, 5, 5, 99, 1, 1])]
    assert [[item.image_id for item in group] for group in plan_shards(items, 10)] == [[0, 1], [2], [3], [4, 5]]
    assert list(plan_shards([], 10)) == []


def test_many_batches_make_one_shard(tmp_path, monkeypatch):
    monkeypatch.setattr("yolov7_ray.data.ingest.shards.BATCH_BYTES", 5000)
    ingest_here(SHAPES, str(tmp_path / "d"))
    shard = load_manifest(str(tmp_path / "d")).split("train").shards[0]
    assert pa.ipc.open_file(tmp_path / "d" / shard.path).num_record_batches > 2
    assert [row["image_id"] for row in rows(str(tmp_path / "d"))] == list(range(12))


# --- the same input, the same dataset -------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("make", ["shapes", "coco", "yolo", "voc"])
def test_fingerprint_depends_on_the_input_alone(ray_session, tmp_path, s3, make):
    def source(uri: str):
        return {"shapes": lambda: SHAPES, "coco": lambda: coco_source(uri),
                "yolo": lambda: YoloSource(format="yolo", uri=uri),
                "voc": lambda: VocSource(format="voc", uri=uri)}[make]()

    raw = tmp_path / "raw"
    {"shapes": lambda _: None, "coco": make_coco, "yolo": make_yolo, "voc": make_voc}[make](raw)
    if raw.exists():
        storage.upload_directory(raw, f"{s3}/raw")
    shard_mb = 0.01  # several shards, so that Ray really runs them in parallel
    serial = ingest_here(source(str(raw)), str(tmp_path / "serial"), shard_mb=shard_mb)
    parallel = ingest(spec(source(f"{s3}/raw"), f"{s3}/dataset", shard_mb=shard_mb), "run")
    assert len(load_manifest(f"{s3}/dataset").split("train").shards) > 1
    assert serial["fingerprint"] == parallel["fingerprint"]
    shards = {path: data for path, data in files(str(tmp_path / "serial")).items() if path.endswith(".arrow")}
    assert shards == {path: data for path, data in files(f"{s3}/dataset").items() if path.endswith(".arrow")}


@pytest.mark.ray
def test_real_coco(ray_session, tmp_path, capsys):
    uri = str(tmp_path / "d")
    ingest(spec(CocoSource(format="coco", uri=str(real_data("coco-tiny"))), uri), "ingest-coco")
    manifest = load_manifest(uri)
    assert (manifest.split("train").num_rows, manifest.split("val").num_rows, len(manifest.classes)) == (80, 80, 80)
    assert "ingest-coco: train 80 images, 705 objects; val 80 images, 815 objects" in capsys.readouterr().out


# --- losses ---------------------------------------------------------------------------------------------


@pytest.fixture
def bad_source(tmp_path):
    root = make_coco(tmp_path / "raw", 3)
    document = json.loads((root / "train.json").read_text())
    good = document["annotations"][0]
    document["annotations"] += [{**good, "id": 1, "bbox": [500, 0, 5, 5]}, {**good, "id": 2, "category_id": 1},
                                {**good, "id": 3, "bbox": [-4, 0, 9, 9]}]
    write_coco_json(root / "train.json", document["images"] + document["images"][:1], document["annotations"])
    (root / "train/0002.jpg").write_bytes(b"GIF89 no")
    return coco_source(root)


def test_bad_rows_are_dropped_and_listed(place, bad_source, capsys):
    with pytest.raises(JobError, match=r"1 of 6 images would be lost, most to: undecodable image .*0002.jpg.*max_loss: 0.17"):
        ingest_here(bad_source, place)
    assert not storage.exists(storage.join(place, "dataset.json")) and storage.exists(storage.join(place, REFUSED))
    with pytest.raises(JobError, match="4 of 15 objects would be lost, most to: object of an image lost to: undecodable"):
        ingest_here(bad_source, place, max_loss=0.17)
    ingest_here(bad_source, place, max_loss=0.27)
    assert not storage.exists(storage.join(place, REFUSED))
    manifest = load_manifest(place)
    assert manifest.dropped == {"box outside the image": 1, "image listed twice": 1, "unknown class": 1,
                                "undecodable image": 1, CLIPPED: 1,
                                "object of an image lost to: undecodable image": 2}
    lines = [json.loads(line) for line in storage.read_bytes(storage.join(place, DROPPED)).splitlines()]
    assert [(line["reason"], line["dropped"], line["image_id"]) for line in lines] == [
        ("image listed twice", None, None), ("box outside the image", "object", 100),
        ("unknown class", "object", 100), (CLIPPED, None, 100), ("undecodable image", "image", 102)]
    assert lines[1]["file_name"] == "0000.jpg" and "500.0" in lines[1]["detail"]
    assert [len(row["labels"]) for row in rows(place)] == [3, 2]
    printed = capsys.readouterr().out
    assert printed.index("1 x undecodable image (image dropped), e.g. train: 0002.jpg") < printed.index("1 x unknown class")
    assert DROPPED in printed


def test_strict_stops_at_the_first(tmp_path, bad_source):
    with pytest.raises(JobError, match="train: 0000.jpg: box outside the image.*strict: false"):
        ingest_here(bad_source, str(tmp_path / "d"), strict=True)
    assert not storage.exists(str(tmp_path / "d/dataset.json"))


@pytest.mark.ray
def test_strict_in_ray_is_the_same_error(ray_session, tmp_path):
    root = make_coco(tmp_path / "raw", 2)
    (root / "val/0001.jpg").write_bytes(b"nothing")
    with pytest.raises(JobError, match="val: 0001.jpg: undecodable image: 7 bytes; repair the source"):
        ingest(spec(coco_source(root), str(tmp_path / "d"), strict=True), "run")


def test_a_clipped_box_is_no_reason_to_stop(tmp_path):
    root = make_coco(tmp_path / "raw", 2)
    (root / "val.json").write_text((root / "val.json").read_text().replace("[10, 20, 30, 40]", "[-1, 20, 30, 40]"))
    ingest_here(coco_source(root), str(tmp_path / "d"), strict=True)
    assert load_manifest(str(tmp_path / "d")).dropped == {CLIPPED: 2}


def test_a_split_without_images(tmp_path):
    root = make_coco(tmp_path / "raw", 2)
    for image in (root / "val").iterdir():
        image.write_bytes(b"")
    with pytest.raises(JobError, match=r"source.splits.val: every image is lost: 2 x undecodable image"):
        ingest_here(coco_source(root), str(tmp_path / "d"))
    write_coco_json(root / "val.json", [], [])
    with pytest.raises(JobError, match="source.splits.val: holds no images; .*check"):
        ingest_here(coco_source(root), str(tmp_path / "d"))
    assert not storage.exists(str(tmp_path / "d/dataset.json"))


# --- classes --------------------------------------------------------------------------------------------


def test_chosen_classes_in_the_chosen_order(tmp_path):
    root, uri = make_coco(tmp_path / "raw"), str(tmp_path / "d")
    ingest_here(coco_source(root), uri, classes=["dog"])
    manifest = load_manifest(uri)
    assert (manifest.classes, manifest.source_ids, manifest.dropped) == (("dog",), (7,), {LEFT_OUT: 12})
    assert [row["labels"] for row in rows(uri)] == [[0]] * 6
    ingest_here(coco_source(root), uri, classes=["dog", "cat"], overwrite=True)
    assert [row["labels"] for row in rows(uri)] == [[1, 0]] * 6


@pytest.mark.parametrize("classes, message", [
    (["dog", "cow"], "classes: 'cow' is not in the source; the source has cat, dog"),
    ([], "classes: is empty"), (["dog", "dog"], "repeats a name")])
def test_impossible_classes(tmp_path, classes, message):
    with pytest.raises(JobError, match=message):
        ingest_here(coco_source(make_coco(tmp_path / "raw")), str(tmp_path / "d"), classes=classes)


def test_classes_without_objects_are_mentioned(tmp_path, capsys):
    root = make_coco(tmp_path / "raw", 2)
    (root / "val.json").write_text((root / "val.json").read_text().replace('"category_id": 7', '"category_id": 3'))
    ingest_here(coco_source(root), str(tmp_path / "d"))
    assert "split val has no object of dog" in capsys.readouterr().out


# --- again ----------------------------------------------------------------------------------------------


def test_the_same_job_again_does_nothing(place, tmp_path, monkeypatch, capsys):
    source = coco_source(make_coco(tmp_path / "raw"))
    first = ingest_here(source, place)
    before = {info.path: info.mark for info in storage.list_files(place)}
    monkeypatch.setattr(ingest_module, "_write_shards", lambda _: pytest.fail("worked again"))
    assert ingest_module.ingest(spec(source, place), "again") == first
    assert {info.path: info.mark for info in storage.list_files(place)} == before
    assert "up to date" in capsys.readouterr().out


def test_another_dataset_is_not_replaced_unasked(place, tmp_path):
    ingest_here(SHAPES, place)
    other = ShapesSource(format="shapes", splits={"train": 3, "val": 2}, image_size_px=64)
    before = files(place)
    with pytest.raises(AlreadyExists, match="holds another dataset already .train 12 images.*overwrite: true"):
        ingest_here(other, place)
    assert files(place) == before
    storage.write_bytes(storage.join(place, "train/notes.txt"), b"the user's own")
    ingest_here(other, place, overwrite=True)
    manifest = load_manifest(place)
    assert manifest.split("train").num_rows == 3
    assert set(files(place)) == {"dataset.json", DROPPED, "train/notes.txt",
                                 *(shard.path for split in manifest.splits.values() for shard in split.shards)}


def test_changed_input_is_noticed(tmp_path):
    root, uri = make_coco(tmp_path / "raw"), str(tmp_path / "d")
    ingest_here(coco_source(root), uri)
    (root / "train/0000.jpg").write_bytes(jpeg(77))
    ingest_here(coco_source(root), uri)
    assert {row["file_name"]: row["image"] for row in rows(uri)}["0000.jpg"] == jpeg(77)  # see test_growth
    with pytest.raises(AlreadyExists):
        ingest_here(coco_source(root), uri, classes=["dog"])


def test_a_damaged_dataset_is_completed(place):
    first = ingest_here(SHAPES, place, shard_mb=0.01)
    storage.delete(storage.join(place, load_manifest(place).split("train").shards[1].path))
    assert ingest_here(SHAPES, place, shard_mb=0.01) == first
    shard = load_manifest(place).split("train").shards[1]
    storage.read_bytes(storage.join(place, shard.path), shard.sha256)


def test_interrupted_jobs_leave_no_dataset_and_go_on(place, monkeypatch):
    written = []

    def interrupted(tasks):
        for task in tasks:
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(task.name)
            yield write_shard(task)

    monkeypatch.setattr(ingest_module, "_run", interrupted)
    job = spec(SHAPES, place, shard_mb=0.01)
    with pytest.raises(KeyboardInterrupt):
        ingest_module.ingest(job, "run")
    with pytest.raises(JobError, match="there is no dataset here"):
        load_manifest(place)
    remaining = []
    monkeypatch.setattr(ingest_module, "_run",
                        lambda tasks: (remaining.append(t.name) or write_shard(t) for t in tasks))
    ingest_module.ingest(job, "run")
    assert not set(written) & set(remaining) and len(written) == 3
    uninterrupted = ingest_here(SHAPES, f"{place}-other", shard_mb=0.01)
    assert load_manifest(place).fingerprint == uninterrupted["fingerprint"]
    assert not any(info.path.startswith(".") for info in storage.list_files(f"{place}/.ingest"))


@pytest.mark.ray
@pytest.mark.slow
def test_killed_driver_then_again(ray_session, tmp_path):
    uri = str(tmp_path / "d")
    job = spec(ShapesSource(format="shapes", splits={"train": 3000}, image_size_px=96), uri, shard_mb=0.2)
    code = ("import sys; from unittest import mock; "
            "from yolov7_ray.data.ingest import ingest as ingest_module, shards; "
            "from yolov7_ray.data.ingest.spec import IngestSpec; "
            "ingest_module._run = lambda tasks: map(shards.write_shard, tasks); "
            "ingest_module.ingest(IngestSpec.model_validate_json(sys.argv[1]), 'killed')")
    process = subprocess.Popen([sys.executable, "-c", code, job.model_dump_json()])
    deadline = time.monotonic() + 240
    while len(storage.list_files(uri)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    left = {info.path: info.mark for info in storage.list_files(uri)}
    assert 3 <= len(left) and "dataset.json" not in left
    ingest(job, "again")
    after = {info.path: info.mark for info in storage.list_files(uri)}
    assert load_manifest(uri).split("train").num_rows == 3000
    assert sum(after.get(path) == mark for path, mark in left.items()) >= len(left) - 1  # kept, not written again


def test_missing_source(tmp_path):
    with pytest.raises(JobError, match="there is no such file; check source.uri"):
        ingest_here(coco_source(tmp_path / "no"), str(tmp_path / "d"))
    shutil.rmtree(tmp_path / "d", ignore_errors=True)


# --- memory ---------------------------------------------------------------------------------------------


LARGEST_GROWTH_MB = 40


def make_large_coco(root: Path, num_images: int) -> Path:
    """`make_coco` with one split of 640 px images of 0.3 MB, all links to a few files."""
    images = [cv2.imencode(".jpg", np.random.default_rng(seed).integers(0, 255, (640, 640, 3), np.uint8))[1]
              for seed in range(4)]
    (root / "train").mkdir(parents=True)
    for index in range(num_images):
        path = root / f"train/{index}.jpg"
        path.write_bytes(images[index].tobytes()) if index < 4 else path.hardlink_to(root / f"train/{index % 4}.jpg")
    ring = [float(value) for value in range(40)]
    write_coco_json(root / "train.json", [{"id": index, "file_name": f"{index}.jpg"} for index in range(num_images)],
                    [{"id": index, "image_id": index // 5, "category_id": 3, "bbox": [9, 9, 99, 99],
                      "segmentation": [ring]} for index in range(5 * num_images)])
    return root


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="looks memory up in /proc")
def test_memory_does_not_grow_with_the_data(ray_session, tmp_path):
    for name, num_images in ("small", 25), ("large", 25 * 20):
        source = coco_source(make_large_coco(tmp_path / name, num_images), ("train",))
        with watched("_write_row") as memory:
            ingest(spec(source, str(tmp_path / f"{name}-dataset"), shard_mb=4), name)
    data_mb = sum(info.num_bytes for info in storage.list_files(str(tmp_path / "large-dataset"))) / 1e6
    assert data_mb > 4 * LARGEST_GROWTH_MB
    first = max(len(memory.driver_mb) // 4, 1)
    growth_mb = [max(samples) - max(samples[:first]) for samples in (memory.driver_mb, *memory.workers_mb.values())]
    assert len(growth_mb) > 1 and max(growth_mb) < LARGEST_GROWTH_MB


# --- progress -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere():
    for stream in (Terminal(), io.StringIO()):
        line = ProgressLine("ingest", 200, "images", stream)
        line.advance(50, "3 MB")
        line.advance(150)
        line.close()
        shown = stream.getvalue()
        assert "\n" not in shown
        assert ("50/200 images" in shown and "200/200" in shown and "3 MB" in shown) == stream.isatty()
    assert shown == ""
