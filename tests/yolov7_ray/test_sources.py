"""Raw formats → items and rows: coordinates, classes, and every kind of bad row."""

import json
import struct

import cv2
import numpy as np
import pytest
from conftest import (coco_source, jpeg, make_coco, make_voc, make_yolo, png, real_data, write_coco_json)
from hypothesis import given
from hypothesis import strategies as st

from yolov7.sample import decode_image
from yolov7_ray.data.header import image_size_hw, whole_jpeg_size_hw
from yolov7_ray.data.rows import CLIPPED, build_row
from yolov7_ray.data.sources import Annotation, Item, Problem, Raw, read_source
from yolov7_ray.data.sources.voc import parse_objects
from yolov7_ray.data.sources.yolo import labels_path, parse_labels
from yolov7_ray.errors import JobError
from yolov7_ray.spec import CocoSource, ShapesSource, VocSource, YoloSource

ITEM = Item(image_id=5, file_name="x.jpg", num_bytes=1, mark="")


def rows_of(source, split="train"):
    """Rows and problems of one split, all classes kept."""
    kept = tuple(range(len(source.classes)))
    built = [build_row(item, item.fetch(), kept) for item in source.splits[split]]
    return [row for row, _ in built], [problem for _, problems in built for problem in problems]


def reasons(source, split="train") -> list[str]:
    """Of all problems, those without an item first."""
    return [r["reason"] for r in source.problems.get(split, ())] + [p.reason for p in rows_of(source, split)[1]]


# --- rows -----------------------------------------------------------------------------------------------


def box_row(*boxes, relative=False, **fields):
    raw = Raw(jpeg(0), [Annotation(0, box, **fields) for box in boxes], relative)
    return build_row(ITEM, raw, (0,))


@pytest.mark.parametrize("box, kept, reason", [
    ((10, 20, 30, 40), (10, 20, 30, 40), None),
    ((-5, -5, 30, 40), (0, 0, 30, 40), CLIPPED),
    ((100, 50, 128.01, 96.01), (100, 50, 128, 96), None),  # rounding of the source
    ((100, 50, 140, 100), (100, 50, 128, 96), CLIPPED),
    ((128, 10, 150, 20), None, "box outside the image"),
    ((-20, 10, 0, 20), None, "box outside the image"),
    ((10, 20, 10, 40), None, "box without area"),
    ((30, 20, 10, 40), None, "box without area"),
    ((10, 20, float("nan"), 40), None, "box is not finite"),
    ((10, 20, float("inf"), 40), None, "box is not finite"),
])
def test_boxes_are_clipped_or_dropped(box, kept, reason):
    row, problems = box_row(box, (1, 1, 9, 9))
    assert row.boxes_xyxy == ([kept] if kept else []) + [(1, 1, 9, 9)]  # the image and its good objects stay
    assert [problem.reason for problem in problems] == ([reason] if reason else [])


@given(st.tuples(*[st.floats(-200, 300)] * 4))
def test_kept_boxes_lie_inside_and_have_area(box):
    row, problems = build_row(ITEM, Raw(TINY, [Annotation(0, box)]), (0,))
    assert len(row.boxes_xyxy) + sum(p.reason != CLIPPED for p in problems) == 1
    for x0, y0, x1, y1 in row.boxes_xyxy:
        assert 0 <= x0 < x1 <= 24 and 0 <= y0 < y1 <= 16


TINY = jpeg(1, 16, 24)


def test_area_is_the_annotated_one_or_the_boxs():
    assert box_row((0, 0, 10, 10), area=42.5)[0].area == [42.5]
    assert box_row((0, 0, 10, 10))[0].area == [100]


def test_relative_coordinates_are_scaled():
    ring = np.array([0.25, 0.25, 0.5, 0.25, 0.5, 0.75], np.float32)
    row, _ = box_row((0.25, 0.25, 0.5, 0.75), relative=True, polygons=(ring,))
    assert row.boxes_xyxy == [(32, 24, 64, 72)]
    np.testing.assert_array_equal(row.polygons[0][0], [32, 24, 64, 24, 64, 72])


