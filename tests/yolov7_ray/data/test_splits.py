"""Splits made by the product: by hash, stable, stratified, groups together."""


import numpy as np
import pytest
from conftest import ingest_here, make_coco, make_voc, make_yolo
from yolov7_ray.data.ingest.dry_run import ingest_lines
from yolov7_ray.data.ingest.splits import Labels, assigned, group_numbers, with_splits
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.sources.read import read_source
from yolov7_ray.data.sources.spec import CocoSource, VocSource, YoloSource
from yolov7_ray.errors import JobError

RATIOS = [0.8, 0.1, 0.1]


def columns(labels: list[np.ndarray]) -> Labels:
    return Labels(np.array([len(one) for one in labels]), np.concatenate(labels))


def one_split(root, num_images: int = 40) -> CocoSource:
    make_coco(root, num_images, ("train",))
    return CocoSource(format="coco", uri=str(root), splits={"train": {"images": "train", "annotations": "train.json"}})


@pytest.mark.parametrize("seed", range(5))
def test_strata_are_within_two_percent(seed):
    rng = np.random.default_rng(seed)
    labels = [np.full(rng.integers(1, 4), label) for label in rng.choice(3, 2000, p=[0.6, 0.3, 0.1])]
    found = assigned(np.arange(2000), rng.random(2000), columns(labels), RATIOS, 3)
    for label in range(3):
        weights = [sum(len(one) for one, split in zip(labels, found) if split == number and one[0] == label)
                   for number in range(3)]
        assert np.abs(np.array(weights) / sum(weights) - RATIOS).max() <= 0.02


def test_without_labels_the_hash_alone_decides():
    assert assigned(np.arange(4), np.array([0.95, 0.1, 0.79, 0.85]), None, RATIOS, 3).tolist() == [2, 0, 0, 1]


def test_images_stay_when_others_come():
    rng = np.random.default_rng(0)
    hashes, labels = rng.random(40_000), [np.array([0])] * 40_000
    before = assigned(np.arange(30_000), hashes[:30_000], columns(labels[:30_000]), RATIOS, 1)
    after = assigned(np.arange(40_000), hashes, columns(labels), RATIOS, 1)
    assert (before == after[:30_000]).all()


def test_groups():
    names = ["a/v1_001.jpg", "a/v1_002.jpg", "b/v2_001.jpg"]
    assert group_numbers(names, r"(v\d)_").tolist() == [0, 0, 1]
    assert group_numbers(names, "directory").tolist() == [0, 0, 1]
    assert group_numbers(names, r"v\d_00").tolist() == [0, 0, 1]
    assert group_numbers(names, None).tolist() == [0, 1, 2]
    with pytest.raises(JobError, match=r"group_by: 'x\+' matches no file name, e.g. a/v1_001.jpg"):
        group_numbers(names, "x+")


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_every_format_tells_its_labels(tmp_path, kind):
    if kind == "coco":
        source = read_source(one_split(tmp_path, 5))
    elif kind == "yolo":
        source = read_source(YoloSource(format="yolo", uri=str(make_yolo(tmp_path)), splits={"train": "images/train"}))
    else:
        source = read_source(VocSource(format="voc", uri=str(make_voc(tmp_path)), splits={"train": "."}))
    items = source.splits["train"]
    assert items[0].labels().tolist() == ([1, 0] if kind == "voc" else [0, 1])
    assert all(item.labels().tolist() == item.fetch().objects.labels.tolist() for item in items)


def test_an_ingest_with_ratios(tmp_path):
    source = one_split(tmp_path / "raw")
    before = read_source(source).splits["train"]
    ingest_here(source, str(tmp_path / "d"), splits={"train": 0.8, "val": 0.2})
    spec = IngestSpec(kind="ingest", source=source, dataset=str(tmp_path / "e"), splits={"train": 0.8, "val": 0.2})
    assert ("splits", "made: train 32 images, 64 objects; val 8 images, 16 objects") in ingest_lines(spec)
    splits = load_manifest(str(tmp_path / "d")).splits
    assert {name: (split.num_rows, split.objects_per_class) for name, split in splits.items()} == {
        "train": (32, (32, 32)), "val": (8, (8, 8))}
    made = with_splits(read_source(source), {"train": 0.8, "val": 0.2})[0].splits
    known = {item.file_name: item.fetch() for item in before}
    for item in [*made["train"], *made["val"]]:
        raw, wanted = item.fetch(), known.pop(item.file_name)
        assert raw.image == wanted.image
        for one, other in ((raw.objects.boxes_xyxy, wanted.objects.boxes_xyxy), (raw.objects.xy, wanted.objects.xy)):
            np.testing.assert_array_equal(one, other)
    assert not known


def test_errors_name_the_key(tmp_path):
    source = one_split(tmp_path / "raw", 3)
    for settings, message in (({"splits": {"a": 0.5, "b": 0.4}}, "splits: the shares sum to 0.9"),
                              ({"group_by": "x"}, "group_by: has no use"),
                              ({"splits": {"a": 0.5, "b": 0.5}, "group_by": "("}, "no regular expression")):
        with pytest.raises(ValueError, match=message):
            IngestSpec(kind="ingest", source=source, dataset="d", **settings)
    with pytest.raises(JobError, match="splits.b: would be empty"):
        ingest_here(source, str(tmp_path / "d"), splits={"a": 0.99, "b": 0.01})
    make_coco(tmp_path / "two", 3)
    two = CocoSource(format="coco", uri=str(tmp_path / "two"), splits={
        split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")})
    with pytest.raises(JobError, match="splits: the source has splits already: train, val"):
        ingest_here(two, str(tmp_path / "d"), splits={"a": 0.5, "b": 0.5})


def test_classes_are_merged_and_renamed(tmp_path):
    source = one_split(tmp_path / "raw", 3)
    ingest_here(source, str(tmp_path / "d"), classes={"animal": ["dog", "cat"]})
    manifest = load_manifest(str(tmp_path / "d"))
    assert (manifest.classes, manifest.source_ids, manifest.split("train").objects_per_class) == (("animal",), (7,), (6,))
    ingest_here(source, str(tmp_path / "e"), classes={"hound": ["dog"]})
    manifest = load_manifest(str(tmp_path / "e"))
    assert (manifest.classes, manifest.source_ids, manifest.split("train").objects_per_class) == (("hound",), (7,), (3,))
    for classes, message in (({"a": ["dog"], "b": ["dog"]}, "repeats a name"), ({"a": ["cow"]}, "'cow' is not in")):
        with pytest.raises(JobError, match=message):
            ingest_here(source, str(tmp_path / "f"), classes=classes)


def test_classes_of_a_single_group_go_by_the_hash():
    labels = [np.array([label]) for label in range(4)]
    assert assigned(np.arange(4), np.array([0.95, 0.1, 0.79, 0.85]), columns(labels), RATIOS, 4).tolist() == [2, 0, 0, 1]
