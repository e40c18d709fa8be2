"""Back out: a dataset exported and ingested again holds the same images and boxes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import coco_source, ingest_here, jpeg, make_coco, make_voc, make_yolo
from PIL import Image

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


def round_trip(root, source, kind: str, images: bool | str = True) -> tuple[str, str]:
    first, exported, second = (f"{root}/{name}" for name in ("first", "exported", "second"))
    ingest_here(source, first)
    export(ExportDatasetSpec(kind="export-dataset", dataset=first, format=kind, output=exported, images=images), "export")
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


def test_yolo_has_one_directory_called_images(tmp_path):
    (tmp_path / "raw").mkdir()
    for name, content in {"data.yaml": b"names: [cat]", "train/images/x.jpg": jpeg(0), "train/labels/x.txt": b"0 .5 .5 .2 .2"}.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(content)
    same(*round_trip(tmp_path, BACK["yolo"](str(tmp_path / "raw")), "yolo"))
    files = {path.relative_to(tmp_path / "exported").as_posix() for path in (tmp_path / "exported").rglob("*.*") if path.is_file()}
    assert files == {"data.yaml", "train.txt", "images/train/train/x.jpg", "labels/train/train/x.txt"}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_images_are_linked_where_they_are_files_on_the_same_disk(tmp_path, kind, capsys):
    raw = make_yolo(tmp_path / "raw")
    same(*round_trip(tmp_path, BACK["yolo"](str(raw)), kind, images="link"))
    linked = [path for path in Path(tmp_path / "exported").rglob("*.jpg") if path.stat().st_nlink > 1]
    assert len(linked) == len(list(Path(raw).rglob("*.jpg"))) and "another disk" not in capsys.readouterr().out
    changed = next(iter(sorted(Path(raw).rglob("*.jpg"))))
    content = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(content[:-1] + b"x")
    export(ExportDatasetSpec(kind="export-dataset", dataset=f"{tmp_path}/first", format=kind, output=f"{tmp_path}/again",
                             images="link"), "export")
    assert "1 x image that is no file of the source any more, or on another disk: written" in capsys.readouterr().out
    [copied] = [path for path in Path(tmp_path / "again").rglob("*.jpg") if path.stat().st_nlink == 1]
    assert copied.read_bytes() == content


def test_links_need_two_local_directories(tmp_path, s3):
    raw = make_yolo(tmp_path / "raw")
    with pytest.raises(JobError, match="images: link: the source is .*raw, and the output s3://.*two local directories"):
        ingest_here(BACK["yolo"](str(raw)), str(tmp_path / "first"))
        export(ExportDatasetSpec(kind="export-dataset", dataset=str(tmp_path / "first"), format="yolo", output=f"{s3}/x",
                                 images="link"), "export")


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_a_round_trip_in_s3(tmp_path, s3, kind):
    raw = make_yolo(tmp_path / "raw")
    same(*round_trip(s3, BACK["yolo"](str(raw)), kind))


def turned(orientation: int) -> bytes:
    """A JPEG of 128 x 96 stored pixels, displayed as EXIF says."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.open(io.BytesIO(jpeg(orientation))).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_turned_images_and_ids_that_are_no_numbers_come_back(tmp_path, kind):
    document = {"images": [{"id": f"img-{number}", "file_name": f"{number}.jpg", "height": 96, "width": 128}
                           for number in (1, 3, 6, 8)],
                "annotations": [{"id": number, "image_id": f"img-{number}", "category_id": "c-1", "bbox": [10.3, 20.7, 30.1, 40.9]}
                                for number in (1, 3, 6, 8)], "categories": [{"id": "c-1", "name": "cat"}]}
    for split in ("train", "val"):
        (tmp_path / "raw" / split).mkdir(parents=True)
        for number in (1, 3, 6, 8):
            (tmp_path / "raw" / split / f"{number}.jpg").write_bytes(turned(number))
        (tmp_path / "raw" / f"{split}.json").write_text(json.dumps(document))
    source = CocoSource(format="coco", uri=str(tmp_path / "raw"), splits={
        split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")})
    first, second = round_trip(tmp_path, source, kind)
    same(first, second)
    assert ArrowDataset(first, "train").sizes_hw().tolist() == [[96, 128], [96, 128], [128, 96], [128, 96]]
    if kind == "coco":
        assert load_manifest(first).fingerprint == load_manifest(second).fingerprint
        exported = json.loads((tmp_path / "exported/annotations/instances_train.json").read_text())
        assert [image["id"] for image in exported["images"]] == ["img-1", "img-3", "img-6", "img-8"]
        assert exported["categories"] == [{"id": "c-1", "name": "cat"}]
