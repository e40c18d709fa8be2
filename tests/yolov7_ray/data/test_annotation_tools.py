"""Exports of annotation tools as people have them; boxes derived by hand from each tool's documentation."""

import base64
import json
import math

import pytest
from conftest import ingest_here, jpeg, png
from test_displayed_frame import turned_jpeg
from test_folders import boxes, rows_of, told, write
from training_jobs import train, train_job

from yolov7_ray import storage
from yolov7_ray.data.ingest.declared_size import DIFFERS, TURNED
from yolov7_ray.data.ingest.ingest import ingest
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.files.split_names import split_named, split_on_path, split_within
from yolov7_ray.data.sources.read import described, read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource, CvatSource, LabelmeSource, LabelStudioSource
from yolov7_ray.errors import JobError

TURN = math.sqrt(0.5)


def found(root, **keys):
    """The source that is found at `root`, read."""
    return read_source(resolved(AutoSource(format="auto", uri=str(root), **keys)))


def named_boxes(source, split="train") -> dict[str, list]:
    """File name -> class and box of each object."""
    rows, _ = rows_of(source, split)
    return {row.file_name: [(source.classes[label], *box) for label, box in zip(row.objects.labels, boxes(row))]
            for row in rows}


# --- LabelMe --------------------------------------------------------------------------------------------


