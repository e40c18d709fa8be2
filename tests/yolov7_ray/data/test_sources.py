"""Raw formats → items and rows: coordinates, classes, and every kind of bad row."""

import io
import json
import pickle
import struct
import tracemalloc

import cv2
import numpy as np
import pyarrow as pa
import pytest
from conftest import coco_source, jpeg, make_coco, make_voc, make_yolo, png, real_data, write_coco_json
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from yolov7_ray import storage
from yolov7_ray.data.ingest.image_header import image_size_hw, whole_jpeg_size_hw, whole_png_size_hw
from yolov7_ray.data.ingest.rows import CLIPPED, LEFT_OUT, build_row, record_batch
from yolov7_ray.data.manifest import ARROW_SCHEMA
from yolov7_ray.data.sources.item import Item, Raw
from yolov7_ray.data.files.json_stream import JsonObject, NotJson
from yolov7_ray.data.sources.objects import UNUSABLE, Annotation, Objects, Problem
from yolov7_ray.data.sources.read import read_source
from yolov7_ray.data.sources.spec import CocoSource, ShapesSource, VocSource, YoloSource
from yolov7_ray.data.sources.voc_xml import parse
from yolov7_ray.data.sources.yolo import parse_labels
from yolov7_ray.data.sources.yolo_folder import label_candidates
from yolov7_ray.errors import JobError

from yolov7.images.sample import decode_image

ITEM = Item(image_id=5, file_name="x.jpg", num_bytes=1, mark="")


def rows_of(source, split="train"):
    """Rows and problems of one split, all classes kept."""
    kept = tuple(range(len(source.classes)))
    built = [build_row(item, item.fetch(), kept) for item in source.splits[split]]
    return [row for row, _ in built], [problem for _, problems in built for problem in problems]


def labels(row) -> list[int]:
    return row.objects.labels.tolist()


def boxes(row) -> list[tuple]:
    return [tuple(box) for box in row.objects.boxes_xyxy.tolist()]


def reasons(source, split="train") -> list[str]:
    """Of all problems by which something is lost, those without an item first."""
    return [r["reason"] for r in source.problems.get(split, ()) if r["dropped"]] + [p.reason for p in rows_of(source, split)[1]]


# --- rows -----------------------------------------------------------------------------------------------


def box_row(*boxes, relative=False, **fields):
    raw = Raw(jpeg(0), Objects.of([Annotation(0, box, **fields) for box in boxes]), relative)
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
    assert boxes(row) == ([kept] if kept else []) + [(1, 1, 9, 9)]  # the image and its good objects stay
    assert [problem.reason for problem in problems] == ([reason] if reason else [])


@given(st.tuples(*[st.floats(-200, 300)] * 4))
def test_kept_boxes_lie_inside_and_have_area(box):
    row, problems = build_row(ITEM, Raw(TINY, Objects.of([Annotation(0, box)])), (0,))
    assert len(row.objects) + sum(p.reason != CLIPPED for p in problems) == 1
    for x0, y0, x1, y1 in boxes(row):
        assert 0 <= x0 < x1 <= 24 and 0 <= y0 < y1 <= 16


TINY = jpeg(1, 16, 24)


def test_area_is_the_annotated_one_or_the_boxs():
    assert box_row((0, 0, 10, 10), area=42.5)[0].objects.area == [42.5]
    assert box_row((0, 0, 10, 10))[0].objects.area == [100]


def test_relative_coordinates_are_scaled():
    ring = np.array([0.25, 0.25, 0.5, 0.25, 0.5, 0.75], np.float32)
    row, _ = box_row((0.25, 0.25, 0.5, 0.75), relative=True, polygons=(ring,))
    assert boxes(row) == [(32, 24, 64, 72)]
    np.testing.assert_array_equal(row.objects.xy, [32, 24, 64, 24, 64, 72])


def test_classes_not_asked_for_are_counted():
    raw = Raw(jpeg(0), Objects.of([Annotation(0, (0, 0, 5, 5)), Annotation(1, (0, 0, 6, 6))]))
    row, problems = build_row(ITEM, raw, (None, 0))
    assert labels(row) == [0] and boxes(row) == [(0, 0, 6, 6)]
    assert [(problem.reason, problem.count) for problem in problems] == [(LEFT_OUT, 1)]


