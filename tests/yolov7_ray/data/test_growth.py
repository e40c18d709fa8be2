"""Growth: only what changed is written, old contents stay readable, and nothing is ever half a dataset."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import VOC_OBJECT, coco_source, ingest_here, jpeg, make_coco, make_voc, make_yolo, write_coco_json

import submit
from yolov7.architectures.family import architecture
from yolov7.images.config import AugmentConfig
from yolov7_ray import storage
from yolov7_ray.data.doctor.sample_check import sample_check
from yolov7_ray.data.history.diff import diff
from yolov7_ray.data.history.prune import prune
from yolov7_ray.data.history.versions import kept_manifests
from yolov7_ray.data.ingest import growth
from yolov7_ray.data.ingest import ingest as ingest_module
from yolov7_ray.data.manifest import DROPPED, MANIFEST, Shard, kept_fingerprints, load_manifest
from yolov7_ray.data.reading.box_sizes import read_box_sizes
from yolov7_ray.data.reading.dataset import ArrowDataset, train_loader
from yolov7_ray.data.reading.mapped_shard import MappedShard, _without
from yolov7_ray.data.sources.spec import AutoSource, VocSource, YoloSource
from yolov7_ray.errors import JobError, NotFound


def content(uri: str, split: str = "train") -> dict[str, tuple]:
    """File name -> image, size, and objects by class name; the id is left out."""
    dataset = ArrowDataset(uri, split)
    found = {}
    for index in range(len(dataset)):
        shard, row = dataset._locate(index)
        values = shard.values(row)
        assert values["file_name"] not in found
        found[values["file_name"]] = (
            dataset.image_bytes(index), values["height_px"], values["width_px"], values["boxes_xyxy"].tolist(),
            [dataset.classes[label] for label in values["labels"]], values["iscrowd"].tolist(),
            values["area"].tolist(), [[ring.tolist() for ring in rings] for rings in shard.polygons(row)])
    return found


def ids(uri: str, split: str = "train") -> dict[str, int]:
    dataset = ArrowDataset(uri, split)
    places = [dataset._locate(index) for index in range(len(dataset))]
    return {values["file_name"]: values["image_id"] for values in (shard.values(row) for shard, row in places)}


def arrow_files(uri: str) -> dict[str, int]:
    return {info.path: info.num_bytes for info in storage.list_files(uri) if info.path.endswith(".arrow")}


def check_counts(uri: str) -> None:
    """The manifest's counts are those of the rows."""
    for name, split in load_manifest(uri).splits.items():
        dataset = ArrowDataset(uri, name)
        truths = [dataset.truth(index) for index in range(len(dataset))]
        labels = np.concatenate([truth.labels for truth in truths])
        assert np.bincount(labels, minlength=len(dataset.classes)).tolist() == list(split.objects_per_class)
        assert (split.num_rows, split.num_objects) == (len(truths), len(labels))
        assert len(dataset.sizes_hw()) == len(dataset.class_counts()) == len(dataset)
        boxes = [truth.boxes_xyxy[~truth.iscrowd] / max(truth.size_hw) for truth in truths]
        boxes = np.concatenate(boxes)
        np.testing.assert_allclose(read_box_sizes(uri, dataset.manifest, name), boxes[:, 2:] - boxes[:, :2], atol=1e-6)


# --- sources that change: each adds, removes, mends an image and a label, and moves an image --------------