def shape(label, points, kind="rectangle", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def labelme(image_path="x.jpg", shapes=(), size=(96, 128), **more) -> str:
    return json.dumps({"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image_path, "imageData": None,
                       "imageHeight": size and size[0], "imageWidth": size and size[1]} | more, ensure_ascii=False)


RECTANGLE = shape("cat", [[30, 40], [10, 20]])


@pytest.mark.parametrize(("kind", "points", "box", "note"), [
    ("rectangle", [[30, 20], [10, 40]], [10, 20, 30, 40], None),
    ("rectangle", [[10, 20], [30, 20], [30, 40], [10, 40]], [10, 20, 30, 40], None),
    ("polygon", [[10, 20.5], [30, 22], [20, 40]], [10, 20.5, 30, 40], "polygon: the enclosing box taken"),
    (None, [[10, 20], [30, 22], [20, 40]], [10, 20, 30, 40], "polygon: the enclosing box taken"),
    ("rotation", [[20, 10], [30, 20], [20, 30], [10, 20]], [10, 10, 30, 30], "rotation: the enclosing box taken"),
    ("circle", [[50, 40], [53, 44]], [45, 35, 55, 45], "circle: the enclosing box taken"),
    ("mask", [[10, 20], [29, 39]], [10, 20, 30, 40], "mask: the enclosing box taken")])
def test_labelme_shapes_are_enclosed(tmp_path, kind, points, box, note):
    write(tmp_path, {"x.jpg": jpeg(0), "x.json": labelme(shapes=[shape("cat", points, kind, mask="iVBORw0KGgo=")])})
    source = found(tmp_path)
    [row], problems = rows_of(source)
    assert (boxes(row), problems, source.classes) == ([box], [], ("cat",))
    assert told(source) == ({note: 1} if note else {})


@pytest.mark.parametrize(("kind", "points", "reason"), [
    ("point", [[1, 2]], "a point has no area"), ("line", [[1, 2], [3, 4]], "a line has no area"),
    ("linestrip", [[1, 2], [3, 4], [9, 9]], "a linestrip has no area"), ("polygon", [[1, 2], [5, 6]], "malformed box"),
    ("circle", [[1, 2]], "malformed box"), ("rectangle", [[1, None], "x"], "malformed box"),
    ("rectangle", None, "malformed box")])
def test_labelme_shapes_that_are_no_object_are_named(tmp_path, kind, points, reason):
    write(tmp_path, {"x.jpg": jpeg(0), "x.json": labelme(shapes=[RECTANGLE, shape("dog", points, kind)])})
    source = found(tmp_path)
    [row], [problem] = rows_of(source)
    assert (boxes(row), problem.reason, problem.is_image) == ([[10, 20, 30, 40]], reason, False)
    assert "dog" in problem.detail


@pytest.mark.parametrize(("image", "annotation", "image_path"), [
    ("x.jpg", "x.json", "x.jpg"), ("images/x.jpg", "labels/x.json", "..\\images\\x.jpg"),
    ("images/x.jpg", "labels/x.json", "../images/x.jpg"), ("train/images/x.jpg", "train/labels/x.json", "x.jpg"),
    ("x.jpg", "x.json", "C:\\Users\\me\\pictures\\x.jpg"), ("d/x.jpg", "d/x.json", "/data/other/y.jpg"),
    ("images/x.jpg", "labels/x.json", "/mnt/my/pictures/x.jpg"), ("x.JPG", "x.json", "x.jpg"),
    ("new.jpg", "new.json", "old.jpg"), ("Bär 1.jpg", "Bär 1.json", "B%C3%A4r%201.jpg"), ("x.jpg", "x.json", "")])
def test_labelme_images_are_found(tmp_path, image, annotation, image_path):
    write(tmp_path, {image: jpeg(0), annotation: labelme(image_path, [RECTANGLE])})
    assert named_boxes(found(tmp_path)) == {image: [("cat", 10, 20, 30, 40)]}


def test_labelme_mirrors_the_directories_of_its_images(tmp_path):
    for split, x in (("train", 1), ("val", 2)):
        write(tmp_path, {f"pictures/{split}/0.jpg": jpeg(x), f"json/{split}/0.json": labelme("0.jpg", [shape("cat", [[x, 5], [9, 9]])])})
    source = found(tmp_path)
    assert named_boxes(source, "val") == {"pictures/val/0.jpg": [("cat", 2, 5, 9, 9)]}
    (tmp_path / "pictures/train/0.jpg").unlink()
    source = found(tmp_path)  # that of val is not taken in its place
    assert named_boxes(source, "val") == {"pictures/val/0.jpg": [("cat", 2, 5, 9, 9)]}
    assert (len(source.splits["train"]), told(source)) == (0, {"missing image file": 1})


def test_labelme_numbers_its_images_anew_in_every_directory(tmp_path):
    for split, x in (("train", 1), ("valid", 2), ("test", 3)):
        write(tmp_path / split, {"images/0.jpg": jpeg(x), "json/0.json": labelme("0.jpg", [shape("cat", [[x, 5], [9, 9]])])})
    source = found(tmp_path)
    assert list(source.splits) == ["train", "val", "test"]
    assert named_boxes(source, "val") == {"valid/images/0.jpg": [("cat", 2, 5, 9, 9)]}
    assert named_boxes(source, "test") == {"test/images/0.jpg": [("cat", 3, 5, 9, 9)]}
    given = read_source(LabelmeSource(format="labelme", uri=str(tmp_path), splits={"all": "test"}, classes=["dog", "cat"]))
    assert (list(given.splits), len(given.splits["all"]), given.classes) == (["all"], 1, ("dog", "cat"))


@pytest.mark.parametrize("before", ["", "data:image/jpeg;base64,"])
def test_labelme_embeds_images(tmp_path, before):
    embedded = before + base64.b64encode(jpeg(3)).decode()
    write(tmp_path, {"a/x.json": labelme("..\\x.png", [RECTANGLE], imageData=embedded),
                     "a/y.json": labelme("y.jpg", [RECTANGLE], imageData="AAAA"),
                     "z.json": labelme("z.jpg", [RECTANGLE], imageData="not base64"), "gone.json": labelme("gone.jpg")})
    source = found(tmp_path)
    rows, problems = rows_of(source)
    [row] = filter(None, rows)
    assert (row.file_name, boxes(row), row.image) == ("a/x.png", [[10, 20, 30, 40]], jpeg(3))
    assert [problem.reason for problem in problems] == ["undecodable image"] * 2
    assert told(source) == {"missing image file": 1, "image taken from the annotation file, its own file is missing": 3}


def test_labelme_joins_the_shapes_of_a_group(tmp_path):
    parts = [shape("cat", [[x, 5], [x + 5, 9], [x, 9]], "polygon", group_id=group) for x, group in (
        (10, 1), (40, 1), (60, None), (80, None))] + [shape("dog", [[1, 1], [4, 4]], group_id=1)]
    write(tmp_path, {"x.jpg": jpeg(0), "x.json": labelme(shapes=parts)})
    source = found(tmp_path)
    assert named_boxes(source) == {"x.jpg": [("cat", 10, 5, 45, 9), ("cat", 60, 5, 65, 9), ("cat", 80, 5, 85, 9),
                                             ("dog", 1, 1, 4, 4)]}
    assert told(source) == {"polygon: the enclosing box taken": 4, "shape joined with others of its group_id": 1}
    [row], _ = rows_of(source)
    assert row.objects.num_rings.tolist() == [2, 1, 1, 0]


def test_labelme_counts_what_is_lost(tmp_path):
    write(tmp_path, {
        "x.jpg": jpeg(0), "x.json": labelme("x.jpg", [shape("Bär", [[1, 2], [30, 40]])]).encode("gbk", "xmlcharrefreplace"),
        "y.jpg": jpeg(1), "y.json": labelme("y.jpg", [shape("Bär", [[1, 2], [30, 40]])]).encode("latin-1"),
        "z.jpg": jpeg(2), "z.json": labelme("z.jpg", [shape("犬", [[1, 2], [30, 40]])]).encode("utf-16"),
        "bare.jpg": jpeg(3), "broken.jpg": jpeg(4), "broken.json": "{", "settings.json": "{}", "preview/p.png": png(0),
        "copy.json": labelme("z.jpg", [shape("犬", [[1, 2], [31, 40]])]), "w.jpg": jpeg(5), "w.json": labelme("w.jpg"),
        "b.json": labelme("w.jpg")})
    source = found(tmp_path)
    assert named_boxes(source)["w.jpg"] == []
    assert told(source) == {
        "annotations that cannot be decoded": 1, "malformed annotation file": 1, "missing annotation file": 1,
        "image annotated twice": 1, "image listed twice": 1, "JSON file of another kind, left aside": 1,
        "image file that no annotation mentions, left aside": 1}
    [detail] = [record["detail"] for record in source.problems["train"] if "decoded" in record["reason"]]
    assert "y.json: byte 0xe4 at offset" in detail


@pytest.mark.parametrize(("size", "box"), [((192, 256), [5, 10, 15, 20]), ((95, 128), None), (None, [10, 20, 30, 40])])
def test_labelme_declares_a_size(tmp_path, size, box):
    write(tmp_path, {"x.jpg": jpeg(0), "x.json": labelme(shapes=[RECTANGLE], size=size)})
    rows, problems = rows_of(found(tmp_path))
    assert [row and boxes(row) for row in rows] == [box and [box]]
    assert box or problems[0].reason == DIFFERS


@pytest.mark.parametrize(("shapes", "message"), [
    ([shape("cat", [[1, 2]], "point")], r"no object is left: a point has no area \('cat'\)"),
    ([shape(" ", [[1, 2], [3, 4]])], r"no object is left: unknown class \(a rectangle has no label\)"),
    ([], "no object is left: no annotation file has any")])
def test_labelme_without_objects_says_why(tmp_path, shapes, message):
    write(tmp_path, {"x.jpg": jpeg(0), "x.json": labelme(shapes=shapes)})
    with pytest.raises(JobError, match=message):
        found(tmp_path)


# --- CVAT -----------------------------------------------------------------------------------------------

LABELS = "<meta><task><labels>{}</labels></task></meta>".format("".join(
    f"<label><name>{name}</name><color>#fff</color><type>{kind}</type><attributes></attributes>{more}</label>"
    for name, kind, more in (("dog", "any", ""), ("cat", "rectangle", ""), ("scene", "tag", ""),
                             ("person", "skeleton", ""), ("nose", "points", "<parent>person</parent>"))))


def cvat(*images: str, labels=LABELS) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{labels}{"".join(images)}</annotations>'


def image(name="x.jpg", shapes="", number=0, size=(96, 128), more="") -> str:
    return f'<image id="{number}" name="{name}" {more} width="{size[1]}" height="{size[0]}">{shapes}</image>'


BOX = '<box label="cat" source="manual" occluded="0" xtl="10.5" ytl="20" xbr="30" ybr="40" z_order="0"><attribute name="a">1</attribute></box>'


@pytest.mark.parametrize(("drawn", "box", "note"), [
    ('<box label="cat" xtl="10.5" ytl="20.00" xbr="30" ybr="4e1" rotation="0.0"/>', [10.5, 20, 30, 40], None),
    ('<box label="cat" xtl="40" ytl="40" xbr="60" ybr="50" rotation="90.00"/>', [45, 35, 55, 55], "rotated box"),
    ('<box label="cat" xtl="40" ytl="40" xbr="60" ybr="60" rotation="45"/>',
     [50 - 20 * TURN, 50 - 20 * TURN, 50 + 20 * TURN, 50 + 20 * TURN], "rotated box"),
    ('<polygon label="cat" points="10.00,20.50;30.00,22.00;20.00,40.00"/>', [10, 20.5, 30, 40], "polygon"),
    ('<ellipse label="cat" cx="50" cy="40" rx="20" ry="10"/>', [30, 30, 70, 50], "ellipse"),
    ('<ellipse label="cat" cx="50" cy="40" rx="20" ry="10" rotation="90"/>', [40, 20, 60, 60], "ellipse"),
    ('<mask label="cat" rle="2, 3, 1, 4" left="10" top="20" width="5" height="2"/>', [10, 20, 15, 22], "mask"),
    ('<cuboid label="cat" xtl1="10" ytl1="20" xbl1="11" ybl1="40" xtr1="30" ytr1="21" xbr1="31" ybr1="42" xtl2="12" ytl2="15" '
     'xbl2="13" ybl2="35" xtr2="35" ytr2="16" xbr2="33" ybr2="36"/>', [10, 15, 35, 42], "cuboid"),
    ('<skeleton label="person"><points label="nose" outside="0" points="10.5,20"/><points label="eye" outside="1" '
     'points="90,90"/><points label="toe" points="30,60"/></skeleton>', [10.5, 20, 30, 60], "skeleton")])
def test_cvat_shapes_are_enclosed(tmp_path, drawn, box, note):
    write(tmp_path, {"images/x.jpg": jpeg(0), "annotations.xml": cvat(image(shapes=drawn))})
    source = found(tmp_path)
    [row], problems = rows_of(source)
    assert boxes(row) == [pytest.approx(box, abs=1e-4)] and not problems
    assert told(source) == ({f"{note}: the enclosing box taken": 1} if note else {})
    assert source.classes == ("dog", "cat", "person")


@pytest.mark.parametrize(("drawn", "reason"), [
    ('<points label="cat" points="1,2;3,4;5,6"/>', "a points has no area"),
    ('<polyline label="cat" points="1,2;3,4;5,6"/>', "a polyline has no area"),
    ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "malformed box"), ('<polygon label="cat" points="1;2"/>', "malformed box"),
    ('<polygon label="cat" points="1,2;3,4"/>', "malformed box"), ('<star label="cat"/>', "shape of an unknown kind"),
    ('<skeleton label="cat"><points outside="1" points="1,2"/></skeleton>', "a skeleton has no visible point"),
    ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "unknown class")])
