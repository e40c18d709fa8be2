"""Records with nested objects: Hugging Face, Parquet and WebDataset, exact boxes of each, and what is refused or lost.

`parquet_file` and `tar` make what the libraries `datasets` 5.2 and `webdataset` 1.0 write, column for column and member
for member, and read.
"""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ingest_here, jpeg, make_voc
from test_folders import boxes, rows_of, told, write

from yolov7_ray import storage
from yolov7_ray.data.ingest.ingest import ingest
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.sources.read import read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource, CsvSource, HuggingFaceSource, ParquetSource, WebDatasetSource
from yolov7_ray.data.sources.tables.records import row_groups
from yolov7_ray.errors import JobError

SOURCES = {"huggingface": HuggingFaceSource, "parquet": ParquetSource, "webdataset": WebDatasetSource}
FEATURES = {"image": {"_type": "Image"}, "objects": {
    "bbox": {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "List"},
             "_type": "List"},
    "category": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}}}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCT_OF_LISTS = pa.struct([("bbox", pa.list_(pa.list_(pa.float32(), 4))), ("category", pa.list_(pa.int64()))])
LIST_OF_STRUCTS = pa.list_(pa.struct([("bbox", pa.list_(pa.float32())), ("category", pa.string())]))


def image(seed: int, path: str | None = None) -> dict:
    return {"bytes": jpeg(seed), "path": path}


def parquet_file(columns: dict[str, tuple[list, pa.DataType]], features: dict | None = None, group: int = 100) -> bytes:
    table = pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group)
    return sink.getvalue()


def hub(images: list[dict], objects: list[dict]) -> bytes:
    return parquet_file({"image": (images, IMAGE), "objects": (objects, STRUCT_OF_LISTS)}, FEATURES, group=2)