def grow_yolo(root: Path) -> None:
    images, labels = root / "images", root / "labels"
    (images / "train/00-new.jpg").write_bytes(jpeg(50))
    (labels / "train/00-new.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (images / "train/0.jpg").unlink()
    (labels / "train/0.txt").unlink()
    (labels / "train/1.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    (images / "train/2.jpg").write_bytes(jpeg(51))
    os.replace(images / "train/4.jpg", images / "val/4-moved.jpg")
    os.replace(labels / "train/4.txt", labels / "val/4-moved.txt")


def grow_coco(root: Path) -> None:
    train, val = (json.loads((root / f"{split}.json").read_text()) for split in ("train", "val"))
    (root / "train/new.jpg").write_bytes(jpeg(50))
    train["images"] = [{"id": 7, "file_name": "new.jpg", "height": 96, "width": 128},
                       *(image for image in train["images"] if image["id"] not in (100, 104))]
    boxes = [a for a in train["annotations"] if a["image_id"] not in (100, 104)]
    next(a for a in boxes if a["image_id"] == 101)["bbox"] = [1, 2, 3, 4]
    boxes.append({**boxes[0], "id": 1, "image_id": 7, "bbox": [5, 5, 20, 20]})
    (root / "train/0002.jpg").write_bytes(jpeg(51))
    os.replace(root / "train/0004.jpg", root / "val/moved.jpg")
    val["images"].append({"id": 104, "file_name": "moved.jpg", "height": 96, "width": 128})
    val["annotations"] += [a for a in train["annotations"] if a["image_id"] == 104]
    write_coco_json(root / "train.json", train["images"], boxes)
    write_coco_json(root / "val.json", val["images"], val["annotations"])


def grow_voc(root: Path) -> None:
    names = [f"img_{index}" for index in range(20)]
    (root / "JPEGImages/a_new.jpg").write_bytes(jpeg(50))
    box = VOC_OBJECT.format(name="bird", difficult=0, box=(3, 4, 50, 60))
    (root / "Annotations/a_new.xml").write_text(f"<annotation>{box}</annotation>")
    tree = ElementTree.parse(root / "Annotations/img_1.xml")
    tree.find("object/name").text = "cat"
    tree.write(root / "Annotations/img_1.xml")
    (root / "JPEGImages/img_2.jpg").write_bytes(jpeg(51))
    (root / "ImageSets/Main/train.txt").write_text("\n".join(["a_new", *names[1:18]]))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[18:]))
    for path in (root / "JPEGImages/img_0.jpg", root / "Annotations/img_0.xml"):
        path.unlink()


def table(rows: dict[str, list[str]]) -> str:
    return "filename,class,xmin,ymin,xmax,ymax\n" + "".join(
        f"{name},{box}\n" for name, boxes in rows.items() for box in boxes)


def make_csv(root: Path) -> Path:
    """20 images in two tables, which stand for the annotations of many images each."""
    for split, first, last in (("train", 0, 16), ("val", 16, 20)):
        (root / split).mkdir(parents=True)
        for number in range(first, last):
            (root / split / f"{number:02d}.jpg").write_bytes(jpeg(number))
        rows = {f"{number:02d}.jpg": [f"cat,{number},2,60,50", "dog,5,6,40,30"] for number in range(first, last)}
        (root / split / "_annotations.csv").write_text(table(rows))
    return root


def grow_csv(root: Path) -> None:
    rows = {f"{number:02d}.jpg": [f"cat,{number},2,60,50", "dog,5,6,40,30"] for number in range(1, 16) if number != 4}
    rows["01.jpg"] = ["dog,1,2,30,40"]
    (root / "train/00-new.jpg").write_bytes(jpeg(50))
    (root / "train/00.jpg").unlink()
    (root / "train/02.jpg").write_bytes(jpeg(51))
    os.replace(root / "train/04.jpg", root / "val/moved.jpg")
    (root / "train/_annotations.csv").write_text(table({"00-new.jpg": ["cat,1,1,9,9"]} | rows))
    with (root / "val/_annotations.csv").open("a") as file:
        file.write("moved.jpg,cat,4,2,60,50\n")


def auto(root: Path) -> AutoSource:
    return AutoSource(format="auto", uri=str(root))


KINDS = {"csv": (make_csv, auto, grow_csv),
         "coco by auto": (lambda root: make_coco(root, 20), auto, grow_coco),
         "yolo": (lambda root: make_yolo(root, 20), lambda root: YoloSource(format="yolo", uri=str(root)), grow_yolo),
         "coco": (lambda root: make_coco(root, 20), coco_source, grow_coco),
         "voc": (lambda root: make_voc(root, 20), lambda root: VocSource(format="voc", uri=str(root)), grow_voc)}


@pytest.fixture(params=KINDS)
def changing(request, tmp_path):
    """Source section, and the function that changes what lies there."""
    make, source, grow = KINDS[request.param]
    root = make(tmp_path / "raw")
    return source(root), lambda: grow(root)