def test_cvat_shapes_that_are_no_object_are_named(tmp_path, drawn, reason):
    write(tmp_path, {"x.jpg": jpeg(0), "annotations.xml": cvat(image(shapes=BOX + drawn + '<tag label="scene"/>'))})
    source = found(tmp_path)
    [row], [problem] = rows_of(source)
    assert (boxes(row), problem.reason, problem.is_image) == ([[10.5, 20, 30, 40]], reason, False)
    assert told(source) == {"tag of a whole image, left aside": 1}


def test_cvat_subsets_are_splits(tmp_path):
    subsets = ("Train", "Validation", "default", "Batch 3", "")
    images = [image(f"cam {number}/x.jpg", BOX.replace("10.5", str(number)), 10 + number, more=f'subset="{subset}"')
              for number, subset in enumerate(subsets)]
    write(tmp_path, {"annotations.xml": cvat(*images)} | {
        f"images/{subset}/cam {number}/x.jpg".replace("//", "/"): jpeg(number) for number, subset in enumerate(subsets)})
    source = found(tmp_path)
    assert {split: [item.image_id for item in items] for split, items in source.splits.items()} == {
        "train": [10, 12, 14], "val": [11], "batch-3": [13]}
    assert named_boxes(source, "val") == {"images/Validation/cam 1/x.jpg": [("cat", 1, 20, 30, 40)]}
    assert sum(map(len, source.problems.values())) == 0


