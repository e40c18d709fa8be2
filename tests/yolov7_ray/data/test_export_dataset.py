"""Back out: a dataset exported and ingested again holds the same images and boxes."""

import json

import numpy as np
import pytest
from conftest import coco_source, ingest_here, make_coco, make_voc, make_yolo

from yolov7_ray.data.export.export import export
from yolov7_ray.data.export.spec import ExportDatasetSpec
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.data.sources.spec import CocoSource, VocSource, YoloSource
from yolov7_ray.errors import JobError

BACK = {"coco": lambda uri: CocoSource(format="coco", uri=uri, splits={
            split: {"images": split, "annotations": f"annotations/instances_{split}.json"}
            for split in ("train", "val")}),
        "yolo": lambda uri: YoloSource(format="yolo", uri=uri),
        "voc": lambda uri: VocSource(format="voc", uri=uri)}


def round_trip(tmp_path, source, kind: str) -> tuple[str, str]:
    first, exported, second = (str(tmp_path / name) for name in ("first", "exported", "second"))
    ingest_here(source, first)
    export(ExportDatasetSpec(kind="export-dataset", dataset=first, format=kind, output=exported), "export")
    ingest_here(BACK[kind](exported), second)
    return first, second


def same(first: str, second: str, kept=lambda iscrowd: np.ones(len(iscrowd), bool)) -> None:
    for split in load_manifest(first).splits:
        one, two = ArrowDataset(first, split), ArrowDataset(second, split)
        assert len(one) == len(two)
        for index in range(len(one)):
            before, after = one.truth(index), two.truth(index)
            chosen = kept(before.iscrowd)
            assert one.image_bytes(index) == two.image_bytes(index)
            np.testing.assert_array_equal(before.boxes_xyxy[chosen], after.boxes_xyxy)
            assert [one.classes[label] for label in before.labels[chosen]] == [
                two.classes[label] for label in after.labels]
            np.testing.assert_array_equal(before.iscrowd[chosen], after.iscrowd)


def test_coco_is_the_same_dataset(tmp_path):
    first, second = round_trip(tmp_path, coco_source(make_coco(tmp_path / "raw")), "coco")
    assert load_manifest(first).fingerprint == load_manifest(second).fingerprint
    document = json.loads((tmp_path / "exported/annotations/instances_train.json").read_text())
    assert document["images"][0] == {"id": 100, "file_name": "0000.jpg", "height": 96, "width": 128}
    assert document["annotations"][1] == {"id": 2, "image_id": 100, "category_id": 7, "bbox": [50.5, 8, 60, 64],
                                          "area": 3840, "iscrowd": 0, "segmentation": []}


def test_pycocotools_reads_the_export(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    round_trip(tmp_path, coco_source(make_coco(tmp_path / "raw")), "coco")
    loaded = coco.COCO(str(tmp_path / "exported/annotations/instances_val.json"))
    assert sorted(loaded.imgs) == list(range(200, 206)) and loaded.loadCats(7)[0]["name"] == "dog"


@pytest.mark.parametrize("make", [make_coco, make_yolo])
def test_yolo_has_the_same_boxes_without_crowds(tmp_path, make, capsys):
    raw = make(tmp_path / "raw")
    source = coco_source(raw) if make is make_coco else BACK["yolo"](str(raw))
    same(*round_trip(tmp_path, source, "yolo"), np.logical_not)
    assert ("2 x crowd left out: YOLO has none" in capsys.readouterr().out) == (make is make_coco)


@pytest.mark.parametrize("make", [make_coco, make_voc])
def test_voc_has_the_same_boxes(tmp_path, make):
    raw = make(tmp_path / "raw")
    same(*round_trip(tmp_path, coco_source(raw) if make is make_coco else BACK["voc"](str(raw)), "voc"))


def test_two_images_that_would_share_a_label_file_are_refused(tmp_path):
    raw = make_yolo(tmp_path / "raw")
    (raw / "images/train/0.png").write_bytes((raw / "images/train/0.jpg").read_bytes())
    with pytest.raises(JobError, match="train: images/train/0.png: has the name of another image but for its ending"):
        round_trip(tmp_path, BACK["yolo"](str(raw)), "yolo")
