"""Nothing leaves uncounted: what a folder holds is what its dataset holds, and what is told to be lost."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import jpeg
from yolov7_ray.data.dry_run import dataset_lines
from yolov7_ray.data.ingest.losses import loss_lines, losses, recorded, table, totals
from yolov7_ray.data.ingest.rows import KEPT, build_row
from yolov7_ray.data.manifest import MANIFEST, Manifest, Shard, Split, load_manifest
from yolov7_ray.data.sources.item import problem_record
from yolov7_ray.data.sources.read import read_source
from yolov7_ray.data.sources.spec import CocoSource, CocoSplit, VocSource, YoloSource
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.kind import Upcoming

LINE = "0 .5 .5 .25 .5\n"


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def xml(num_objects: int) -> str:
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    return f"<annotation>{f'<object><name>a</name>{box}</object>' * num_objects}</annotation>"


def coco(root: Path) -> CocoSource:
    """5 images and 42 objects are named."""
    names = {1: "good.jpg", 2: "missing.jpg", 3: "broken.jpg", 4: "p.heic"}
    images = [{"id": number, "file_name": name} for number, name in names.items()] + [{"id": 1, "file_name": "b.jpg"}]
    many = {1: 2, 2: 30, 3: 4, 4: 2, 99: 1}
    box = {"category_id": 1, "bbox": [1, 2, 3, 4]}
    annotations = [{"image_id": image, **box} for image, count in many.items() for _ in range(count)]
    annotations += [{"image_id": 1, **box, **other} for other in (
        {"category_id": 5}, {"bbox": [1, 2]}, {"bbox": [500, 2, 3, 4]})]
    write(root, {"i/good.jpg": jpeg(0), "i/broken.jpg": "no", "i/p.heic": "..", "i/b.jpg": jpeg(1),
                 "i/extra.jpg": jpeg(2), "i/notes.txt": "", "i/x.csv": "", "i/y.csv": "",
                 "a.json": json.dumps({"images": images, "annotations": annotations,
                                       "categories": [{"id": 1, "name": "a"}]})})
    return CocoSource(format="coco", uri=str(root), splits={"train": CocoSplit(images="i", annotations="a.json")})


def yolo(root: Path) -> YoloSource:
    """5 images, one of which has a label file alone, and 14 objects; beside them one that belongs to no split."""
    write(root, {"data.yaml": "names: [a]\ntrain: images/train", "images/train/good.jpg": jpeg(0),
                 "labels/train/good.txt": LINE * 2 + "0 .5\n", "images/train/broken.jpg": "no",
                 "labels/train/broken.txt": LINE * 4, "images/train/p.heic": "..", "labels/train/p.txt": LINE * 2,
                 "images/train/bare.jpg": jpeg(1), "labels/train/orphan.txt": LINE * 5,
                 "images/extra.jpg": jpeg(2), "labels/extra.txt": LINE, "x.csv": "", "y.csv": "", "notes.txt": ""})
    return YoloSource(format="yolo", uri=str(root))


def yolo_list(root: Path) -> YoloSource:
    """3 images and 8 objects are listed."""
    write(root, {"data.yaml": "names: [a]\ntrain: train.txt", "images/good.jpg": jpeg(0), "labels/good.txt": LINE * 3,
                 "labels/missing.txt": LINE * 4, "images/p.heic": "..", "labels/p.txt": LINE,
                 "train.txt": "images/good.jpg\n/mnt/set/images/missing.jpg\nimages/p.heic\n",
                 "images/extra.jpg": jpeg(2), "labels/extra.txt": LINE, "x.csv": "", "y.csv": "", "notes.txt": ""})
    return YoloSource(format="yolo", uri=str(root))


def voc_list(root: Path) -> VocSource:
    """5 images and 13 objects are listed."""
    write(root, {"ImageSets/Main/train.txt": "good\nmissing\nbare\nbroken\np\n", "JPEGImages/good.jpg": jpeg(0),
                 "Annotations/good.xml": xml(3), "Annotations/missing.xml": xml(5), "JPEGImages/bare.jpg": jpeg(1),
                 "JPEGImages/broken.jpg": "no", "Annotations/broken.xml": xml(4), "JPEGImages/p.heic": "..",
                 "Annotations/p.xml": xml(1), "JPEGImages/extra.jpg": jpeg(2), "Annotations/extra.xml": xml(2),
                 "x.csv": "", "y.csv": "", "notes.txt": ""})
    return VocSource(format="voc", uri=str(root))


def voc(root: Path) -> VocSource:
    """4 images, one of which has an XML file alone, and 10 objects."""
    write(root, {"good.jpg": jpeg(0), "good.xml": xml(3), "orphan.xml": xml(5), "bare.jpg": jpeg(1),
                 "p.heic": "..", "p.xml": xml(2), "x.csv": "", "y.csv": "", "notes.txt": ""})
    return VocSource(format="voc", uri=str(root))


@pytest.mark.parametrize(("make", "images", "objects", "extra"), [
    (coco, (5, 1), (42, 2), 1), (yolo, (5, 2), (14, 2), 1), (yolo_list, (3, 1), (8, 3), 1),
    (voc_list, (5, 1), (13, 3), 1), (voc, (4, 1), (10, 3), 0)])
def test_what_comes_in_goes_out_or_is_told(tmp_path, make, images, objects, extra):
    source = read_source(make(tmp_path))
    records = [*source.problems["train"]]
    rows = []
    for item in source.splits["train"]:
        row, problems = build_row(item, item.fetch(), (0,))
        rows += [row] if row else []
        records += [problem_record("train", problem, item.file_name) | ({"dropped": None} if problem.reason in KEPT else {})
                    for problem in problems]
    found = losses(records)
    lost = {what: sum(loss.count for loss in found if loss.dropped == what) for what in ("image", "object")}
    assert (len(rows), len(rows) + lost["image"]) == images[::-1]
    num_objects = sum(len(row.objects) for row in rows)
    assert (num_objects, num_objects + lost["object"]) == objects[::-1]
    assert all(loss.example for loss in found)
    notes = {loss.reason: (loss.count, loss.example) for loss in found if loss.dropped is None}
    assert notes.get("picture that belongs to no split, left aside", (0,))[0] == extra
    count, example = notes["file of another kind left aside"]
    assert count == 3 and "2 x .csv, 1 x .txt" in example, "none of those that belong to an image"


def test_classes_that_are_left_out_are_counted_also_in_lost_images(tmp_path):
    write(tmp_path, {"data.yaml": "names: [a, b]", "images/train/x.jpg": jpeg(0), "images/train/y.jpg": "no",
                     "labels/train/x.txt": LINE + "1 .5 .5 .1 .1", "labels/train/y.txt": LINE * 2 + "1 .5 .5 .1 .1"})
    source = read_source(YoloSource(format="yolo", uri=str(tmp_path)))
    told = [[(problem.count, problem.num_objects, problem.reason) for problem in build_row(item, item.fetch(), (None, 0))[1]]
            for item in source.splits["train"]]
    left = "object of a class that `classes` leaves out"
    assert told == [[(1, 0, left)], [(2, 0, left), (1, 1, "undecodable image")]]


# --- shown again ----------------------------------------------------------------------------------------

RECORDS = [{"split": "train", "file_name": "x.jpg", "image_id": 1, "dropped": "image", "reason": "missing image file",
            "detail": "no file", "objects": 30},
           {"split": "val", "file_name": "y.jpg", "image_id": 2, "dropped": "object", "reason": "unknown class", "detail": "9"},
           {"split": "", "file_name": "", "image_id": None, "dropped": None, "reason": "file of another kind left aside",
            "detail": "e.g. a.csv", "count": 1200}]
TABLE = ["    1 x missing image file (image dropped), e.g. train: x.jpg: no file",
         "   30 x object of an image lost to: missing image file (objects dropped), e.g. train: x.jpg: no file",
         "    1 x unknown class (object dropped), e.g. val: y.jpg: 9",
         "1,200 x file of another kind left aside, e.g. a.csv"]


def manifest(**more) -> Manifest:
    split = Split((Shard("train/0.arrow", 2, 10, "0"),), 2, 3, (3,))
    return Manifest(("a",), (0,), {"train": split}, {"format": "coco"}, {"missing image file": 1}, **more)


def test_the_dry_run_shows_what_ingest_lost(tmp_path):
    found = losses(RECORDS)
    assert table(found) == TABLE
    assert totals(found) == "dropped 1 image and 31 objects; 1,200 things changed or left aside"
    written = manifest(losses=tuple(asdict(loss) for loss in found))
    (tmp_path / MANIFEST).write_text(json.dumps(written.to_json()))
    assert recorded(load_manifest(str(tmp_path))) == found
    assert written.fingerprint == manifest().fingerprint
    lines = dataset_lines(str(tmp_path), ("train",), Upcoming())[2][1:]
    assert lines == [("ingest", f"{totals(found)}; all are listed in {tmp_path}/dropped.jsonl"), *(("", line) for line in TABLE)]


def test_an_older_manifest_has_its_counts(tmp_path):
    values = manifest().to_json()
    del values["losses"]
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    [head, line] = loss_lines(str(tmp_path), load_manifest(str(tmp_path)))
    assert line == ("", "1 x missing image file (image or object dropped)")
    assert head[1].startswith("dropped 1 image or object; all are listed")


def test_the_objects_of_lost_images_count(tmp_path):
    from yolov7_ray.data.ingest.losses import check_losses

    with pytest.raises(JobError, match="31 of 41 objects would be lost, most to: object of an image lost to: missing image"):
        check_losses("source", losses(RECORDS), {"image": 99, "object": 10}, 0.05, "")