def test_cvat_tasks_in_directories(tmp_path):
    for task, labels in (("train", ("b", "a")), ("val", ("c", "a"))):
        names = "".join(f"<label><name>{name}</name></label>" for name in labels)
        write(tmp_path / task, {"annotations.xml": cvat(image("x.jpg", BOX.replace("cat", "a")), image("y.jpg", number=1), image(
            "gone.jpg", number=2), labels=f"<meta><job><labels>{names}</labels></job></meta>"),
            "images/x.jpg": jpeg(0), "images/y.jpg": jpeg(1), "images/z.jpg": jpeg(2), "notes.xml": "<a/>"})
    source = found(tmp_path)
    assert source.classes == ("b", "a", "c")
    assert named_boxes(source, "val") == {"val/images/x.jpg": [("a", 10.5, 20, 30, 40)], "val/images/y.jpg": []}
    assert told(source) == {"missing image file": 1, "XML file of another kind, left aside": 1,
                            "image file that no annotation mentions, left aside": 1}


@pytest.mark.parametrize(("text", "message"), [
    (cvat('<track id="0" label="cat"><box frame="7" xtl="1" ytl="2" xbr="3" ybr="4" outside="0"/></track>'),
     r"annotations.xml: is CVAT for video with 8 frames \(0 to 7\), and the images here are 1, e.g. images/x.jpg.*frame_000000.png"),
    (cvat(image(shapes=BOX))[:-9], "annotations.xml: is not XML"),
    (cvat(image(name="Bär.jpg", shapes=BOX)).encode("latin-1"), "annotations.xml: byte 0xe4 at offset")])
def test_cvat_files_that_are_refused(tmp_path, text, message):
    write(tmp_path, {"images/x.jpg": jpeg(0), "annotations.xml": text})
    with pytest.raises(JobError, match=message):
        read_source(CvatSource(format="cvat", uri=str(tmp_path)))


def test_cvat_and_kitti_as_datumaro_writes_them(tmp_path):
    """Exports of datumaro 1.13.12 of a box (10.5, 20, 30, 40) and a polygon, without what is empty in them."""
    meta = "<meta><task><id></id><name>train</name><size>1</size><labels>{}</labels></task></meta>".format("".join(
        f"<label><name>{name}</name><attributes>\n</attributes></label>" for name in ("zebra", "ant")))
    shapes = ('<box label="ant" occluded="1" outside="0" keyframe="0" xtl="10.50" ytl="20.00" xbr="30.00" ybr="40.00" z_order="0"/>'
              '<polygon label="zebra" occluded="0" outside="0" keyframe="0" points="10.00,20.50;30.00,22.00;20.00,40.00"/>')
    write(tmp_path / "cvat", {"train.xml": cvat(image("d/x.jpg", shapes), labels=meta), "images/d/x.jpg": jpeg(0),
                              "val.xml": cvat(image("y.jpg", number=1), labels=meta), "images/y.jpg": jpeg(1)})
    write(tmp_path / "kitti", {"train/label_2/d/x.txt": "ant 0.5 1 -1 10.5 20.0 30.0 40.0 -1 -1 -1 -1 -1 -1 -1 1.0\n",
                               "train/image_2/d/x.png": png(0), "label_colors.txt": " zebra\n ant\n"})
    source = found(tmp_path / "cvat")
    assert source.classes == ("zebra", "ant") and list(source.splits) == ["train", "val"]
    assert named_boxes(source) == {"images/d/x.jpg": [("ant", 10.5, 20, 30, 40), ("zebra", 10, 20.5, 30, 40)]}
    assert named_boxes(found(tmp_path / "kitti")) == {"train/image_2/d/x.png": [("ant", 10.5, 20, 30, 40)]}


# --- Label Studio ---------------------------------------------------------------------------------------


def region(kind="rectanglelabels", labels=("cat",), size=(96, 128), turned=0, identity="r1", **value) -> dict:
    """A region in percent of an image of 128 x 96 px."""
    sizes = {"original_width": size[1], "original_height": size[0]} if size else {}
    return {"id": identity, "type": kind, "from_name": "label", "to_name": "image", "image_rotation": turned,
            "value": value | ({kind: list(labels)} if labels is not None else {})} | sizes


def task(*results, number=1, image="/data/upload/1/0a1b2c3d-x.jpg", **more) -> dict:
    return {"id": number, "annotations": [{"id": 9, "result": list(results), "was_cancelled": False, "ground_truth": False}],
            "predictions": [], "data": {"image": image}} | more


QUARTER = dict(x=25, y=25, width=25, height=50)  # of 128 x 96 px: (32, 24, 64, 72)


