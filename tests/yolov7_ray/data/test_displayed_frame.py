"""Datasets in the frame of the displayed picture: sizes, boxes and outlines of images that EXIF turns."""

import io

import pytest
from conftest import coco_source, ingest_here, jpeg, make_voc, make_yolo, write_coco_json
from PIL import Image
from yolov7_ray.data.doctor.image_checks import examine_header
from yolov7_ray.data.ingest.image_header import image_size_hw
from yolov7_ray.data.ingest.rows import TURNED, build_row
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.data.sources.read import read_source
from yolov7_ray.data.sources.spec import CocoSource, VocSource, YoloSource

from yolov7.images.sample import decode_image


def rows_of(spec) -> list:
    """Rows of the split `train`, all classes kept."""
    return [row for row, _ in built(spec)]


def built(spec) -> list[tuple]:
    source = read_source(spec)
    kept = tuple(range(len(source.classes)))
    return [build_row(item, item.fetch(), kept) for item in source.splits["train"]]


def boxes(row) -> list[tuple]:
    return [tuple(box) for box in row.objects.boxes_xyxy.tolist()]


def reasons(spec) -> list[str]:
    return [problem.reason for _, problems in built(spec) for problem in problems]


def turned_jpeg(orientation: int) -> bytes:
    """Displayed 96 wide and 128 high for 5 to 8, else 128 wide and 96 high."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.open(io.BytesIO(jpeg(0))).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def turned_coco(root, orientation: int, **size) -> CocoSource:
    (root / "train").mkdir(parents=True)
    (root / "train/a.jpg").write_bytes(turned_jpeg(orientation))
    write_coco_json(root / "train.json", [{"id": 1, "file_name": "a.jpg", **size}], [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40], "segmentation": [[10, 20, 40, 20, 40, 60]]}])
    return coco_source(root, ("train",))


@pytest.mark.parametrize(("orientation", "box", "ring"), [
    (5, (20, 10, 60, 40), [20, 10, 20, 40, 60, 40]), (6, (36, 10, 76, 40), [76, 10, 76, 40, 36, 40]),
    (7, (36, 88, 76, 118), [76, 118, 76, 88, 36, 88]), (8, (20, 88, 60, 118), [20, 118, 20, 88, 60, 88])])
def test_boxes_of_the_stored_frame_are_turned_and_counted(tmp_path, orientation, box, ring):
    source = turned_coco(tmp_path, orientation, width=128, height=96)
    [row] = rows_of(source)
    assert (row.height_px, row.width_px) == (128, 96) and boxes(row) == [box]
    assert row.objects.xy.tolist() == ring
    assert reasons(source) == [TURNED]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", ["displayed", "none", "other"])
def test_boxes_of_the_displayed_frame_stay(tmp_path, orientation, size):
    width, height = (96, 128) if orientation > 4 else (128, 96)
    declared = {"displayed": {"width": width, "height": height}, "none": {}, "other": {"width": "?", "height": 7}}[size]
    source = turned_coco(tmp_path, orientation, **declared)
    [row] = rows_of(source)
    assert (row.height_px, row.width_px) == (height, width) and boxes(row) == [(10, 20, 40, 60)]
    assert reasons(source) == []


def test_voc_declares_a_size_and_yolo_means_the_displayed_picture(tmp_path):
    voc, yolo = make_voc(tmp_path / "voc"), make_yolo(tmp_path / "yolo")
    source = VocSource(format="voc", uri=str(voc), splits={"train": "ImageSets/Main/train.txt"})
    [before, *_] = rows_of(source)
    name = before.file_name
    (voc / "JPEGImages" / name).write_bytes(turned_jpeg(6))
    path = voc / "Annotations" / name.replace(".jpg", ".xml")
    assert boxes(rows_of(source)[0])[0] == boxes(before)[0], "no size: as displayed"
    path.write_text(path.read_text().replace(
        "<width>0</width><height>0</height>", "<width>128</width><height>96</height><depth>3</depth>"))
    x1, y1, x2, y2 = boxes(before)[0]
    assert boxes(rows_of(source)[0])[0] == (96 - y2, x1, 96 - y1, x2)

    (yolo / "images/train/0.jpg").write_bytes(turned_jpeg(6))
    row = rows_of(YoloSource(format="yolo", uri=str(yolo), splits={"train": "images/train"}))[0]
    assert (row.height_px, row.width_px) == (128, 96) and boxes(row)[0] == (36, 32, 60, 96)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_recorded_size_is_that_of_the_decoded_picture(file_format, orientation):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.open(io.BytesIO(jpeg(0))).save(buffer, file_format, exif=exif)
    size_hw = (128, 96) if orientation > 4 else (96, 128)
    assert image_size_hw(buffer.getvalue()) == decode_image(buffer.getvalue()).shape[:2] == size_hw
    problems = dict(examine_header(buffer.getvalue(), size_hw))
    assert problems == ({"turned by EXIF": f"orientation {orientation}"} if orientation > 1 else {})
    if orientation > 4:
        assert "size differs from the record" in dict(examine_header(buffer.getvalue(), size_hw[::-1]))


def test_a_turned_image_is_read_as_ingested(tmp_path):
    """From annotations in the stored frame to the sample that is trained on, and what the manifest tells."""
    ingest_here(turned_coco(tmp_path / "raw", 6, width=128, height=96), str(tmp_path / "set"), strict=True)
    manifest = load_manifest(str(tmp_path / "set"))
    assert manifest.dropped == {TURNED: 1}
    sample = ArrowDataset(str(tmp_path / "set"), "train").read(0)
    assert sample.image.shape == (128, 96, 3) and sample.boxes_xyxy.tolist() == [[36, 10, 76, 40]]
    assert sample.polygons[0][0].tolist() == [[76, 10], [76, 40], [36, 40]]