def tar(members: dict[str, bytes | dict | list | str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in members.items():
            content = json.dumps(content).encode() if isinstance(content, dict | list) else content
            content = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def lines(*rows: dict | str) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def objects(*boxes: list, **others: list) -> dict:
    return {"bbox": list(boxes), **others}


FOLDER_FILES = {
    "train/a.jpg": jpeg(1), "train/b.jpg": jpeg(2), "validation/a.jpg": jpeg(3),
    "train/metadata.jsonl": lines(
        {"file_name": "a.jpg", "objects": objects([10, 20, 30, 40], [1, 2, 3, 4.5], categories=["dog", "cat"])},
        {"file_name": "b.jpg", "objects": objects(categories=[])}),
    "validation/metadata.jsonl": lines({"file_name": "a.jpg", "objects": objects([5.0, 6, 7, 8], categories=["cat"])})}
HUB_FILES = {
    "data/train-00000-of-00002.parquet": hub([image(1, "a.jpg"), image(2), image(3)], [
        {"bbox": [[10, 20, 30, 40]], "category": [1]}, {"bbox": [], "category": []}, None]),
    "data/train-00001-of-00002.parquet": hub([image(4, "d.jpg")], [{"bbox": [[1, 2, 3, 4.5]], "category": [0]}]),
    "data/test-00000-of-00001.parquet": hub([image(5, "a.jpg")], [{"bbox": [[5, 6, 7, 8]], "category": [0]}])}
PARQUET_FILES = {
    "train/0.parquet": parquet_file({
        "picture": ([jpeg(1), jpeg(2)], pa.large_binary()), "file_name": (["a.jpg", "b.jpg"], pa.string()),
        "annotations": ([[{"bbox": [10, 20, 30, 40], "category": "dog"}, {"bbox": [1, 2, 3, 4.5], "category": "cat"}],
                         []], LIST_OF_STRUCTS)}),
    "val/0.parquet": parquet_file({
        "picture": ([jpeg(3)], pa.large_binary()), "file_name": (["a.jpg"], pa.string()),
        "annotations": ([[{"bbox": [5, 6, 7, 8], "category": "cat"}]], LIST_OF_STRUCTS)})}
TAR_FILES = {
    "train-000000.tar": tar({
        "s/a.jpg": jpeg(1), "s/a.json": {"bbox": [[10, 20, 30, 40]], "labels": ["dog"]}, "s/a.cls": "1"}),
    "train-000001.tar": tar({
        "s/b.json": {"annotations": [{"bbox": [1, 2, 3, 4.5], "label": "cat"}], "width": 128, "height": 96},
        "s/b.jpeg": jpeg(2)}),
    "val-000000.tar": tar({"c.png": jpeg(3), "c.json": {"bbox": [[5, 6, 7, 8]], "labels": ["cat"]}})}
ALL = {"folder": FOLDER_FILES, "hub": HUB_FILES, "parquet": PARQUET_FILES, "tar": TAR_FILES}


def auto(root, **settings):
    return read_source(resolved(AutoSource(format="auto", uri=str(root), **settings)))


def source(kind, root, **settings):
    return read_source(SOURCES[kind](format=kind, uri=str(root), **settings))


def test_what_two_readings_ask_for_can_be_told_to_auto(tmp_path):
    parts = {"a.jpg": jpeg(1), "a.json": {"boxes": [[0.25, 0.25, 0.5, 0.75]], "labels": ["cat"]}}
    root = write(tmp_path / "raw", {"train-0.tar": tar(parts)})
    for told, key in (({}, "source.box"), ({"box": "xyxy"}, "source.coordinates")):
        with pytest.raises(JobError) as error:
            auto(root, **told)
        assert key in str(error.value), "and that key can be set"
    for place in (root, root / "train-0.tar"):
        found = auto(place, box="xyxy", coordinates="fractions")
        [row], _ = rows_of(found)
        assert boxes(row) == [[0.25 * 128, 0.25 * 96, 0.5 * 128, 0.75 * 96]]
    with pytest.raises(JobError, match="source.box: .* is read as voc, which says that itself; leave it out"):
        resolved(AutoSource(format="auto", uri=str(make_voc(tmp_path / "voc", 2)), box="xywh"))


def test_the_keys_of_a_format_hold_for_one_of_its_files(tmp_path):
    table = b"filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,0.25,0.25,0.5,0.75\n"
    root = write(tmp_path, {"train/a.jpg": jpeg(1), "train/boxes.csv": table})
    uri = str(root / "train/boxes.csv")
    found = read_source(resolved(CsvSource(format="csv", uri=uri, coordinates="fractions")))
    [row], _ = rows_of(found)
    assert boxes(row) == [[0.25 * 128, 0.25 * 96, 0.5 * 128, 0.75 * 96]]


# --- Hugging Face ---------------------------------------------------------------------------------------


def test_image_folder(tmp_path):
    found = auto(write(tmp_path, FOLDER_FILES))
    assert found.classes == ("cat", "dog")
    [first, second], problems = rows_of(found)
    assert (boxes(first), first.objects.labels.tolist()) == ([[10, 20, 40, 60], [1, 2, 4, 6.5]], [1, 0])
    assert boxes(second) == [] and problems == [] and told(found) == {}
    [row], _ = rows_of(found, "val")
    assert (boxes(row), row.image) == ([[5, 6, 12, 14]], jpeg(3))


def test_one_csv_for_all_splits_with_numbers_and_corners(tmp_path):
    text = ('file_name,objects\ntrain/a.jpg,"{""bbox"": [[10, 20, 30, 40]], ""category"": [1]}"\n'
            'test/b.jpg,"[{""bbox"": [1, 2, 3, 4], ""category"": 0}]"\n')
    write(tmp_path, {"train/a.jpg": jpeg(1), "test/b.jpg": jpeg(2), "metadata.csv": text})
    with pytest.raises(JobError, match="classes by number \\(0 to 1\\).*source.classes|source.classes.*by number"):
        auto(tmp_path)
    found = source("huggingface", tmp_path, box="xyxy", classes=["cat", "dog"])
    [row], _ = rows_of(found)
    assert (boxes(row), row.objects.labels.tolist()) == ([[10, 20, 30, 40]], [1])
    assert boxes(rows_of(found, "test")[0][0]) == [[1, 2, 3, 4]]


def test_image_folder_in_trouble(tmp_path):
    write(tmp_path, {f"{name}.jpg": jpeg(seed) for seed, name in enumerate("abcde")} | {
        "other/z.jpg": jpeg(9), "metadata.jsonl": lines(
            {"file_name": "a.jpg", "objects": objects([40, 60, -30, -40], [1, 1, 0, 5], [1, 2, 3], [5, 5, 5, 5],
                                                      category=["dog", "dog", "dog", None])},
            '{"file_name": "b.jpg", "objects": {"bbox": [[',
            {"file_name": "c.jpg"},
            {"file_name": "none.jpg", "objects": objects([1, 2, 3, 4], category=["dog"])},
            {"file_name": "d.jpg", "objects": objects([1, 2, 3, 4], category=["dog", "dog"])})})
    found = auto(tmp_path)
    [first, second], problems = rows_of(found)
    assert boxes(first) == [[10, 20, 40, 60]] and boxes(second) == []
    assert sorted(problem.reason for problem in problems) == [
        "box is no four numbers", "box without area", "boxes and classes of different number", "unknown class"]
    assert told(found) == {
        "annotations that cannot be decoded": 1, "row without objects": 1, "missing image file": 1,
        "image without rows": 1, "reversed corners of a box put in order": 1,
        "picture that belongs to no split, left aside": 1}
    assert [record["file_name"] for record in found.problems["train"] if record["dropped"]] == [
        "none.jpg", "b.jpg", "c.jpg", "e.jpg"]


def test_hub_parquet(tmp_path):
    found = auto(write(tmp_path, HUB_FILES))
    assert found.classes == ("cat", "dog") and list(found.splits) == ["train", "test"]
    rows, problems = rows_of(found)
    assert [boxes(row) for row in rows] == [[[10, 20, 40, 60]], [], [], [[1, 2, 4, 6.5]]]
    assert [row.image for row in rows] == [jpeg(seed) for seed in (1, 2, 3, 4)]
    assert [row.file_name for row in rows] == [
        "a.jpg", "data/train-00000-of-00002/00000-000001", "data/train-00000-of-00002/00001-000000", "d.jpg"]
    assert rows[0].objects.labels.tolist() == [1] and problems == [] and told(found) == {}


def test_hub_parquet_in_trouble(tmp_path):
    data = hub([image(1), {"bytes": None, "path": "b.jpg"}, {"bytes": b"no picture", "path": None}, image(4)], [
        {"bbox": [[40, 60, -30, -40], [1, 2, 3, 4]], "category": [1, 7]}, {"bbox": [[1, 2, 3, 4]], "category": [0]},
        {"bbox": [[1, 2, 3, 4]], "category": [0]}, {"bbox": [[1, 2, 3, 4]], "category": [0, 1]}])
    found = auto(write(tmp_path, {"train-00000-of-00001.parquet": data}))
    [row, *lost], problems = rows_of(found)
    assert boxes(row) == [[10, 20, 40, 60]] and lost == [None, None]
    assert [(problem.reason, problem.num_objects) for problem in problems] == [
        ("unknown class", 0), ("row without an image", 1), ("undecodable image", 1)]
    assert told(found) == {"boxes and classes of different number": 1, "reversed corners of a box put in order": 1}
    assert found.problems["train"][0]["objects"] == 1


# --- Parquet --------------------------------------------------------------------------------------------


def test_parquet_with_images(tmp_path):
    found = auto(write(tmp_path, PARQUET_FILES))
    assert found.classes == ("cat", "dog")
    [first, second], problems = rows_of(found)
    assert (boxes(first), first.objects.labels.tolist()) == ([[10, 20, 40, 60], [1, 2, 4, 6.5]], [1, 0])
    assert (boxes(second), second.file_name, second.image) == ([], "b.jpg", jpeg(2)) and problems == []
    assert boxes(rows_of(found, "val")[0][0]) == [[5, 6, 12, 14]]


def test_parquet_with_paths_and_corners(tmp_path):
    data = parquet_file({
        "path": (["a.jpg", "none.jpg", None], pa.string()), "label": ([["dog"], ["dog"], []], pa.list_(pa.string())),
        **{name: ([[value], [1], []], pa.list_(pa.float64())) for name, value in zip(("x1", "y1", "x2", "y2"), (30, 40, 10, 20))}})
    found = auto(write(tmp_path, {"boxes.parquet": data, "imgs/a.jpg": jpeg(1), "imgs/b.jpg": jpeg(2)}))
    assert [boxes(row) for row in rows_of(found)[0]] == [[[10, 20, 30, 40]]]
    assert told(found) == {"missing image file": 1, "row without an image": 1, "image without rows": 1,
                           "reversed corners of a box put in order": 1,
                           "file name found in spite of another directory": 1}


@pytest.mark.parametrize(("columns", "message"), [
    ({"a": ([b""], pa.binary()), "b": ([b""], pa.binary()), "bbox": ([[]], pa.list_(pa.list_(pa.int64()))),
      "label": ([[]], pa.list_(pa.int64()))}, "which column of .* a: binary, b: binary"),
    ({"image": ([b""], pa.binary()), "boxes": ([[]], pa.list_(pa.list_(pa.int64()))),
      "label": ([[]], pa.list_(pa.int64()))}, r"boxes of .* may be \[x, y, width, height\]"),
    ({"image": ([b""], pa.binary()), "bbox": ([[]], pa.list_(pa.list_(pa.int64()))),
      "label": ([[]], pa.list_(pa.int64())), "category": ([[]], pa.list_(pa.int64()))}, "has label, category"),
    ({"image": ([b""], pa.binary()), "bbox": ([[1]], pa.list_(pa.int64())), "label": ([[]], pa.list_(pa.int64()))},
     "bbox is list.*not a list of boxes")])
def test_columns_with_several_readings_are_named(tmp_path, columns, message):
    write(tmp_path, {"a.parquet": parquet_file(columns)})
    with pytest.raises(JobError, match=message):
        auto(tmp_path)


def test_a_row_group_is_read_once_whatever_is_asked_of_it(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(row_groups, "_read", lambda *key, read=row_groups._read: reads.append(key[1]) or read(*key))
    rows_of(auto(write(tmp_path, HUB_FILES)))
    assert reads == [0, 1, 0]  # two groups of the first file, one of the second


def test_a_slice_of_items_holds_its_own_objects_alone(tmp_path):
    items = auto(write(tmp_path, HUB_FILES)).splits["train"]
    part = items[3:]
    assert [item.file_name for item in part] == ["d.jpg"] and len(part.files) == 1
    assert part[0].known()[0].boxes_xyxy.tolist() == [[1, 2, 4, 6.5]] and len(part.objects) == 1
    assert part[0].mark == items[3].mark and part[0].image_id == 3


# --- WebDataset -----------------------------------------------------------------------------------------


def test_tar_shards(tmp_path):
    found = auto(write(tmp_path, TAR_FILES))
    assert found.classes == ("cat", "dog")
    rows, problems = rows_of(found)
    assert [boxes(row) for row in rows] == [[[10, 20, 40, 60]], [[1, 2, 4, 6.5]]] and problems == []
    assert [(row.file_name, row.image) for row in rows] == [("s/a.jpg", jpeg(1)), ("s/b.jpeg", jpeg(2))]
    assert told(found) == {"member of another kind left aside": 1}
    assert boxes(rows_of(found, "val")[0][0]) == [[5, 6, 12, 14]]


def test_samples_in_trouble(tmp_path):
    write(tmp_path, {"train.tar": tar({
        "a.jpg": jpeg(1), "a.json": {"boxes": [[40, 60, 10, 20], [1, 1, 1, 9], [3, "x", 4, 5]], "labels": [0, 0, 0]},
        "a.seg.png": jpeg(2), "b.jpg": jpeg(3), "c.json": {"boxes": [[1, 2, 3, 4]], "labels": [0]}, "d.jpg": jpeg(4),
        "d.json": "{", "e.jpg": jpeg(5), "e.json": {"caption": "x"}, "f.jpg": jpeg(6),
        "f.json": {"boxes": [[1, 2, 3, 4]], "labels": [9]}})})
    with pytest.raises(JobError, match="may be .*source.box|source.box.*may be"):
        auto(tmp_path)
    found = source("webdataset", tmp_path, box="xyxy", classes=["dog"])
    [first, second], problems = rows_of(found)
    assert boxes(first) == [[10, 20, 40, 60]] and boxes(second) == []
    assert [problem.reason for problem in problems] == ["box without area", "box is no four numbers", "unknown class"]
    assert told(found) == {
        "image without rows": 1, "missing image file": 1, "annotations that cannot be decoded": 1, "JSON without boxes": 1,
        "member of another kind left aside": 1, "reversed corners of a box put in order": 1}
    assert {record["reason"]: record.get("objects") for record in found.problems["train"]}["missing image file"] == 1


@pytest.mark.parametrize("cut", [512 * 3 + 100, 512])
def test_a_damaged_tar_is_named(tmp_path, cut):
    data = tar({"a.json": {"bbox": [[1, 2, 3, 4]], "label": ["dog"]}, "a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    write(tmp_path, {"train.tar": data[:cut * 2] if cut > 512 else data[:2 * cut + 512] + b"x" * 512})
    with pytest.raises(JobError, match="train.tar.*is no whole tar"):
        source("webdataset", tmp_path)


def test_fractions_are_asked_for(tmp_path):
    write(tmp_path, {"train.tar": tar({"a.jpg": jpeg(1), "a.json": {"bbox": [0, 0.5, 0.5, 0.5], "label": "dog"}})})
    with pytest.raises(JobError, match="within 0 to 1"):
        auto(tmp_path)
    assert boxes(rows_of(source("webdataset", tmp_path, coordinates="fractions"))[0][0]) == [[0, 48, 64, 96]]


# --- all ------------------------------------------------------------------------------------------------


def test_two_formats_in_one_folder_are_both_named(tmp_path):
    write(tmp_path, FOLDER_FILES | TAR_FILES)
    with pytest.raises(JobError, match="huggingface .*metadata.jsonl.* or webdataset .*.tar"):
        auto(tmp_path)


@pytest.mark.parametrize("files", ALL.values(), ids=ALL)
def test_records_in_s3(tmp_path, s3, files):
    for name, content in files.items():
        storage.write_bytes(storage.join(s3, "raw", name), content if isinstance(content, bytes) else content.encode())
    ingest_here(AutoSource(format="auto", uri=storage.join(s3, "raw")), str(tmp_path / "set"))
    assert [split.num_objects for split in load_manifest(str(tmp_path / "set")).splits.values()] == [2, 1]


@pytest.mark.parametrize("files", ALL.values(), ids=ALL)
def test_ingest_in_ray(ray_session, tmp_path, files):
    found = AutoSource(format="auto", uri=str(write(tmp_path / "raw", files)))
    ingest(IngestSpec(kind="ingest", source=found, dataset=str(tmp_path / "set")), "ingest-test")
    assert [split.num_objects for split in load_manifest(str(tmp_path / "set")).splits.values()] == [2, 1]