@pytest.mark.parametrize(("drawn", "box", "note"), [
    (region(**QUARTER), [32, 24, 64, 72], None), (region(**QUARTER, rotation=0.0), [32, 24, 64, 72], None),
    (region(x=50, y=50, width=25, height=25, rotation=90), [40, 48, 64, 80], "rotated box: the enclosing box taken"),
    (region(x=50, y=0, width=25, height=100 / 3, rotation=45), [64 - 32 * TURN, 0, 64 + 32 * TURN, 64 * TURN],
     "rotated box: the enclosing box taken"),
    (region("polygonlabels", points=[[25, 25], [50, 50], [25, 75]]), [32, 24, 64, 72], "polygon: the enclosing box taken"),
    (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25), [32, 24, 96, 72], "ellipse: the enclosing box taken"),
    (region("ellipselabels", x=50, y=50, radiusX=25, radiusY=25, rotation=90), [40, 16, 88, 80], "ellipse: the enclosing box taken"),
    (region("labels", **QUARTER), [32, 24, 64, 72], None), (region(**QUARTER, size=None), [32, 24, 64, 72], None),
    (region(x=0, y=25, width=50, height=25, turned=90), [32, 48, 64, 96], "region turned back with its image"),
    (region(x=0, y=25, width=50, height=25, turned=180), [64, 48, 128, 72], "region turned back with its image"),
    (region(x=0, y=25, width=50, height=25, turned=270), [64, 0, 96, 48], "region turned back with its image"),
    (region(labels=("cat", "dog"), **QUARTER), [32, 24, 64, 72], "region with several labels, the first taken")])
def test_labelstudio_regions_are_enclosed(tmp_path, drawn, box, note):
    write(tmp_path, {"images/0a1b2c3d-x.jpg": jpeg(0), "project-1.json": json.dumps([task(drawn)])})
    source = found(tmp_path)
    [row], problems = rows_of(source)
    assert boxes(row) == [pytest.approx(box, abs=1e-4)] and not problems
    assert (source.classes, told(source)) == (("cat",), {note: 1} if note else {})


@pytest.mark.parametrize(("drawn", "reason"), [
    (region("brushlabels", format="rle", rle=[0, 1]), "brush strokes that cannot be decoded"), (region(x=1, y=2, width="?", height=3), "malformed box"),
    (region("polygonlabels", points=[[25, 25], [50, 50]]), "malformed box"), (region(x=1, y=2, width=3, height=3, turned=45), "malformed box"),
    (region(labels=None, identity="r2", **QUARTER), "unknown class"), (region("vectorlabels", vertices=[]), "shape of an unknown kind"),
    (region(**QUARTER, rotation=5, size=None), "rotated box without original_width and original_height")])
def test_labelstudio_regions_that_are_no_object_are_named(tmp_path, drawn, reason):
    sized = region(**QUARTER, size=None if "without" in reason else (96, 128))
    write(tmp_path, {"images/0a1b2c3d-x.jpg": jpeg(0), "project-1.json": json.dumps([task(sized, drawn)])})
    [row], [problem] = rows_of(found(tmp_path))
    assert (boxes(row), problem.reason, problem.is_image) == ([[32, 24, 64, 72]], reason, False)


@pytest.mark.parametrize(("name", "path"), [
    ("/data/upload/1/0a1b2c3d-x.jpg", "images/0a1b2c3d-x.jpg"), ("/data/upload/1/0a1b2c3d-x.jpg", "photos/0a1b2c3d-x.jpg"),
    ("/data/upload/1/0a1b2c3d-x.jpg", "x.jpg"), ("/data/local-files/?d=set/b%2Fmy%20x.jpg", "set/b/my x.jpg"),
    ("/data/local-files/?d=root/b/x.jpg", "b/x.jpg"), ("s3://bucket/raw/b/x.jpg", "b/x.jpg"), ("s3://bucket/x.jpg", "images/x.jpg"),
    ("gs://bucket/deep/x.jpg", "x.jpg"), ("https://host/a/x.jpg?sig=a.b#1", "a/x.jpg"), ("x%20y.jpg", "x y.jpg"),
    ("images\\B%C3%A4r.jpg", "images/Bär.jpg"), ("/data/upload/1/0a1b2c3d-Ba%CC%88r.JPG", "images/Bär.jpg")])
def test_labelstudio_images_are_found(tmp_path, name, path):
    write(tmp_path, {path: jpeg(0), "project-1.json": json.dumps([task(region(**QUARTER), image=name)])})
    assert named_boxes(found(tmp_path)) == {path: [("cat", 32, 24, 64, 72)]}


def test_labelstudio_does_not_take_another_directory_for_a_bucket(tmp_path):
    write(tmp_path, {"camera2/0.jpg": jpeg(0), "p.json": json.dumps([task(region(**QUARTER), image="s3://b/camera1/0.jpg")])})
    with pytest.raises(JobError, match="no object is left: missing image file .no image s3://b/camera1/0.jpg of p.json"):
        found(tmp_path)