def test_classes_not_asked_for_leave_without_a_problem():
    raw = Raw(jpeg(0), [Annotation(0, (0, 0, 5, 5)), Annotation(1, (0, 0, 6, 6))])
    row, problems = build_row(ITEM, raw, (None, 0))
    assert row.labels == [0] and row.boxes_xyxy == [(0, 0, 6, 6)] and not problems


# --- headers --------------------------------------------------------------------------------------------


def encoded(extension: str, *flags: int, channels: int = 3, dtype=np.uint8) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (50, 70, channels)).astype(dtype)
    return cv2.imencode(extension, image, list(flags))[1].tobytes()


@pytest.mark.parametrize("data", [
    encoded(".jpg"), encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encoded(".jpg", channels=1),
    encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2), encoded(".png"), encoded(".png", channels=4),
    encoded(".png", dtype=np.uint16), encoded(".webp"), encoded(".bmp"), encoded(".jpg") + bytes(500)])
def test_sizes_are_those_of_the_decoder(data):
    assert image_size_hw(data) == decode_image(data).shape[:2] == (50, 70)


def test_common_jpegs_need_no_decoding():
    assert whole_jpeg_size_hw(encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == (50, 70)
    assert whole_jpeg_size_hw(encoded(".png")) is None


@given(st.floats(0, 1), st.sampled_from([".jpg", ".png", ".webp", ".bmp"]))
def test_an_accepted_size_means_that_it_decodes(part, extension):
    data = encoded(extension)
    cut = data[:int(len(data) * part)]
    try:
        size_hw = image_size_hw(cut)
    except ValueError:
        with pytest.raises(ValueError):
            decode_image(cut)
    else:
        assert decode_image(cut).shape[:2] == size_hw


@given(st.binary(max_size=200))
def test_noise_is_no_image(noise):
    for data in (noise, b"\xff\xd8" + noise, b"\xff\xd8\xff\xc0" + struct.pack(">H", 11) + noise):
        try:
            image_size_hw(data)
        except ValueError:
            continue
        assert decode_image(data) is not None


@pytest.mark.parametrize("data", [b"", b"not an image", jpeg(0)[:300], jpeg(0)[:-40]])
def test_undecodable_images_are_dropped(data):
    row, problems = build_row(ITEM, Raw(data, []), (0,))
    assert row is None and problems[0].reason == "undecodable image" and problems[0].is_image


# --- COCO -----------------------------------------------------------------------------------------------


def test_coco(tmp_path):
    source = read_source(coco_source(make_coco(tmp_path)))
    assert source.classes == ("cat", "dog") and source.class_ids == (3, 7)
    rows, problems = rows_of(source)
    assert not problems and [row.image_id for row in rows] == list(range(100, 106))
    row = rows[1]
    assert row.file_name == "0001.jpg" and row.image == jpeg(101) and (row.height_px, row.width_px) == (96, 128)
    assert row.boxes_xyxy == [(10, 20, 40, 60), (50.5, 8, 110.5, 72)]
    assert row.labels == [0, 1] and row.iscrowd == [False, True] and row.area == [700.5, 3840]
    assert [len(rings) for rings in row.polygons] == [1, 0]  # a run-length mask is no polygon
    np.testing.assert_array_equal(row.polygons[0][0], [10, 20, 40, 20, 40, 60])


def test_coco_bad_rows_are_reported(tmp_path):
    make_coco(tmp_path, 2, ("train",))
    document = json.loads((tmp_path / "train.json").read_text())
    images, annotations = document["images"], document["annotations"]
    images += [dict(images[0]), {"id": 999, "file_name": "gone.jpg"}]
    good = annotations[0]
    annotations += [
        {**good, "image_id": 12345, "id": 1}, dict(good), {**good, "id": 2, "category_id": 90},
        {**good, "id": 3, "bbox": [1, 2, 3]}, {**good, "id": 4, "bbox": [500, 500, 3, 3]},
        {**good, "id": 5, "bbox": [5, 5, 0, 9]}, {**good, "id": 6, "bbox": [100, 5, 60, 9]},
        {**good, "id": 7, "area": None, "segmentation": [[1, 2], "x"]}]
    write_coco_json(tmp_path / "train.json", images, annotations)
    (tmp_path / "train" / "0001.jpg").write_bytes(jpeg(0)[:500])
    source = read_source(coco_source(tmp_path, ("train",)))
    assert reasons(source) == [
        "annotation of an unknown image", "duplicate image id", "missing image file", "duplicate annotation id",
        "unknown class", "malformed box", "box outside the image", "box without area", CLIPPED,
        "undecodable image"]
    rows, _ = rows_of(source)
    assert len(rows[0].labels) == 4 and rows[1] is None


@pytest.mark.parametrize("text, message", [
    ("{nonsense", "train.json: is not JSON"), ("[]", "has no list 'images'"),
    ('{"images": []}', "has no list 'categories'"), ('{"images": [], "categories": []}', "it has no classes"),
    ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
     "several classes are called 'a'"),
    ('{"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}]}', "not COCO's .KeyError.'file_name'"),
    ('{"images": [], "categories": [{"name": "a"}]}', "not COCO's .KeyError.'id'"),
    ('{"images": [], "annotations": [3], "categories": [{"id": 1, "name": "a"}]}', "not COCO's .AttributeError")])
