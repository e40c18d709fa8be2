"""Several sources as one dataset, folders of background, splits pooled."""

import json
import pickle

import numpy as np
import pytest
from conftest import coco_source, ingest_here, jpeg, make_coco, make_yolo

from yolov7_ray.data.export.export import _source_ids
from yolov7_ray.data.ingest.dry_run import ingest_lines
from yolov7_ray.data.ingest.ingest import ingest
from yolov7_ray.data.ingest.rows import LEFT_OUT
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.ingest.splits import with_splits
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.data.sources import yolo
from yolov7_ray.data.sources.item import RawSource
from yolov7_ray.data.sources.read import named, read_all, read_source
from yolov7_ray.data.sources.several.joined import ALIKE, BLOCK, POOLED, joined, pooled
from yolov7_ray.data.sources.spec import AutoSource, BackgroundSource, YoloSource
from yolov7_ray.errors import AlreadyExists, JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.paths import absolute

MAPPING = {"cat": ["cat", "Cat"], "vehicle": ["car"]}


@pytest.fixture
def sections(tmp_path) -> list:
    """COCO (cat 3, dog 7), YOLO with other names, and two pictures without anything, one of them below val/."""
    make_coco(tmp_path / "farm")
    make_yolo(tmp_path / "Street")
    (tmp_path / "Street/data.yaml").write_text("names: [Cat, car, bus, van]\n")
    for name in ("empty/x.jpg", "empty/val/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(jpeg(9))
    return [coco_source(tmp_path / "farm"), AutoSource(format="auto", uri=str(tmp_path / "Street")),
            BackgroundSource(format="background", uri=str(tmp_path / "empty"))]


def job(sections: list, tmp_path, **settings) -> IngestSpec:
    return IngestSpec(kind="ingest", sources=sections, dataset=str(tmp_path / "d"), **settings)


def test_joined_sources(sections, tmp_path):
    source, lines = read_all(job(sections, tmp_path))
    assert source.classes == ("cat", "dog", "Cat", "car", "bus", "van")
    assert source.class_ids == (3, 7, 0, 1, 2, 8)  # van's own 3 is cat's: the next after 7
    assert {"source": "street", "class_id": 8, "source_id": 3} in source.original_ids
    train = source.splits["train"]
    assert [(item.image_id, item.file_name) for item in train] == [
        *((100 + index, f"farm/{index:04d}.jpg") for index in range(6)),
        *((BLOCK + index, f"street/images/train/{index}.jpg") for index in range(4)), (2 * BLOCK, "empty/x.jpg")]
    assert [item.labels().tolist() for item in train] == [[0, 1]] * 6 + [[2, 3]] * 3 + [[], []]
    assert all(item.fetch().objects.labels.tolist() == item.labels().tolist() for item in train)
    assert [item.file_name for item in source.splits["val"]][-1] == "empty/val/y.jpg"
    assert [record["count"] for record in source.problems["train"] if record["reason"] == ALIKE] == [2]
    assert [line.partition(" at ")[0] for line in lines] == ["farm: coco", "street: yolo", "empty: background"]
    assert "train 1 images, val 1 images; 0 classes" in lines[2]


def test_items_are_a_sequence(sections, tmp_path):
    items = read_all(job(sections, tmp_path))[0].splits["train"]
    names = [item.file_name for item in items]
    for cut in (slice(2, 8), slice(0, 0), slice(6, 11), slice(5, 6), slice(None)):
        assert [item.file_name for item in pickle.loads(pickle.dumps(items[cut]))] == names[cut]
    chosen = np.array([0, 5, 6, 9, 10])
    assert [item.file_name for item in items.take(chosen)] == [names[index] for index in chosen]
    assert (items[-1].file_name, len(items.take(chosen)[3:])) == (names[-1], 2)
    with pytest.raises(IndexError):
        items[11]


def test_an_ingest_of_several_with_a_mapping(sections, tmp_path, capsys):
    ingest_here(None, str(tmp_path / "d"), sources=sections, classes=MAPPING)
    manifest = load_manifest(str(tmp_path / "d"))
    assert {name: (split.num_rows, split.objects_per_class) for name, split in manifest.splits.items()} == {
        "train": (11, (9, 3)), "val": (11, (9, 3))}
    counts = {loss["reason"]: (loss["dropped"], loss["count"]) for loss in manifest.losses}
    assert counts["classes merged: cat, Cat -> cat"] == (None, 18)
    assert counts["class renamed: car -> vehicle"] == (None, 6)
    assert counts[LEFT_OUT] == (None, 12)
    assert [one["format"] for one in manifest.source["sources"]] == ["coco", "yolo", "background"]
    records = [json.loads(line) for line in (tmp_path / "d/source-ids.jsonl").read_text().splitlines()]
    assert {"source": "street", "image_ids_from": BLOCK, "file_names": "street/"} in records
    assert _source_ids(str(tmp_path / "d")) == {}  # of several they may repeat: an export has the dataset's
    output = capsys.readouterr().out
    assert "street: yolo at" in output and "classes merged: cat, Cat -> cat" in output
    ingest_here(None, str(tmp_path / "d"), sources=sections, classes=MAPPING)
    assert "is up to date" in capsys.readouterr().out


def test_another_order_of_names_is_another_dataset(sections, tmp_path):
    ingest_here(None, str(tmp_path / "d"), sources=sections)
    (tmp_path / "Street/data.yaml").write_text("names: [car, Cat, bus, van]\n")
    with pytest.raises(JobError, match="holds another dataset already"):
        ingest_here(None, str(tmp_path / "d"), sources=sections)


def test_ids_that_do_not_fit_a_block_are_numbered_and_kept():
    class Known:
        num_bytes, mark = 1, ""

        def __init__(self, image_id: int):
            self.image_id, self.file_name = image_id, f"{image_id}.jpg"

    large = RawSource(("a",), (0,), {"train": [Known(2**50), Known(7)]})
    found = joined({"one": RawSource(("a",), (0,), {"train": [Known(7)]}), "two": large})
    assert [item.image_id for item in found.splits["train"]] == [7, BLOCK, BLOCK + 1]
    assert {"source": "two", "split": "train", "image_id": BLOCK, "source_id": 2**50} in found.original_ids
    assert {"source": "two", "split": "train", "image_id": BLOCK + 1, "source_id": 7} in found.original_ids


def test_names_of_sources():
    sections = [AutoSource(format="auto", uri=uri, name=name) for uri, name in (
        ("s3://bucket/My data/", None), ("/x/my-data", None), ("/y/my-data", "my-data"), ("/z", "other"))]
    assert list(named(sections)) == ["my-data-2", "my-data-3", "my-data", "other"]


def test_one_of_source_and_sources(sections, tmp_path):
    document = {"kind": "ingest", "dataset": "d", "sources": [{"format": "background", "uri": "x", "name": "a"}]}
    assert absolute(validate(document, "job")).sources[0].uri.startswith("/")
    for change, message in (({"source": {"format": "auto", "uri": "x"}}, "sources: source is given too"),
                            ({"sources": document["sources"] * 2}, "sources: several are called 'a'"),
                            ({"sources": [{"format": "coc", "uri": "x"}]}, r"sources.0.format: 'coc' is unknown"),
                            ({"sources": None, "source": None}, "source: is missing"),
                            ({"sources": None, "source": {"format": "auto", "uri": "x", "name": "a"}},
                             "source.name: has no use"), ({"pool": True}, "pool: has no use")):
        with pytest.raises(JobError, match=message):
            validate(document | change, "job")
    with pytest.raises(JobError, match="sources: none of them has a class"):
        read_all(job(sections[2:], tmp_path))
    with pytest.raises(JobError, match="images without labels go into `sources`"):
        read_source(sections[2])
    with pytest.raises(JobError, match=r"sources\.1\.uri: there are no files at .*; set it to the root"):
        read_all(job([sections[0], AutoSource(format="auto", uri=str(tmp_path / "nothing"))], tmp_path))


def test_a_background_folder(tmp_path):
    for name in ("a/1.jpg", "b/valid/2.jpg", "3.heic", "3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(jpeg(1))
    source = BackgroundSource(format="background", uri=str(tmp_path))
    found = joined({"a": RawSource(("x",), (0,), {}), "b": _read(source)})
    assert {split: [item.file_name for item in items] for split, items in found.splits.items()} == {
        "train": ["b/a/1.jpg"], "val": ["b/b/valid/2.jpg"]}
    assert [(record["file_name"], record["dropped"], record["detail"]) for record in found.problems["train"]] == [
        ("b/3.heic", "image", "3.heic: convert it to JPEG or PNG"), ("", None, "b: 3.txt (1 x .txt)")]
    assert list(_read(source.model_copy(update={"split": "test"})).splits) == ["test"]


def _read(section) -> RawSource:
    from yolov7_ray.data.sources.several.background import read

    return read(section)


# --- pooled ---------------------------------------------------------------------------------------------


def test_pooled_splits_keep_their_ids_where_they_are_unique(tmp_path):
    source = pooled(read_source(coco_source(make_coco(tmp_path, 3))))
    [items] = source.splits.values()
    assert [item.image_id for item in items] == [100, 101, 102, 200, 201, 202]
    assert [item.file_name for item in items][2:4] == ["train/0002.jpg", "val/0000.jpg"]  # the names repeat
    assert [record["count"] for of in source.problems.values() for record in of if record["reason"] == POOLED] == [3, 3]


def test_pooled_splits_with_repeated_ids(tmp_path):
    source = read_source(YoloSource(format="yolo", uri=str(make_yolo(tmp_path))))
    with pytest.raises(JobError, match="splits already: train, val; leave `splits` out to keep them, set `pool: true`"):
        with_splits(source, {"a": 0.5, "b": 0.5})
    made, words = with_splits(source, {"a": 0.5, "b": 0.5}, pool=True)
    assert words.endswith("(pooled: train, val)")
    found = sorted((item.image_id, item.file_name) for items in made.splits.values() for item in items)
    assert found == [(number * BLOCK + index, f"images/{split}/{index}.jpg")
                     for number, split in enumerate(("train", "val")) for index in range(4)]


def test_a_pooled_ingest_of_several(sections, tmp_path):
    settings = {"sources": sections, "splits": {"train": 0.5, "val": 0.5}, "pool": True}
    [*_, splits, _] = ingest_lines(job(tmp_path=tmp_path, **{"sections": settings["sources"]} | {
        key: value for key, value in settings.items() if key != "sources"}))
    ingest_here(None, str(tmp_path / "d"), **settings)
    made = load_manifest(str(tmp_path / "d")).splits
    assert splits == ("splits", "made: " + "; ".join(
        f"{name} {split.num_rows} images, {split.num_objects} objects" for name, split in made.items())
        + " (pooled: train, val)")
    assert sum(split.num_rows for split in made.values()) == 22


def test_a_dry_run_reads_every_label_file_once(tmp_path, monkeypatch):
    root, read = make_yolo(tmp_path / "raw"), []
    plain = yolo.read_text
    monkeypatch.setattr(yolo, "read_text", lambda uri: read.append(uri) or plain(uri))
    lines = ingest_lines(IngestSpec(kind="ingest", source=AutoSource(format="auto", uri=str(root)), dataset="d",
                                    splits={"a": 0.5, "b": 0.5}, pool=True))
    assert sorted(read) == sorted(f"{root}/labels/{split}/{index}.txt" for split in ("train", "val")
                                  for index in range(3))
    assert [key for key, _ in lines] == ["source", "splits", "dataset"]


def test_several_sources_on_ray(ray_session, sections, tmp_path):
    ingest(job(sections, tmp_path, classes=MAPPING), "test")
    ingest_here(None, str(tmp_path / "e"), sources=sections, classes=MAPPING)
    assert load_manifest(str(tmp_path / "d")).fingerprint == load_manifest(str(tmp_path / "e")).fingerprint
    dataset = ArrowDataset(str(tmp_path / "d"), "train")
    assert len(dataset) == 11


def test_a_dataset_of_several_sources_says_that_it_does_not_grow(sections, tmp_path):
    uri = str(tmp_path / "d")
    before = ingest_here(None, uri, sources=sections)["fingerprint"]
    assert ingest_here(None, uri, sources=sections)["fingerprint"] == before
    (tmp_path / "Street/images/train/new.jpg").write_bytes(jpeg(99))
    with pytest.raises(AlreadyExists, match="holds another dataset already .*; of several sources, it does not grow; .*"
                                            "set `overwrite: true` to replace it, which writes all anew"):
        ingest_here(None, uri, sources=sections)
    lines = dict(ingest_lines(IngestSpec(kind="ingest", sources=sections, dataset=uri)))
    assert lines["dataset"].endswith("exists; of several sources, it does not grow: if they changed, set overwrite: true")
    assert ingest_here(None, uri, sources=sections, overwrite=True)["fingerprint"] != before
    with pytest.raises(AlreadyExists, match="holds another dataset already"):
        ingest_here(None, uri, sources=sections[:1])