def test_problems_stand_in_the_order_of_the_annotations():
    raw = Raw(jpeg(0), Objects.of([
        Annotation(0, (500, 0, 510, 5)), Problem("malformed box", "first"), Annotation(0, (0, 0, 5, 5)),
        Annotation(1, (0, 0, 0, 0)), Annotation(0, (-9, 0, 5, 5)), Problem("unknown class", "last")]))
    row, problems = build_row(ITEM, raw, (0, None))
    assert [problem.reason for problem in problems] == [LEFT_OUT, "box outside the image", "malformed box",
                                                        CLIPPED, "unknown class"]
    assert boxes(row) == [(0, 0, 5, 5), (0, 0, 5, 5)]


# --- columns --------------------------------------------------------------------------------------------


@st.composite
def annotations(draw) -> Annotation | Problem:
    if draw(st.integers(0, 4)) == 0:
        return Problem("malformed box", draw(st.text(max_size=3)))
    x0, y0 = draw(st.floats(0, 20)), draw(st.floats(0, 10))
    rings = draw(st.lists(st.lists(st.floats(0, 16, width=32), min_size=6, max_size=10), max_size=3))
    return Annotation(draw(st.integers(0, 3)), (x0, y0, x0 + draw(st.floats(0.5, 4)), y0 + draw(st.floats(0.5, 6))),
                      draw(st.booleans()), draw(st.none() | st.floats(0, 100)),
                      tuple(np.array(ring[:len(ring) // 2 * 2], np.float32) for ring in rings))


def single(objects: Objects) -> list:
    """What `Objects.of` was made of."""
    ends = objects.ends(np.ones(len(objects), np.int64))
    return [parts.problems.get(0) or (parts.labels.tolist(), parts.boxes_xyxy.tolist(), parts.iscrowd.tolist(),
                                      parts.area.tobytes(), parts.ring_lengths.tolist(), parts.xy.tolist())
            for parts in map(objects.cut, ends[:-1], ends[1:])]


@settings(deadline=None)
@given(st.lists(annotations(), max_size=8), st.data())
def test_taken_and_cut_objects_are_those_of_the_list(entries, data):
    objects = Objects.of(entries)
    whole = [single(Objects.of([entry]))[0] for entry in entries]
    assert single(objects) == whole
    assert [entry is not None for entry in map(objects.problems.get, range(len(entries)))] == [
        label == UNUSABLE for label in objects.labels]
    chosen = data.draw(st.lists(st.integers(0, max(len(entries) - 1, 0)), max_size=6 if entries else 0))
    assert single(objects.take(np.array(chosen, np.int64))) == [whole[position] for position in chosen]
    first = data.draw(st.integers(0, len(entries)))
    ends = objects.ends(np.array([first, len(entries) - first]))
    assert [*single(objects.cut(*ends[:2])), *single(objects.cut(*ends[1:]))] == whole


@settings(deadline=None)
@given(st.lists(st.lists(annotations(), max_size=4), min_size=1, max_size=5))
def test_columns_are_those_that_arrow_makes_of_the_values(images):
    """To the byte, so that a shard's digest depends on its values alone."""
    rows = [build_row(ITEM, Raw(TINY, Objects.of(entries)), tuple(range(4)))[0] for entries in images]
    values = [{"image_id": 5, "file_name": "x.jpg", "image": TINY, "height_px": 16, "width_px": 24,
               "boxes_xyxy": boxes(row), "labels": labels(row), "iscrowd": row.objects.iscrowd.tolist(),
               "area": row.objects.area.tolist(),
               "polygons": [[ring.tolist() for ring in entry.polygons] for entry in entries
                            if isinstance(entry, Annotation)]} for row, entries in zip(rows, images, strict=True)]
    assert ipc(record_batch(rows)) == ipc(pa.RecordBatch.from_pylist(values, ARROW_SCHEMA))


def ipc(batch: pa.RecordBatch) -> bytes:
    batch.validate(full=True)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


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


def saved(mode: str, **options) -> bytes:
    """A PNG of Pillow's."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).convert(mode).save(
        file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("data", [
    encoded(".png"), encoded(".png", channels=1), encoded(".png", channels=4), encoded(".png", dtype=np.uint16),
    saved("1"), saved("P"), saved("LA"), saved("RGB", optimize=True, dpi=(72, 72)), saved("P") + bytes(100)])
def test_common_pngs_need_no_decoding(data):
    assert whole_png_size_hw(data) == decode_image(data).shape[:2] == (50, 70)


def test_uncommon_and_damaged_pngs_are_decoded_to_find_out():
    animation = saved("RGB", save_all=True, append_images=[Image.new("RGB", (70, 50))])
    assert b"acTL" in animation and whole_png_size_hw(animation) is None
    whole = bytearray(encoded(".png"))
    for position in (9, 20, 30, len(whole) // 2, len(whole) - 6):  # of every chunk, its length or its checksum
        damaged = whole.copy()
        damaged[position] ^= 1
        assert whole_png_size_hw(bytes(damaged)) is None


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
    row, problems = build_row(ITEM, Raw(data, Objects.of([])), (0,))
    assert row is None and problems[0].reason == "undecodable image" and problems[0].is_image


# --- COCO -----------------------------------------------------------------------------------------------


def test_coco(tmp_path):
    source = read_source(coco_source(make_coco(tmp_path)))
    assert source.classes == ("cat", "dog") and source.class_ids == (3, 7)
    rows, problems = rows_of(source)
    assert not problems and [row.image_id for row in rows] == list(range(100, 106))
    row = rows[1]
    assert row.file_name == "0001.jpg" and row.image == jpeg(101) and (row.height_px, row.width_px) == (96, 128)
    assert boxes(row) == [(10, 20, 40, 60), (50.5, 8, 110.5, 72)]
    assert labels(row) == [0, 1] and row.objects.iscrowd.tolist() == [False, True]
    assert row.objects.area.tolist() == [700.5, 3840]
    assert row.objects.num_rings.tolist() == [1, 0]  # a run-length mask is no polygon
    np.testing.assert_array_equal(row.objects.xy, [10, 20, 40, 20, 40, 60])


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
        "annotation of an unknown image", "missing image file", "unknown class", "malformed box", "box outside the image", "box without area", CLIPPED,
        "undecodable image"]
    rows, _ = rows_of(source)
    assert len(rows[0].objects) == 5 and rows[1] is None


@pytest.mark.parametrize("text, message", [
    ("{nonsense", "train.json: is not JSON"), ("[]", "has no list 'images'"),
    ('{"images": []}', "has no list 'categories'"), ('{"images": [], "categories": []}', "it has no classes"),
    ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
     "several classes are called 'a'"),
    ('{"images": [], "categories": [], "annotations": null}', "has no list 'annotations'"),
    ('{"images": [], "categories": []', r"is not JSON .Expecting ',' or '}': char 31"),
    ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2', r"is not JSON .Expecting ',' delimiter: char 49"),
    ('{"images": [], "categories": []} {}', "is not JSON .Extra data: char 33"),
    ('{"images": [{"id": [1], "file_name": "a"}], "categories": []}', "not COCO's .TypeError"),
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


def test_coco_ids_of_any_kind(tmp_path):
    """Ids link by equality, whatever their JSON type; those of annotations may repeat."""
    make_coco(tmp_path, 1, ("train",))
    good = {"image_id": 100.0, "category_id": 3, "bbox": [1, 2, 3, 4]}
    annotations = [{**good, "id": "a"}, {**good, "id": "a"}, {**good, "id": None}, dict(good), {**good, "id": 2**70},
                   {**good, "id": 2**70}, {**good, "id": 7}, {**good, "id": 7.0}, {**good, "category_id": "3"},
                   {**good, "id": 8, "image_id": "100"}]
    write_coco_json(tmp_path / "train.json", [{"id": "100", "file_name": "0000.jpg"}], annotations)
    source = read_source(coco_source(tmp_path, ("train",)))
    [row], problems = rows_of(source)
    assert labels(row) == [0] * 10 and row.image_id == 100 and not problems and not source.problems["train"]


@pytest.mark.parametrize("order", ["annotations images categories info", "info categories annotations images"])
def test_coco_lists_in_any_order(tmp_path, order):
    make_coco(tmp_path, 3, ("train",))
    wanted = read_source(coco_source(tmp_path, ("train",)))
    document = json.loads((tmp_path / "train.json").read_text())
    document["info"] = {"description": "é", "licenses": [1, [2]]}
    document["annotations"].reverse()
    text = json.dumps({key: document[key] for key in order.split()}, indent=1, ensure_ascii=False)
    (tmp_path / "train.json").write_text(text, encoding="utf-8-sig")
    source = read_source(coco_source(tmp_path, ("train",)))
    assert [boxes(row)[::-1] for row in rows_of(source)[0]] == [boxes(row) for row in rows_of(wanted)[0]]
    assert source.inputs == (storage.digest(text.encode()),)


def test_coco_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("yolov7_ray.data.sources.instances.CHUNK_BYTES", 1 << 15)
    ring = np.arange(100, dtype=float).tolist()
    write_coco_json(tmp_path / "train.json", [{"id": index, "file_name": "0.jpg"} for index in range(100)], [
        {"id": index, "image_id": index % 100, "category_id": 3, "bbox": [1.5, 2, 3, 4], "segmentation": [ring]}
        for index in range(1500)])
    (tmp_path / "train").mkdir()
    (tmp_path / "train/0.jpg").touch()
    source, peak_bytes = coco_source(tmp_path, ("train",)), {}
    for name, read in {"json": lambda: json.loads((tmp_path / "train.json").read_text()),
                       "source": lambda: read_source(source)}.items():
        tracemalloc.start()
        read()
        peak_bytes[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes["source"] < peak_bytes["json"] / 2


def test_a_part_of_coco_takes_only_its_own_objects_along(tmp_path):
    items = read_source(coco_source(make_coco(tmp_path, 40, ("train",)), ("train",))).splits["train"]
    part = pickle.loads(pickle.dumps(items[20:23]))
    assert len(part) == 3 and len(part.objects) == 6
    kept = (0, 1)
    for copied, item in zip(part, items[20:23], strict=True):
        assert copied.image_id == item.image_id and copied.file_name == item.file_name
        [row, _], [wanted, _] = build_row(copied, copied.fetch(), kept), build_row(item, item.fetch(), kept)
        assert ipc(record_batch([row])) == ipc(record_batch([wanted]))


def test_coco_real():
    source = read_source(CocoSource(format="coco", uri=str(real_data("coco-tiny"))))
    rows, problems = rows_of(source, "val")
    assert len(source.classes) == 80 and source.class_ids[-1] == 90 and len(rows) == 80
    assert not [p for p in problems if p.reason != CLIPPED]
    assert any(row.objects.iscrowd.any() for row in rows) or sum(len(row.objects) for row in rows) > 500


# --- JSON piece by piece --------------------------------------------------------------------------------

JSON_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                           lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner,
                                                                                       max_size=3), max_leaves=6)


def streamed(text: str, piece: int) -> dict:
    """The object in `text`, read in pieces of so many characters, lists entry by entry."""
    document = JsonObject(text[at:at + piece] for at in range(0, len(text), piece))
    return {key: list(document.entries()) if document.is_list() else document.value() for key in document.keys()}


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=4), st.integers(1, 9), st.booleans(),
       st.none() | st.integers(0, 2))
def test_json_in_pieces_is_the_same_json(value, piece, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert streamed(f" {text}\n", piece) == value


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), JSON_VALUES, min_size=1, max_size=3), st.integers(1, 9), st.data())
def test_what_is_not_json_is_refused_in_pieces_too(value, piece, data):
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = data.draw(st.sampled_from([text[:at], text[:at] + "," + text[at:], text[:at] + text[at + 1:]]))
    try:
        wanted = json.loads(damaged)
    except ValueError:
        with pytest.raises(NotJson):
            streamed(damaged, piece)
    else:
        assert streamed(damaged, piece) == (wanted if isinstance(wanted, dict) else {})


# --- YOLO -----------------------------------------------------------------------------------------------


def test_yolo(tmp_path):
    source = read_source(YoloSource(format="yolo", uri=str(make_yolo(tmp_path))))
    assert source.classes == ("cat", "dog") and [item.image_id for item in source.splits["val"]] == [0, 1, 2, 3]
    rows, problems = rows_of(source)
    assert not problems
    assert rows[0].file_name == "images/train/0.jpg" and labels(rows[0]) == [0, 1]
    assert boxes(rows[0]) == [(48, 24, 80, 72), (32, 24, 64, 72)]
    assert rows[0].objects.num_rings.tolist() == [0, 1]
    assert labels(rows[3]) == []  # no label file: an image without objects


@pytest.mark.parametrize("names", ["[on, off, 010, null]", "\n- on\n- off\n- 010\n- null\n",
                                   "{0: on, 1: off, 2: 010, 3: null}", "{3: null, 2: '010', 1: off, 0: on}"])
def test_yolo_class_names_are_text_as_written(tmp_path, names):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"nc: 4\nnames: {names}\n")
    assert read_source(YoloSource(format="yolo", uri=str(tmp_path))).classes == ("on", "off", "010", "null")


@pytest.mark.parametrize("name", ["~", "1e3", "yes", "1:30", "0x1f", ".nan", "true", "2024-01-01", "1_000"])
def test_yolo_class_names_of_every_kind_of_value(tmp_path, name):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: [cat, {name}]\n")
    assert read_source(YoloSource(format="yolo", uri=str(tmp_path))).classes == ("cat", name)


@pytest.mark.parametrize(("names", "problem"), [
    ("cat\nnc: 2", "it must be a list of names"), ("{0: cat, 2: dog}", "2 names, but none for class 1"), ("[]", "it must be a list"),
    ("[cat, [dog]]", "class 1 is"), ("[cat, ]\nx: [", "data.yaml"), ("[cat, '']", "class 1 is '', not a name")])
def test_yolo_names_that_are_none(tmp_path, names, problem):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(JobError, match=f"has no usable `names` .*{problem}|{problem}.*has no usable"):
        read_source(YoloSource(format="yolo", uri=str(tmp_path)))


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
    assert next(label_candidates("images/train/a.b.jpg")) == "labels/train/a.b.txt"
    assert next(label_candidates("images/images/x.png")) == "images/labels/x.txt"
    assert next(label_candidates("photos/x.png")) == "photos/x.txt"


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
    assert boxes(rows[0]) == [(0, 0, 64, 48), (64, 48, 128, 96)]  # together they tile without gap or overlap
    assert labels(rows[0]) == [1, 0] and rows[0].objects.iscrowd.tolist() == [False, True]


def test_voc_bad_rows(tmp_path):
    make_voc(tmp_path, 6)
    (tmp_path / "Annotations/img_0.xml").unlink()
    (tmp_path / "Annotations/img_1.xml").write_text("<annotation><object>")
    (tmp_path / "JPEGImages/img_2.jpg").unlink()
    with open(tmp_path / "ImageSets/Main/train.txt", "a") as file:
        file.write("img_3\n")
    source = read_source(VocSource(format="voc", uri=str(tmp_path), classes=["dog"]))
    assert reasons(source) == ["missing annotation file", "malformed annotation file", "missing image file",
                               "unknown class", "unknown class"]


def test_voc_objects():
    parsed = parse("<a><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object><object/></a>")
    assert [problem.reason for problem in parsed.objects] == ["malformed box", "unknown class"]


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
    assert not problems and all(len(row.objects) and row.objects.num_rings.all() for row in rows)


def test_any_number_of_shapes_takes_no_memory():
    tracemalloc.start()
    source = read_source(ShapesSource(format="shapes", splits={"train": 10**7, "val": 5}, image_size_px=64))
    assert tracemalloc.get_traced_memory()[1] < 1e5
    tracemalloc.stop()
    items = source.splits["train"]
    assert len(items) == 10**7 and items[-1].image_id == 10**7 - 1 and source.splits["val"][0].image_id == 10**7
    assert len(pickle.dumps(items[1000:10**6])) < 1000 and items[1000:10**6][5] == items[1005]


def test_alpha_png_is_an_image():
    row, problems = build_row(ITEM, Raw(png(0), Objects.of([])), (0,))
    assert (row.height_px, row.width_px) == (96, 128) and not problems