def test_labelstudio_tasks(tmp_path):
    first, second, other = (region(**QUARTER | {"x": x}, labels=[label]) for x, label in ((0, "cat"), (25, "ant"), (50, "dog")))
    choices = {"type": "choices", "value": {"choices": ["Bad"]}}
    annotations = [{"result": [first], "was_cancelled": True}, {"result": [second]}, {"result": [other], "ground_truth": True}]
    tasks = [task(image="a.jpg", number=7, annotations=annotations), task(second, choices, image="b.jpg", number=3),
             task(image="c.jpg", number=5, annotations=[], predictions=[{"result": [first]}] * 2), task(image="d.jpg", number=8),
             task(image="e.jpg", number=9, annotations=annotations[:1]), task(image="gone.jpg", number=10),
             task(region("keypointlabels", x=1, y=2, width=0.3), {"type": "relation", "from_id": "a"}, image="f.jpg", number=11),
             task(first, image="b.jpg", number=12)]
    write(tmp_path, {f"{name}.jpg": jpeg(0) for name in "abcdefg"} | {"tasks.json": json.dumps(tasks), "other.json": "{}"})
    source = found(tmp_path)
    assert named_boxes(source) == {"a.jpg": [("dog", 64, 24, 96, 72)], "b.jpg": [("ant", 32, 24, 64, 72)], "c.jpg": [],
                                   "d.jpg": [], "f.jpg": []}
    assert [item.image_id for item in source.splits["train"]] == [7, 3, 5, 8, 11]
    assert source.classes == ("ant", "dog")
    assert told(source) == {
        "several annotations of a task: that of the ground truth, else the first, taken": 1, "choices, left aside": 1,
        "annotation that was cancelled, left aside": 1,
        "prediction, left aside": 2, "task without annotations, taken as an image without objects": 1,
        "task that was skipped, left aside": 1, "keypoint, left aside": 1, "relation, left aside": 1,
        "missing image file": 1, "image annotated twice": 1, "JSON file of another kind, left aside": 1,
        "image file that no annotation mentions, left aside": 1}


def test_labelstudio_regions_described_by_two_results(tmp_path):
    drawn = [region("rectangle", None, **QUARTER), region("labels", **QUARTER), region("choices", ["Red"], **QUARTER)]
    write(tmp_path, {"0a1b2c3d-x.jpg": jpeg(0), "p.json": json.dumps([task(*drawn)])})
    source = found(tmp_path)
    assert named_boxes(source) == {"0a1b2c3d-x.jpg": [("cat", 32, 24, 64, 72)]}


def test_labelstudio_json_min(tmp_path):
    flat = QUARTER | {"rotation": 0, "rectanglelabels": ["cat"], "original_width": 128, "original_height": 96}
    entry = {"id": 4, "photo": "/data/upload/2/0a1b2c3d-x.jpg", "label": [flat], "quality": "good", "annotator": 1, "lead_time": 3.5}
    write(tmp_path, {"images/0a1b2c3d-x.jpg": jpeg(0), "images/y.jpg": jpeg(1), "min-val.json": json.dumps(
        [entry, entry | {"label": [flat | {"x": 0}]}, {"id": 5, "photo": "y.jpg", "annotator": 1}])})
    source = found(tmp_path)
    assert list(source.splits) == ["val"]
    assert named_boxes(source, "val") == {"images/0a1b2c3d-x.jpg": [("cat", 32, 24, 64, 72)], "images/y.jpg": []}
    assert told(source, "val") == {"several annotations of a task: that of the ground truth, else the first, taken": 1}


@pytest.mark.parametrize("junk", [None, "", 0, True, 1e999, [], {}, [1], {"a": 1}, "x.jpg"])
def test_values_of_another_type_are_no_traceback(tmp_path, junk):
    good = task(region(**QUARTER), image="y.jpg", number=2)
    tasks = [task(region(**QUARTER), image="x.jpg") | {key: junk} for key in ("id", "annotations", "predictions", "data")]
    tasks += [task(region(**QUARTER) | {key: junk}, image="x.jpg") for key in ("id", "type", "value", "image_rotation",
                                                                               "original_width")]
    shapes = [RECTANGLE, *(RECTANGLE | {key: junk} for key in ("label", "points", "shape_type", "group_id", "flags")), junk]
    write(tmp_path, {"a/x.jpg": jpeg(0), "a/y.jpg": jpeg(1), "a/p.json": json.dumps([good, *tasks]), "b/x.jpg": jpeg(0),
                     "b/x.json": labelme(shapes=shapes), "b/y.jpg": jpeg(1), "b/y.json": labelme(
                         junk, [RECTANGLE], imageData=junk, imageHeight=junk)})
    assert named_boxes(found(tmp_path / "a"))["y.jpg"] == [("cat", 32, 24, 64, 72)]
    rows, _ = rows_of(found(tmp_path / "b"))
    assert boxes(rows[0])[0] == [10, 20, 30, 40]


@pytest.mark.parametrize(("text", "message"), [("[{", "p.json: is not JSON"), ("[1]", "no object is left: JSON file of another kind"),
                                               (b'[{"data": "\xe4"}]', "p.json: byte 0xe4 at offset 11")])
def test_labelstudio_files_that_are_refused(tmp_path, text, message):
    write(tmp_path, {"x.jpg": jpeg(0), "p.json": text})
    with pytest.raises(JobError, match=message):
        read_source(LabelStudioSource(format="labelstudio", uri=str(tmp_path)))