@pytest.mark.parametrize("shard_mb", [128, 0.01])
def test_a_grown_dataset_holds_what_a_new_one_does(changing, tmp_path, shard_mb):
    (source, grow), uri = changing, str(tmp_path / "d")
    first = ingest_here(source, uri, shard_mb=shard_mb)["fingerprint"]
    before, ids_before, files_before = content(uri), ids(uri), arrow_files(uri)
    grow()
    second = ingest_here(source, uri, shard_mb=shard_mb)["fingerprint"]
    ingest_here(source, str(tmp_path / "new"), shard_mb=shard_mb)
    for split in ("train", "val"):
        assert content(uri, split) == content(str(tmp_path / "new"), split) != before
        values = list(ids(uri, split).values())
        assert len(set(values)) == len(values)
    assert {name: ids(uri)[name] for name in before if name in content(uri)} == {
        name: ids_before[name] for name in before if name in content(uri)}
    check_counts(uri)
    assert files_before.items() <= arrow_files(uri).items()
    assert load_manifest(uri).fingerprint == second != first
    assert content(f"{uri}@{first[:12]}") == before and kept_fingerprints(uri) == [first]
    check_counts(f"{uri}@{first}")
    for name in (uri, f"{uri}@{first[:8]}"):
        assert sample_check(name, ("train", "val"), architecture("yolov7"), 640).findings.num_kinds("error") == 0
    assert ingest_here(source, uri, shard_mb=shard_mb)["fingerprint"] == second, "nothing to do"


@pytest.mark.parametrize("make_source", [coco_source, auto], ids=["coco", "auto"])
def test_ids_of_coco_stay_its_own(tmp_path, make_source):
    root, uri = make_coco(tmp_path / "raw", 20), str(tmp_path / "d")
    ingest_here(make_source(root), uri)
    source_ids, before = load_manifest(uri).source_ids, ids(uri)
    assert source_ids != tuple(range(len(source_ids))), "they tell nothing otherwise"
    grow_coco(root)
    ingest_here(make_source(root), uri)
    assert load_manifest(uri).source_ids == source_ids
    assert ids(uri)["new.jpg"] == 7 and before.items() - ids(uri).items() == {("0000.jpg", 100), ("0004.jpg", 104)}