def test_coco_unusable_documents(tmp_path, text, message):
    make_coco(tmp_path, 1, ("train",))
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(JobError, match=message):
        read_source(coco_source(tmp_path, ("train",)))


def test_coco_missing_places(tmp_path):
    with pytest.raises(JobError, match="instances_train2017.json: there is no such file; check source.uri"):
        read_source(CocoSource(format="coco", uri=str(tmp_path)))
    write_coco_json(tmp_path / "train.json", [], [])
    with pytest.raises(JobError, match="there are no images here"):
        read_source(coco_source(tmp_path, ("train",)))


def test_coco_splits_must_agree_on_categories(tmp_path):
    make_coco(tmp_path, 1)
    text = (tmp_path / "val.json").read_text().replace("dog", "cow")
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(JobError, match="category 7 is 'dog' in one split and 'cow' in split 'val'"):
        read_source(coco_source(tmp_path))


def test_coco_real():
    source = read_source(CocoSource(format="coco", uri=str(real_data("coco-tiny"))))
    rows, problems = rows_of(source, "val")
    assert len(source.classes) == 80 and source.class_ids[-1] == 90 and len(rows) == 80
    assert not [p for p in problems if p.reason != CLIPPED]
    assert any(row.iscrowd.count(True) for row in rows) or sum(len(row.labels) for row in rows) > 500


# --- YOLO -----------------------------------------------------------------------------------------------


def test_yolo(tmp_path):
    source = read_source(YoloSource(format="yolo", uri=str(make_yolo(tmp_path))))
    assert source.classes == ("cat", "dog") and [item.image_id for item in source.splits["val"]] == [0, 1, 2, 3]
    rows, problems = rows_of(source)
    assert not problems
    assert rows[0].file_name == "images/train/0.jpg" and rows[0].labels == [0, 1]
    assert rows[0].boxes_xyxy == [(48, 24, 80, 72), (32, 24, 64, 72)]
    assert [len(rings) for rings in rows[0].polygons] == [0, 1]
    assert rows[3].labels == []  # no label file: an image without objects


def test_yolo_list_file_and_classes_txt(tmp_path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "some.txt").write_text(f"./images/val/2.jpg\n{tmp_path}/images/val/0.jpg\n\nimages/val/7.jpg\n")
    source = read_source(YoloSource(format="yolo", uri=str(tmp_path), splits={"train": "some.txt"}))
    assert source.classes == ("a", "b")
    assert [item.file_name for item in source.splits["train"]] == ["images/val/2.jpg", "images/val/0.jpg"]
    assert reasons(source) == ["missing image file"]


def test_yolo_bad_lines():
    parsed = parse_labels("0 .5 .5 .2 .2\n\n2 .5 .5 .2 .2\nx 1 2 3 4\n1 .5 .5\n1 .1 .1 .2 .2 .3 .3 .4\n1.0 0 0 1 1", 2)
    assert [type(p) for p in parsed] == [Annotation, Problem, Problem, Problem, Problem, Annotation]
    assert [p.reason for p in parsed if isinstance(p, Problem)] == ["unknown class"] + ["malformed label"] * 3