def test_labelstudio_export_of_its_sdk(tmp_path):
    """What label-studio-sdk 2.1.2 makes JSON_MIN of two tasks; its YOLO_OBB export gives the second's corners as
    (64, 48), (64, 80), (40, 80), (40, 48)."""
    text = r"""[{"image": "\/data\/upload\/1\/0a1b2c3d-0.jpg", "id": 1, "label": [{"x": 25, "y": 25, "width": 25, "height": 50,
      "rotation": 0, "rectanglelabels": ["cat"], "original_width": 128, "original_height": 96}], "annotator": "a@b.c",
      "annotation_id": 9, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z", "lead_time": 1.0},
     {"image": "\/data\/upload\/1\/0a1b2c3d-1.jpg", "id": 2, "label": [{"x": 50, "y": 50, "width": 25, "height": 25,
      "rotation": 90, "rectanglelabels": ["cat"], "original_width": 128, "original_height": 96}], "annotator": "a@b.c",
      "annotation_id": 9, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z", "lead_time": 1.0}]"""
    write(tmp_path, {"result.json": text, "images/0a1b2c3d-0.jpg": jpeg(0), "images/0a1b2c3d-1.jpg": jpeg(1)})
    assert named_boxes(found(tmp_path)) == {"images/0a1b2c3d-0.jpg": [("cat", 32, 24, 64, 72)],
                                            "images/0a1b2c3d-1.jpg": [("cat", 40, 48, 64, 80)]}


# --- KITTI ----------------------------------------------------------------------------------------------

CAR = "Car 0.00 0 -1.57 10.5 20.00 30.25 40.00 1.5 1.6 3.9 1.8 1.5 8.4 0.01"
DONT_CARE = "DontCare -1 -1 -10 50 10 70 20 -1 -1 -1 -1000 -1000 -1000 -10"


@pytest.mark.parametrize(("image", "label"), [
    ("training/image_2/000001.png", "training/label_2/000001.txt"), ("images/a b.jpg", "labels/a b.txt"),
    ("train/images/d/x.jpg", "train/labels/d/x.txt"), ("image_2/1.png", "label_2/1.txt"), ("data/1.png", "labels/1.txt"),
    ("1.png", "1.txt"), ("Images/1.png", "Labels/1.txt")])
def test_kitti_layouts(tmp_path, image, label):
    write(tmp_path, {image: png(0), label: f"{CAR}\r\n\r\n{DONT_CARE}\n{CAR.replace('Car', 'Van')} 0.9"})
    source = found(tmp_path)
    [row], problems = rows_of(source)
    assert source.classes == ("Car", "Van") and row.file_name == image and not problems
    assert boxes(row) == [[10.5, 20, 30.25, 40], [50, 10, 70, 20], [50, 10, 70, 20], [10.5, 20, 30.25, 40]]
    assert (row.objects.labels.tolist(), row.objects.iscrowd.tolist()) == ([0, 0, 1, 1], [False, True, True, False])
    assert {reason for reason in told(source) if "file name" not in reason} == {
        "DontCare region, a crowd of every class", "label with a score (column 16), which is left aside"}


def test_kitti_counts_what_is_lost(tmp_path):
    write(tmp_path / "training", {f"image_2/{number}.png": png(number) for number in range(4)} | {
        "label_2/0.txt": f"{CAR}\n{CAR.rsplit(' ', 6)[0]}\n{CAR.replace('10.5', '1O.5')}\n", "label_2/1.txt": "",
        "label_2/2.txt": "Bär".encode("latin-1"), "label_2/9.txt": CAR, "image_3/0.png": png(0)})
    write(tmp_path / "testing", {"image_2/7.png": png(7)})
    source = found(tmp_path)
    rows, problems = rows_of(source)
    assert list(source.splits) == ["train"] and [len(row.objects) for row in rows] == [1, 0]
    assert [(problem.reason, problem.detail) for problem in problems] == [
        ("malformed label", "training/label_2/0.txt, line 2: 9 columns, not 15 or 16"),
        ("malformed label", "training/label_2/0.txt, line 3: the box is 1O.5 20.00 30.25 40.00")]
    assert told(source) == {"annotations that cannot be decoded": 1, "missing image file": 1, "missing label file": 1,
                            "image file that no annotation mentions, left aside": 2}


# --- all of them ----------------------------------------------------------------------------------------


def folder_of(name: str, root) -> dict[str, list]:
    """A folder of one format with train and val; the objects of the first image."""
    images = {f"{split}/images/{number}.jpg": jpeg(number) for split in ("train", "val") for number in range(3)}
    quarter = region(x=12.5, y=25, width=25, height=50)
    one = {"cvat": lambda split, n: {}, "labelstudio": lambda split, n: {},
           "labelme": lambda split, n: {f"{split}/labels/{n}.json": labelme(f"../images/{n}.jpg", [
               shape("cat", [[16, 24], [48, 72]])])},
           "kitti": lambda split, n: {f"{split}/labels/{n}.txt": f"cat 0 0 0 16 24 48 72 {'0 ' * 7}\n"}}[name]
    all_of = {"cvat": lambda split: {f"{split}/annotations.xml": cvat(*(image(
                  f"{n}.jpg", BOX.replace("10.5", "16").replace("20", "24").replace("30", "48").replace("40", "72"), n)
                  for n in range(3)), labels="<meta><task><labels><label><name>cat</name></label></labels></task></meta>")},
              "labelstudio": lambda split: {f"{split}/export.json": json.dumps([
                  task(quarter, number=n, image=f"s3://b/{split}/{n}.jpg") for n in range(3)])}}.get(name, lambda split: {})
    files = images | {path: text for split in ("train", "val") for n in range(3) for path, text in one(split, n).items()}
    write(root, files | all_of("train") | all_of("val"))
    return [("cat", 16, 24, 48, 72)]