@pytest.mark.parametrize("kind", ["coco", "yolo", "csv"])
def test_labels_mended_in_a_pooled_source_are_written_anew(tmp_path, kind):
    make, make_source, _ = KINDS[kind]
    root, uri = make(tmp_path / "raw"), str(tmp_path / "d")
    settings = {"splits": {"train": 0.5, "val": 0.5}, "pool": True}
    ingest_here(make_source(root), uri, **settings)
    if kind == "coco":
        document = json.loads((root / "train.json").read_text())
        document["annotations"][0]["bbox"] = [1, 2, 3, 4]
        (root / "train.json").write_text(json.dumps(document))
    elif kind == "yolo":
        (root / "labels/train/1.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    else:
        path = root / "train/_annotations.csv"
        path.write_text(path.read_text().replace("01.jpg,cat,1,2,60,50", "01.jpg,cat,9,2,60,50"))
    before = arrow_files(uri)
    ingest_here(make_source(root), uri, **settings)
    ingest_here(make_source(root), str(tmp_path / "new"), **settings)
    for split in settings["splits"]:
        assert content(uri, split) == content(str(tmp_path / "new"), split)
    new = [shard for shard in load_manifest(uri).shards() if shard.path not in before]
    assert before.keys() <= arrow_files(uri).keys() and sum(shard.num_rows for shard in new) == 1, "only that image"


def test_training_reads_every_image_of_a_grown_dataset_once(tmp_path):
    root, uri = make_yolo(tmp_path / "raw", 20), str(tmp_path / "d")
    source = YoloSource(format="yolo", uri=str(root))
    first = ingest_here(source, uri)["fingerprint"]
    grow_yolo(root)
    ingest_here(source, uri)
    for name in (uri, f"{uri}@{first}"):
        dataset = ArrowDataset(name, "train")
        assert [bool(shard.removed) for shard in dataset.split.shards] == ([True, False] if name == uri else [False])
        steps = train_loader(dataset, size_px=64, augment=AugmentConfig(mosaic=0.0, mixup=0.0), batch_size=4, seed=0,
                             epoch=0, rank=0, world_size=1)
        seen = [image_id for [part] in steps for image_id in part.batch.image_ids.tolist()]
        assert sorted(seen) == list(range(len(dataset))), "a training sample has its index as id"


def test_one_percent_changed_writes_at_most_five_percent(tmp_path):
    root, uri = tmp_path / "raw", str(tmp_path / "d")
    for directory in ("images/train", "labels/train"):
        (root / directory).mkdir(parents=True)
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    image = [cv2.imencode(".jpg", np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8))[1].tobytes()
             for seed in range(8)]
    for number in range(2000):
        (root / f"images/train/{number:04d}.jpg").write_bytes(image[number % 8])
        (root / f"labels/train/{number:04d}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    source = YoloSource(format="yolo", uri=str(root), splits={"train": "images/train"})
    fingerprints, seen = [ingest_here(source, uri, shard_mb=0.2)["fingerprint"]], arrow_files(uri)
    total = sum(seen.values())
    assert len(seen) > 15
    for generation in range(1, 5):
        for number in range(generation, 2000, 100):
            (root / f"labels/train/{number:04d}.txt").write_text("1 0.5 0.5 0.25 0.5\n")
        fingerprints.append(ingest_here(source, uri, shard_mb=0.2)["fingerprint"])
        written = {path: size for path, size in arrow_files(uri).items() if path not in seen}
        assert 0 < sum(written.values()) <= 0.05 * total
        seen |= written
        assert load_manifest(uri).split("train").objects_per_class == (2000 - 20 * generation, 20 * generation)
    assert len(set(fingerprints)) == 5
    assert [len(ArrowDataset(f"{uri}@{fingerprint}", "train")) for fingerprint in fingerprints] == [2000] * 5
    check_counts(uri)


def test_a_crash_before_the_switch_leaves_the_old_dataset(place, tmp_path, monkeypatch):
    root = make_yolo(tmp_path / "raw", 6)
    source = YoloSource(format="yolo", uri=str(root))
    first = ingest_here(source, place)["fingerprint"]
    before = content(place)
    grow_yolo(root)
    for crash in ("save_state", "follow", "_listed", "_remove_obsolete"):
        with monkeypatch.context() as patch:
            patch.setattr(ingest_module, crash, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                ingest_here(source, place)
        if crash != "_remove_obsolete":
            assert load_manifest(place).fingerprint == first and content(place) == before, crash
    second = ingest_here(source, place)["fingerprint"]
    ingest_here(source, str(tmp_path / "new"))
    assert second != first and content(place) == content(str(tmp_path / "new"))
    assert content(f"{place}@{first[:12]}") == before


def test_a_source_that_went_back_after_a_crash(tmp_path, monkeypatch):
    root, uri = make_yolo(tmp_path / "raw", 6), str(tmp_path / "d")
    source = YoloSource(format="yolo", uri=str(root))
    ingest_here(source, uri)
    grow_yolo(root)
    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "save_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest_here(source, uri)
    (root / "labels/train/3.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    ingest_here(source, uri)
    (root / "labels/train/3.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    ingest_here(source, uri)
    ingest_here(source, str(tmp_path / "new"))
    assert content(uri) == content(str(tmp_path / "new"))
    check_counts(uri)


def test_overwrite_forgets(tmp_path):
    root, uri = make_yolo(tmp_path / "raw", 6), str(tmp_path / "d")
    source = YoloSource(format="yolo", uri=str(root))
    first = ingest_here(source, uri)["fingerprint"]
    grow_yolo(root)
    ingest_here(source, uri)
    ingest_here(source, uri, overwrite=True)
    manifest = load_manifest(uri)
    assert manifest.fingerprint == ingest_here(source, str(tmp_path / "new"))["fingerprint"]
    assert set(arrow_files(uri)) == {shard.path for shard in manifest.shards()} and not list(kept_manifests(uri))
    with pytest.raises(NotFound, match=f"no kept fingerprints begin with {first[:12]}; the dataset has"):
        ArrowDataset(f"{uri}@{first[:12]}", "train")


def test_a_damaged_shard_of_a_grown_dataset_is_written_anew(tmp_path):
    root, uri = make_yolo(tmp_path / "raw", 6), str(tmp_path / "d")
    source = YoloSource(format="yolo", uri=str(root))
    ingest_here(source, uri, shard_mb=0.01)
    grow_yolo(root)
    ingest_here(source, uri, shard_mb=0.01)
    storage.delete(storage.join(uri, load_manifest(uri).split("train").shards[0].path))
    ingest_here(source, uri, shard_mb=0.01)
    ingest_here(source, str(tmp_path / "new"))
    assert content(uri) == content(str(tmp_path / "new"))
    check_counts(uri)


# --- classes ----------------------------------------------------------------------------------------------


def test_classes_keep_their_place(tmp_path):
    root, uri = make_voc(tmp_path / "raw", 20), str(tmp_path / "d")
    source = VocSource(format="voc", uri=str(root))
    ingest_here(source, uri)
    grow_voc(root)  # the source's classes are now bird, cat, dog
    ingest_here(source, uri)
    manifest = load_manifest(uri)
    assert (manifest.classes, manifest.source_ids) == (("cat", "dog", "bird"), (0, 1, 2))
    assert len(manifest.split("train").shards) == 2, "what stays was not written again"


def test_a_class_that_is_renamed_in_coco(tmp_path):
    root, uri = make_coco(tmp_path / "raw"), str(tmp_path / "d")
    ingest_here(coco_source(root), uri)
    before = arrow_files(uri)
    for split in ("train", "val"):
        text = (root / f"{split}.json").read_text()
        (root / f"{split}.json").write_text(text.replace('"dog"', '"hound"').replace(
            '"categories": [', '"categories": [{"id": 1, "name": "bird"}, '))
    ingest_here(coco_source(root), uri)
    manifest = load_manifest(uri)
    assert (manifest.classes, manifest.source_ids) == (("cat", "hound", "bird"), (3, 7, 1))
    assert arrow_files(uri) == before, "no image was written"
    check_counts(uri)


def test_a_class_that_comes_to_yolo_names_what_was_unknown(tmp_path):
    root, uri = make_yolo(tmp_path / "raw", 6), str(tmp_path / "d")
    (root / "labels/train/1.txt").write_text("0 0.5 0.5 0.25 0.5\n2 0.5 0.5 0.5 0.5\n")
    source = YoloSource(format="yolo", uri=str(root))
    ingest_here(source, uri, max_loss=0.1)
    assert load_manifest(uri).dropped["unknown class"] == 1
    (root / "data.yaml").write_text("names: [cat, dog, bird]\n")
    ingest_here(source, uri)
    manifest = load_manifest(uri)
    assert "unknown class" not in manifest.dropped and manifest.classes == ("cat", "dog", "bird")
    assert content(uri)["images/train/1.jpg"][4] == ["cat", "bird"]
    assert [len(shard.removed) for shard in manifest.split("train").shards] == [1, 0]
    (root / "data.yaml").write_text("names: [dog, cat, bird]\n")
    ingest_here(source, uri)
    assert content(uri)["images/train/1.jpg"][4] == ["dog", "bird"]
    assert load_manifest(uri).classes == ("cat", "dog", "bird")


# --- losses -----------------------------------------------------------------------------------------------


def test_losses_of_rows_that_stay_are_told_again(tmp_path):
    root, uri = make_coco(tmp_path / "raw"), str(tmp_path / "d")
    document = json.loads((root / "train.json").read_text())
    document["annotations"][0]["bbox"] = [500, 0, 5, 5]
    document["annotations"][6]["bbox"] = [500, 0, 5, 5]
    write_coco_json(root / "train.json", document["images"], document["annotations"])
    (root / "train/0005.jpg").write_bytes(b"nothing")
    ingest_here(coco_source(root), uri, max_loss=0.3)
    document["annotations"][6]["bbox"] = [0, 0, 5, 5]
    write_coco_json(root / "train.json", document["images"], document["annotations"])
    ingest_here(coco_source(root), uri, max_loss=0.3)
    records = [json.loads(line) for line in storage.read_bytes(storage.join(uri, DROPPED)).splitlines()]
    assert [(record["file_name"], record["reason"]) for record in records] == [
        ("0000.jpg", "box outside the image"), ("0005.jpg", "undecodable image")]
    (root / "train/0005.jpg").write_bytes(jpeg(3))
    ingest_here(coco_source(root), uri, max_loss=0.3)
    ingest_here(coco_source(root), str(tmp_path / "new"), max_loss=0.3)
    assert content(uri) == content(str(tmp_path / "new")) and len(content(uri)) == 6
    assert load_manifest(uri).losses == load_manifest(str(tmp_path / "new")).losses


# --- diff and prune ---------------------------------------------------------------------------------------


def test_diff_says_what_came_went_moved_and_changed(tmp_path, capsys):
    root, uri = make_coco(tmp_path / "raw", 20), str(tmp_path / "d")
    first = ingest_here(coco_source(root), uri)["fingerprint"]
    grow_coco(root)
    second = ingest_here(coco_source(root), uri)["fingerprint"]
    expected = [
        f"{uri}@{first[:12]} ({first[:12]}) -> {uri} ({second[:12]})",
        "  before: train 20 images, 40 objects; val 20 images, 40 objects; 2 classes",
        "  now:    train 19 images, 37 objects; val 21 images, 42 objects; 2 classes",
        "  1 image came to train, e.g. new.jpg",
        "  1 image came to val, e.g. moved.jpg",
        "  1 image replaced or written again, with the same labels, e.g. 0002.jpg",
        "  2 images went from train, e.g. 0000.jpg, 0004.jpg",
        "  1 image with other labels, e.g. 0001.jpg"]
    assert diff(uri) == expected
    assert submit.main(["diff", f"{uri}@{first[:12]}", uri]) == 0
    assert capsys.readouterr().out.endswith("\n".join(expected) + "\n")
    back = diff(uri, f"{uri}@{first[:12]}")
    assert "  2 images came to train, e.g. 0000.jpg, 0004.jpg" in back
    assert "  1 image went from val, e.g. moved.jpg" in back
    assert diff(uri, uri)[3:] == ["  no image and no label changed"]
    with pytest.raises(JobError, match="has no content before .* that is kept"):
        diff(f"{uri}@{first[:12]}")


def test_diff_of_two_datasets_and_of_splits_made_anew(tmp_path):
    root = make_yolo(tmp_path / "raw", 6)
    source = YoloSource(format="yolo", uri=str(root), splits={"train": "images/train", "val": "images/val"})
    other = source.model_copy(update={"splits": {"train": "images/val", "val": "images/train"}})
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ingest_here(source, one)
    ingest_here(other, two)
    assert diff(one, two)[3:] == [
        "  6 images came to train, e.g. images/val/0.jpg, images/val/1.jpg, images/val/2.jpg",
        "  6 images came to val, e.g. images/train/0.jpg, images/train/1.jpg, images/train/2.jpg",
        "  6 images went from train, e.g. images/train/0.jpg, images/train/1.jpg, images/train/2.jpg",
        "  6 images went from val, e.g. images/val/0.jpg, images/val/1.jpg, images/val/2.jpg"], "names are not unique"
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        os.replace(root / f"{kind}/train/3.{suffix}", root / f"{kind}/val/moved.{suffix}")
    ingest_here(source, one)
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        os.replace(root / f"{kind}/val/moved.{suffix}", root / f"{kind}/train/moved.{suffix}")
    ingest_here(source, one)
    assert diff(one)[3:] == ["  1 image moved from val to train, e.g. images/train/moved.jpg"]
    (root / "labels/val/0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    ingest_here(source, str(tmp_path / "three"))
    assert diff(one, str(tmp_path / "three"))[3:] == [
        "  1 image with other labels, e.g. images/val/0.jpg", "    objects of cat: -1"], "and moved.jpg is as it was"


def test_prune_removes_what_no_kept_manifest_names(place, tmp_path, capsys):
    root = make_yolo(tmp_path / "raw", 20)
    source = YoloSource(format="yolo", uri=str(root))
    fingerprints = [ingest_here(source, place)["fingerprint"]]
    for number in (7, 9, 11):
        (root / f"labels/train/{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        fingerprints.append(ingest_here(source, place)["fingerprint"])
    storage.write_bytes(storage.join(place, "train/notes.txt"), b"the user's own")
    third, current = content(f"{place}@{fingerprints[2]}"), content(place)
    files = storage.list_files(place)
    assert submit.main(["prune", place]) == 0
    assert storage.list_files(place) == files, "only said"
    assert "would be removed: give --yes" in capsys.readouterr().out
    with pytest.raises(JobError, match="--keep: no kept fingerprint begins with 123456789abc"):
        prune(place, ["123456789abc"], True)
    assert submit.main(["prune", place, "--yes", "--keep", fingerprints[2][:12]]) == 0
    told = capsys.readouterr().out
    assert all(f"{fingerprint[:12]} can be read no more" in told for fingerprint in fingerprints[:2])
    assert kept_fingerprints(place) == [fingerprints[2]]
    assert content(place) == current and content(f"{place}@{fingerprints[2]}") == third
    assert prune(place, [], True)[-1].endswith(f"removed; {fingerprints[3][:12]} stays")
    assert set(arrow_files(place)) == {shard.path for shard in load_manifest(place).shards()}
    assert content(place) == current and storage.exists(storage.join(place, "train/notes.txt"))
    (root / "labels/train/8.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    ingest_here(source, place)
    ingest_here(source, str(tmp_path / "new"))
    assert content(place) == content(str(tmp_path / "new"))


def test_prune_waits_for_an_ingest(tmp_path, monkeypatch):
    root, uri = make_yolo(tmp_path / "raw", 6), str(tmp_path / "d")
    source = YoloSource(format="yolo", uri=str(root))
    ingest_here(source, uri)
    mended, was = root / "labels/train/1.txt", (root / "labels/train/1.txt").stat().st_mtime_ns
    text = mended.read_text()
    mended.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "save_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest_here(source, uri)
    with pytest.raises(JobError, match="an ingest into it is under way, or was interrupted; wait"):
        prune(uri, [], True)
    mended.write_text(text)
    os.utime(mended, ns=(was, was))
    ingest_here(source, uri)  # up to date, and clears away
    assert set(arrow_files(uri)) == {shard.path for shard in load_manifest(uri).shards()}
    prune(uri, [], True)


# --- parts ------------------------------------------------------------------------------------------------


def test_shards_with_many_dead_rows_are_written_anew_within_bounds():
    def shard(num_rows: int, *removed: int) -> Shard:
        return Shard("train/00000-0.arrow", num_rows, 100 * (num_rows + len(removed)), "", removed)

    shards = [shard(100), shard(100), shard(60, *range(40))]
    shard_of = np.repeat([0, 1, 2], [100, 100, 60])
    kept = np.ones(260, bool)
    assert growth._rewritten(shards, shard_of, kept, 0, 1000) == []
    assert growth._rewritten(shards, shard_of, kept, 2000, 1000) == [2]
    kept[:30] = False  # 3,000 bytes go: up to 9,000 more may be written
    assert growth._rewritten(shards, shard_of, kept, 0, 1000) == [2]
    assert growth._rewritten(shards, shard_of, kept, 5000, 1000) == [2, 0]
    many = [shard(1)] * 33 + [shard(4)]
    shard_of = np.repeat(np.arange(34), [1] * 33 + [4])
    assert growth._rewritten(many, shard_of, np.ones(37, bool), 1e6, 1000) == list(range(33))
    assert growth._rewritten(many[2:], shard_of[2:] - 2, np.ones(35, bool), 1e6, 1000) == []


def test_ids_stay_and_new_ones_follow():
    def rows(*entries):
        return np.array([(number, name, image_id) for number, name, image_id in entries], growth.ROW)

    old = rows((10, 1, 0), (20, 2, 1), (30, 3, 2))
    new = rows((5, 9, 0), (10, 1, 1), (21, 2, 2), (40, 4, 7))
    assert growth._stable_ids(old, np.array([-1, 0, -1, -1]), new).tolist() == [8, 0, 1, 7]


def test_removed_rows_are_cut_out_without_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("yolov7_ray.data.ingest.shards.BATCH_BYTES", 5000)
    root, uri = make_coco(tmp_path / "raw", 9), str(tmp_path / "d")
    ingest_here(coco_source(root), uri)
    path = tmp_path / "d" / load_manifest(uri).split("train").shards[0].path
    whole, cut = MappedShard(path), MappedShard(path, (0, 3, 4, 8))
    assert len(whole.batches) > 1 and cut.ends[-1] == 5
    assert [cut.values(row)["image_id"] for row in range(5)] == [101, 102, 105, 106, 107]
    for new, old in enumerate([1, 2, 5, 6, 7]):
        assert cut.image(new) == whole.image(old)
        assert cut.polygons(new)[0][0].tolist() == whole.polygons(old)[0][0].tolist()
    parts = list(_without(whole.batches, (0, 3, 4, 8)))
    images = [{batch.column("image").buffers()[2].address for batch in batches} for batches in (whole.batches, parts)]
    assert images[1] <= images[0]
    assert cut.class_counts(2).tolist() == whole.class_counts(2)[[1, 2, 5, 6, 7]].tolist()


def test_fingerprints_of_first_ingests_do_not_know_of_growth(tmp_path):
    uri = str(tmp_path / "d")
    ingest_here(coco_source(make_coco(tmp_path / "raw")), uri)
    assert "removed" not in (tmp_path / "d" / MANIFEST).read_text()
