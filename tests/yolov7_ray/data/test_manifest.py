"""The manifest: its JSON round trip, its fingerprint, and what a damaged one says."""

import dataclasses
import json

import pyarrow as pa
import pytest
from yolov7_ray import storage
from yolov7_ray.data.manifest import ARROW_SCHEMA, MANIFEST, Manifest, Shard, Split, load_manifest
from yolov7_ray.errors import Corrupt, JobError, NotFound


def manifest(**changes) -> Manifest:
    shard = Shard("train/00000-0123456789ab.arrow", 2, 100, "0" * 64)
    values = {"classes": ("cat", "dog"), "source_ids": (3, 7), "splits": {"train": Split((shard,), 2, 5, (4, 1))},
              "source": {"format": "coco", "uri": "/a", "digest": "x"}, "dropped": {"unknown class": 1}}
    return Manifest(**values | changes)


def test_round_trip(place):
    storage.write_json(storage.join(place, MANIFEST), manifest().to_json())
    assert load_manifest(place) == manifest()


def test_fingerprint_names_the_content_alone():
    same = manifest(source={"format": "coco", "uri": "s3://elsewhere", "digest": "y"})
    assert same.fingerprint == manifest().fingerprint
    other = dataclasses.replace(manifest().splits["train"], num_objects=6)
    for changes in ({"classes": ("cat", "cow")}, {"source_ids": (3, 8)}, {"splits": {"train": other}},
                    {"splits": {"val": manifest().splits["train"]}}):
        assert manifest(**changes).fingerprint != manifest().fingerprint


def test_unknown_split_lists_the_splits():
    with pytest.raises(JobError, match="split: 'test' is unknown; the dataset has train"):
        manifest().split("test")


def test_missing_dataset(place):
    with pytest.raises(NotFound, match="there is no dataset here; run an ingest job"):
        load_manifest(place)


@pytest.mark.parametrize("damage, message", [
    (lambda text: text[:50], "it is not JSON"),
    (lambda text: "[]", "is corrupt"),
    (lambda text: "{}", "is corrupt: 'version'"),
    (lambda text: text.replace('"version": 1', '"version": 9'), "version 9 is unknown; this code reads version 1"),
    (lambda text: text.replace('"num_rows": 2', '"num_rows": 3'), "fingerprint does not fit"),
    (lambda text: text.replace('"sha256"', '"sha1"'), "is corrupt"),
])
def test_corrupt_manifest(tmp_path, damage, message):
    text = json.dumps(manifest().to_json())
    (tmp_path / MANIFEST).write_text(damage(text))
    with pytest.raises(Corrupt, match=f"dataset.json.*{message}.*run the ingest job again"):
        load_manifest(str(tmp_path))


def test_columns_are_the_contract():
    assert {field.name: str(field.type) for field in ARROW_SCHEMA} == {
        "image_id": "int64", "file_name": "string", "image": "large_binary", "height_px": "int32",
        "width_px": "int32", "boxes_xyxy": "list<item: fixed_size_list<item: float>[4]>",
        "labels": "list<item: int32>", "iscrowd": "list<item: bool>", "area": "list<item: float>",
        "polygons": "list<item: list<item: list<item: float>>>"}
    assert pa.ipc.read_schema(ARROW_SCHEMA.serialize()) == ARROW_SCHEMA