FORMATS = ("cvat", "kitti", "labelme", "labelstudio")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_recognised(tmp_path, name):
    objects = folder_of(name, tmp_path)
    spec = resolved(AutoSource(format="auto", uri=str(tmp_path)))
    source = read_source(spec)
    assert spec.format == name and {split: len(items) for split, items in source.splits.items()} == {"train": 3, "val": 3}
    assert named_boxes(source, "val")["val/images/0.jpg"] == objects and not told(source)
    assert described(spec, source) == (f"{name} at {tmp_path}: train 3 images, val 3 images; 1 classes (cat); "
                                       "e.g. train/images/0.jpg")


@pytest.mark.parametrize("declared", ["stored", "displayed"])
@pytest.mark.parametrize("name", ["cvat", "labelme", "labelstudio"])
def test_the_declared_size_says_whether_boxes_are_turned(tmp_path, name, declared):
    """A picture of 128 x 96 px that is displayed as 96 x 128 px."""
    size, box = ((96, 128), [24, 16, 72, 48]) if declared == "stored" else ((128, 96), [16, 24, 48, 72])
    drawn = region(x=100 * 16 / size[1], y=100 * 24 / size[0], width=100 * 32 / size[1], height=100 * 48 / size[0], size=size)
    write(tmp_path, {"x.jpg": turned_jpeg(6), **{
        "cvat": {"annotations.xml": cvat(image("x.jpg", '<box label="cat" xtl="16" ytl="24" xbr="48" ybr="72"/>', size=size))},
        "labelme": {"x.json": labelme("x.jpg", [shape("cat", [[16, 24], [48, 72]])], size)},
        "labelstudio": {"export.json": json.dumps([task(drawn, image="x.jpg")])}}[name]})
    [row], problems = rows_of(found(tmp_path))
    assert boxes(row) == [pytest.approx(box, abs=1e-4)] and (row.height_px, row.width_px) == (128, 96)
    assert [problem.reason for problem in problems] == ([TURNED] if declared == "stored" else [])


def test_a_folder_of_two_formats_is_an_error_that_names_both(tmp_path):
    for name in FORMATS[2:]:
        folder_of(name, tmp_path)
    with pytest.raises(JobError, match=r"may be read as labelme \(train/labels/0.json\) or labelstudio \(.*set source.format to"):
        resolved(AutoSource(format="auto", uri=str(tmp_path)))


@pytest.mark.parametrize("name", ["notes.json", "results.json"])
def test_other_json_files_are_not_taken_for_a_format(tmp_path, name):
    text = {"notes.json": {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024, "contributor": "Label Studio"}},
            "results.json": [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]}[name]
    write(tmp_path, {"images/x.jpg": jpeg(0), "labels/x.txt": "0 0.5 0.5 0.2 0.2\n", "classes.txt": "cat\n", name: json.dumps(text)})
    assert resolved(AutoSource(format="auto", uri=str(tmp_path))).format == "yolo"


@pytest.mark.parametrize(("word", "split"), [
    ("train", "train"), ("Training", "train"), ("train2017", "train"), ("val_images", "val"), ("Validation", "val"),
    ("test-set", "test"), ("testsite", None), ("training ground", None), ("images", None), ("", None)])
def test_words_that_name_a_split(word, split):
    assert split_named(word) == split


def test_names_of_files_that_name_a_split():
    names = ("labels-train", "instances_val2017", "TestImages", "valset", "train-val", "trainable", "x")
    assert [split_within(name) for name in names] == ["train", "val", "test", "val", None, None, None]
    assert split_on_path("train/annotations/x.json") == "train" and split_on_path("a/b") is None


@pytest.mark.ray
@pytest.mark.parametrize("name", FORMATS)
def test_formats_make_the_same_dataset_from_s3_by_ray(ray_session, tmp_path, s3, name):
    folder_of(name, tmp_path / "raw")
    storage.upload_directory(tmp_path / "raw", f"{s3}/raw")
    local = ingest_here(AutoSource(format="auto", uri=str(tmp_path / "raw")), str(tmp_path / "dataset"))
    spec = IngestSpec(kind="ingest", source=AutoSource(format="auto", uri=f"{s3}/raw"), dataset=f"{s3}/dataset")
    assert ingest(spec, "run")["fingerprint"] == local["fingerprint"]
    manifest = load_manifest(f"{s3}/dataset")
    assert (manifest.classes, manifest.split("val").num_objects, manifest.source["format"]) == (("cat",), 3, name)


@pytest.mark.ray
@pytest.mark.slow
def test_a_dataset_with_regions_to_ignore_is_trained_on(ray_session, tmp_path):
    """An epoch of KITTI: DontCare regions are neither targets nor objects that evaluation counts."""
    folder_of("kitti", tmp_path / "raw")
    for split in ("train", "val"):
        path = tmp_path / "raw" / split / "labels/0.txt"
        path.write_text(path.read_text() + DONT_CARE)
    ingest_here(AutoSource(format="auto", uri=str(tmp_path / "raw")), str(tmp_path / "dataset"), strict=True)
    job = train_job(str(tmp_path / "dataset"), str(tmp_path / "runs"), epochs=1, batch_size=2)
    run = train(job, "kitti")["run"]
    results = storage.read_json(storage.join(run, "results.json"))
    assert (results["classes"], results["epochs"][0]["num_images"]) == (["cat"], 3)
    assert (results["metrics"]["overall"]["num_images"], results["metrics"]["overall"]["num_objects"]) == (3, 3)