@given(st.text(max_size=60))
def test_yolo_labels_never_raise(text):
    parse_labels(text, 3)


def test_yolo_label_paths():
    assert labels_path("images/train/a.b.jpg") == "labels/train/a.b.txt"
    assert labels_path("images/images/x.png") == "images/labels/x.txt"
    assert labels_path("photos/x.png") == "photos/x.txt"


def test_yolo_mistakes(tmp_path):
    with pytest.raises(JobError, match="neither data.yaml nor classes.txt; set source.classes"):
        read_source(YoloSource(format="yolo", uri=str(tmp_path)))
    (tmp_path / "data.yaml").write_text("nc: 3")
    with pytest.raises(JobError, match="no usable `names`"):
        read_source(YoloSource(format="yolo", uri=str(tmp_path)))
    with pytest.raises(JobError, match="images/train: there are no images here"):
        read_source(YoloSource(format="yolo", uri=str(tmp_path), classes=["a"]))


# --- Pascal VOC -----------------------------------------------------------------------------------------


def test_voc(tmp_path):
    source = read_source(VocSource(format="voc", uri=str(make_voc(tmp_path))))
    assert source.classes == ("cat", "dog") and len(source.splits["train"]) == 3 and len(source.splits["val"]) == 1
    rows, problems = rows_of(source)
    assert not problems
    assert rows[0].file_name == "img_0.jpg" and (rows[0].height_px, rows[0].width_px) == (96, 128)  # the header's
    assert rows[0].boxes_xyxy == [(0, 0, 64, 48), (64, 48, 128, 96)]  # together they tile without gap or overlap
    assert rows[0].labels == [1, 0] and rows[0].iscrowd == [False, True]


def test_voc_bad_rows(tmp_path):
    make_voc(tmp_path, 6)
    (tmp_path / "Annotations/img_0.xml").unlink()
    (tmp_path / "Annotations/img_1.xml").write_text("<annotation><object>")
    (tmp_path / "JPEGImages/img_2.jpg").unlink()
    with open(tmp_path / "ImageSets/Main/train.txt", "a") as file:
        file.write("img_3\n")
    source = read_source(VocSource(format="voc", uri=str(tmp_path), classes=["dog"]))
    assert reasons(source) == ["missing annotation file", "malformed annotation file", "missing image file",
                               "duplicate image id", "unknown class", "unknown class"]


def test_voc_objects():
    parsed = parse_objects("<a><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object><object/></a>")
    assert [problem.reason for problem in parsed] == ["malformed box", "unknown class"]


def test_voc_mistakes(tmp_path):
    with pytest.raises(JobError, match="JPEGImages: there are no images here"):
        read_source(VocSource(format="voc", uri=str(tmp_path)))
    make_voc(tmp_path)
    with pytest.raises(JobError, match="no.txt: there is no such file; check source.uri and source.splits"):
        read_source(VocSource(format="voc", uri=str(tmp_path), splits={"train": "no.txt"}))


def test_voc_real():
    source = read_source(VocSource(format="voc", uri=str(real_data("bccd", "BCCD"))))
    rows, _ = rows_of(source, "val")
    assert source.classes == ("Platelets", "RBC", "WBC") and len(rows) == 87
    assert {(row.height_px, row.width_px) for row in rows} == {(480, 640)}


# --- shapes ---------------------------------------------------------------------------------------------


def test_shapes_are_in_one_split_only():
    source = read_source(ShapesSource(format="shapes", splits={"train": 3, "val": 2}, image_size_px=64))
    assert [item.image_id for split in source.splits.values() for item in split] == [0, 1, 2, 3, 4]
    rows, problems = rows_of(source)
    assert not problems and all(row.labels and len(row.polygons) == len(row.labels) for row in rows)


def test_alpha_png_is_an_image():
    row, problems = build_row(ITEM, Raw(png(0), []), (0,))
    assert (row.height_px, row.width_px) == (96, 128) and not problems
