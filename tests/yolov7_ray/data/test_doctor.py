"""The dataset doctor: a sound dataset has no errors, and every fault that is planted in one is found."""

import contextlib
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pyarrow as pa
import pytest
from conftest import jpeg
from PIL import Image
from yolov7_ray import storage
from yolov7_ray.data.doctor import examination as examination_module
from yolov7_ray.data.doctor.examination import Examination, examine
from yolov7_ray.data.doctor.finding import CATALOGUE, MAX_EXAMPLES, Case, Findings
from yolov7_ray.data.doctor.image_checks import examine_header, examine_image, perceptual_hash
from yolov7_ray.data.doctor.near_duplicates import near_pairs
from yolov7_ray.data.doctor.report import table, write
from yolov7_ray.data.doctor.sample_check import sample_check
from yolov7_ray.data.doctor.shard_examination import examine_shard
from yolov7_ray.data.manifest import ARROW_SCHEMA, MANIFEST, Manifest, Shard, Split, load_manifest
from yolov7_ray.jobs.dry_run import plan
from yolov7_ray.jobs.job_file import load_job

import submit
from yolov7.architectures.family import architecture

CLASSES = ("cat", "dog")
WIDTH, HEIGHT = 128, 96
YOLOV7 = architecture("yolov7")
Rows = dict[str, list[dict]]


# --- datasets, written without ingest's checks --------------------------------------------------------


def make_row(seed: int, image: bytes | None = None, boxes=((10, 20, 40, 60), (50, 8, 110, 72)), labels=(0, 1),
             **columns) -> dict:
    """A dataset row of a textured image with two objects."""
    return {"image_id": seed, "file_name": f"{seed}.jpg", "image": image or jpeg(seed), "height_px": HEIGHT,
            "width_px": WIDTH, "boxes_xyxy": [list(box) for box in boxes], "labels": list(labels),
            "iscrowd": [False] * len(labels), "area": [100.0] * len(labels),
            "polygons": [[] for _ in labels]} | columns


def sound_rows() -> Rows:
    return {"train": [make_row(seed) for seed in range(8)], "val": [make_row(100 + seed) for seed in range(4)]}


def write_shard(uri: str, split: str, rows: list[dict], number: int = 0, schema: pa.Schema = ARROW_SCHEMA) -> Shard:
    path = f"{split}/{number:05d}.arrow"
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(rows), 3):  # several batches
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start:start + 3], schema))
    storage.write_bytes(storage.join(uri, path), sink.getvalue())
    return Shard(path, len(rows), len(sink.getvalue()), storage.digest(sink.getvalue()))


def write_dataset(uri: str, splits: Rows, classes: tuple[str, ...] = CLASSES, schema=ARROW_SCHEMA) -> Manifest:
    """Two shards per split, and the manifest of their rows."""
    made = {}
    for name, rows in splits.items():
        half = -(-len(rows) // 2)
        shards = [write_shard(uri, name, part, number, schema)
                  for number, part in enumerate([rows[:half], rows[half:]]) if part]
        labels = [label for row in rows for label in row["labels"]]
        counts = tuple(labels.count(label) for label in range(len(classes)))
        made[name] = Split(tuple(shards), len(rows), sum(counts), counts)
    manifest = Manifest(classes, tuple(range(len(classes))), made, {"format": "test"})
    storage.write_json(storage.join(uri, MANIFEST), manifest.to_json())
    return manifest


@pytest.fixture(autouse=True)
def here(request, monkeypatch, tmp_path_factory):
    """Without Ray, its tasks run in this process; nothing is cached between tests."""
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    if "ray_session" not in request.fixturenames:
        monkeypatch.setattr(examination_module, "_run", lambda tasks: enumerate(
            examination_module.ShardReport.from_json(json.loads(json.dumps(examine_shard(task).to_json())))
            for task in tasks))


def examined(uri: str) -> Examination:
    return examine(uri, YOLOV7, 640)


# --- faults -------------------------------------------------------------------------------------------

# Each plants one kind of fault into the rows of `sound_rows`, and returns where it is.


def _pixels(seed: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg(seed), np.uint8), cv2.IMREAD_COLOR)


def _pillow(seed: int, file_format: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_pixels(seed)[..., ::-1]).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def _with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return _pillow(1, "JPEG", exif=exif)


def _change(split: str = "train", index: int = 5, **columns):
    def plant(splits: Rows) -> Case:
        splits[split][index] |= columns
        return Case(split, index)
    return plant


def _copy(split: str, change=lambda image: image):
    def plant(splits: Rows) -> Case:
        splits[split][-1]["image"] = change(splits["train"][0]["image"])
        return Case(split, len(splits[split]) - 1, twin=("train", 0))
    return plant


def _recompressed(quality: int):
    def change(image: bytes) -> bytes:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return change


def _objects(boxes, labels=None, **columns):
    labels = [0] * len(boxes) if labels is None else labels
    row = make_row(5, boxes=boxes, labels=labels)
    return _change(**{key: row[key] for key in ("boxes_xyxy", "labels", "iscrowd", "area", "polygons")} | columns)


def _relabelled(splits: Rows) -> Case:
    """All dogs of val become cats, and more of both, so that it is no chance."""
    boxes = [(x, y, x + 20, y + 20) for x in range(0, 100, 12) for y in range(0, 60, 12)]
    for split, label in (("train", 1), ("val", 0)):
        for index, row in enumerate(splits[split]):
            splits[split][index] = make_row(row["image_id"], boxes=boxes, labels=[label] * 44 + [1 - label])
    return Case("val")


def _one_owl(splits: Rows) -> Case:
    _relabelled(splits)
    for row in splits["train"]:
        row["labels"] = [1] * 45
    splits["train"][0]["labels"][0] = 0
    return Case("train")


def _without(label: int, splits: Rows, *names: str) -> None:
    for name in names:
        for row in splits[name]:
            row["labels"] = [1 - label] * 2


def _no_dog_in_val(splits: Rows) -> Case:
    _without(1, splits, "val")
    return Case("val")


def _no_dog(splits: Rows) -> Case:
    _without(1, splits, "train", "val")
    return Case("dataset")


def _bare_val(splits: Rows) -> Case:
    splits["val"] = [make_row(row["image_id"], boxes=(), labels=()) for row in splits["val"]]
    return Case("val")


def _long_boxes(splits: Rows) -> Case:
    splits["val"] = [make_row(row["image_id"], boxes=[(0, 10, 128, 17)], labels=[1]) for row in splits["val"]]
    return Case("val")


JPEG = jpeg(1)
ROW_FAULTS = {
    "undecodable image": _change(image=b"GIF89a, but no more"),
    "truncated image": _change(image=JPEG[:len(JPEG) // 2]),
    "damaged image": _change(image=JPEG[:-2] + bytes(50) + JPEG[-2:]),
    "size differs from the record": _change(width_px=WIDTH + 2),
    "duplicate image id": _change(image_id=2),
    "image in two splits": _copy("val"),
    "duplicate image": _copy("train"),
    "near-duplicate in two splits": _copy("val", _recompressed(60)),
    "near-duplicate image": _copy("train", _recompressed(75)),
    "turned by EXIF": _change(image=_with_exif(3)),
    "CMYK image": _change(image=_pillow(1, "JPEG", "CMYK")),
    "16-bit image": _change(image=cv2.imencode(".png", _pixels(1).astype(np.uint16) * 256)[1].tobytes()),
    "animated image": _change(
        image=_pillow(1, "GIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])),
    "image without objects": _objects([]),
    "uneven columns": _objects([(0, 0, 9, 9)], iscrowd=[False, False]),
    "label out of range": _objects([(0, 0, 50, 50)], [2]),
    "box is not finite": _objects([(0, 0, float("nan"), 9)]),
    "box without area": _objects([(60, 10, 30, 40)]),
    "box outside the image": _objects([(100, 10, 130, 40)]),
    "duplicate box": _objects([(9, 9, 60, 60), (9.2, 9, 60, 60)]),
    "tiny object": _objects([(9, 9, 9.3, 60)]),
    "elongated object": _objects([(0, 9, 128, 15)]),
}
"""Kind -> function that plants it into one row."""

SPLIT_FAULTS = {
    "class missing in a split": _no_dog_in_val,
    "class without objects": _no_dog,
    "class mix differs": _relabelled,
    "class imbalance": _one_owl,
    "split without objects": _bare_val,
    "anchors do not fit": _long_boxes,
}
"""Kind -> function that plants it into all rows of a split."""

FAULTS = ROW_FAULTS | SPLIT_FAULTS


def _damage(change):
    def plant(uri: str) -> None:
        shard = storage.join(uri, load_manifest(uri).split("train").shards[1].path)
        data = storage.read_bytes(shard)
        storage.delete(shard)
        if (changed := change(data)) is not None:
            storage.write_bytes(shard, changed)
    return plant


def _flip(data: bytes) -> bytes:
    return data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]


def _rewrite(change):
    def plant(uri: str) -> None:
        manifest = change(load_manifest(uri))
        storage.write_json(storage.join(uri, MANIFEST), replace(manifest, fingerprint="").to_json())
    return plant


def _with_split(manifest: Manifest, name: str, **changes) -> Manifest:
    splits = manifest.splits | {name: replace(manifest.splits.get(name, Split((), 0, 0, (0, 0))), **changes)}
    return replace(manifest, splits=splits)


FILE_FAULTS = {
    "missing shard": _damage(lambda data: None),
    "truncated shard": _damage(lambda data: data[:-100]),
    "wrong checksum": _damage(_flip),
    "counts differ from the manifest": _rewrite(
        lambda manifest: _with_split(manifest, "val", num_objects=9, objects_per_class=(4, 5))),
    "ambiguous classes": _rewrite(lambda m: replace(m, classes=("cat", "cat"))),
    "split without images": _rewrite(lambda m: _with_split(m, "test")),
}
"""Kind -> function that plants it into the files of a dataset."""


def test_every_kind_of_finding_has_its_fault():
    assert {*FAULTS, *FILE_FAULTS, "unreadable shard"} == set(CATALOGUE)
    assert len(ROW_FAULTS) >= 20


# --- found one by one ---------------------------------------------------------------------------------


def test_a_sound_dataset_has_no_findings(tmp_path):
    write_dataset(str(tmp_path), sound_rows())
    found = examined(str(tmp_path))
    assert [finding.kind for finding in found.findings] == []
    assert found.num_images == 12 and found.counted["train"].objects_per_class == [8, 8]


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_is_found_where_it_is(tmp_path, kind):
    splits = sound_rows()
    place = FAULTS[kind](splits)
    write_dataset(str(tmp_path), splits)
    findings = examined(str(tmp_path)).findings
    case = findings[kind].examples[0]
    assert (case.split, case.index, case.twin) == (place.split, place.index, place.twin)
    if place.index is not None:
        assert (findings[kind].count, case.file_name) == (1, splits[place.split][place.index]["file_name"])
    consequences = {"label out of range": {"counts differ from the manifest"}, "anchors do not fit": {
        "class missing in a split"}, "split without objects": {"image without objects"}}.get(kind, set())
    errors = {f.kind for f in findings if f.definition.severity == "error"}
    assert errors - consequences <= {kind}, "nothing else is wrong"


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("part", [0.3, 0.97])
def test_a_cut_jpeg_is_truncated_with_an_end_marker_too(part, end):
    data = JPEG[:int(part * len(JPEG))] + end
    assert [kind for kind, _ in examine_image(data, (HEIGHT, WIDTH), pixels_too=True)[1]] == ["truncated image"]
    if not end:
        thumbnail = _with_exif(1).replace(b"Exif\0\0", b"Exif\0\0\xff\xda\xff\xd9")  # its markers are not the image's
        for cut in (thumbnail[:-2], data):
            assert dict(examine_header(cut, (HEIGHT, WIDTH)))["truncated image"]


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "BMP"])
def test_other_formats_are_whole_or_undecodable(file_format, capfd):
    data = _pillow(1, file_format)
    assert examine_image(data, (HEIGHT, WIDTH), pixels_too=True)[1] == []
    [(kind, _)] = examine_image(data[:len(data) // 2], (HEIGHT, WIDTH), pixels_too=True)[1]
    assert kind == "undecodable image"
    assert capfd.readouterr().err == "", "what decoders print does not reach the terminal"


@pytest.mark.parametrize("kind", FILE_FAULTS)
def test_fault_of_a_file_is_found(place, kind):
    write_dataset(place, sound_rows())
    FILE_FAULTS[kind](place)
    findings = examined(place).findings
    assert kind in findings and CATALOGUE[kind].severity == "error"
    assert {finding.kind for finding in findings if finding.definition.severity == "error"} == {kind}


def test_other_columns_and_nulls_are_reported(tmp_path):
    schema = pa.schema([field if field.name != "labels" else pa.field("labels", pa.list_(pa.int64()))
                        for field in ARROW_SCHEMA])
    write_dataset(str(tmp_path), sound_rows(), schema=schema)
    finding = examined(str(tmp_path)).findings["unreadable shard"]
    assert finding.count == 4 and "of another type: labels" in finding.examples[0].detail
    splits = sound_rows()
    splits["train"][5]["labels"] = [0, None]
    write_dataset(str(tmp_path), splits)
    assert examined(str(tmp_path)).findings["unreadable shard"].counts == {"train": 1}


# --- all at once --------------------------------------------------------------------------------------


def planted_dataset(uri: str) -> list[str]:
    """A dataset with more than twenty faults, and their kinds."""
    splits = {"train": [make_row(seed) for seed in range(40)], "val": [make_row(100 + seed) for seed in range(10)]}
    for number, plant in enumerate(ROW_FAULTS.values()):
        scene = {"train": [splits["train"][0], *({} for _ in range(7))], "val": [{}]}
        place = plant(scene)
        splits[place.split][number % 10 if place.split == "val" else number + 8] |= scene[place.split][place.index]
    for row in splits["val"]:
        row["labels"] = [0 for _ in row["labels"]]  # the class dog is missing
    write_dataset(uri, splits)
    train = load_manifest(uri).split("train")
    extra = [write_shard(uri, "train", [make_row(200 + number)], 7 + number) for number in range(3)]
    shards = (*train.shards, *extra)
    _rewrite(lambda m: _with_split(m, "train", shards=shards, num_rows=43))(uri)
    for shard, change in zip(extra, (lambda data: None, lambda data: data[:-9], _flip)):
        data = storage.read_bytes(storage.join(uri, shard.path))
        storage.delete(storage.join(uri, shard.path))
        if (changed := change(data)) is not None:
            storage.write_bytes(storage.join(uri, shard.path), changed)
    return [*ROW_FAULTS, "class missing in a split", "missing shard", "truncated shard", "wrong checksum"]


@pytest.mark.ray
def test_all_planted_faults_are_found_with_ray(ray_session, tmp_path):
    kinds = planted_dataset(str(tmp_path / "d"))
    assert len(kinds) >= 20
    found = examined(str(tmp_path / "d"))
    assert [kind for kind in kinds if kind not in found.findings] == []
    assert found.num_images == 50 and found.cpu_s > 0


# --- sample check -------------------------------------------------------------------------------------

FULL_EXAMINATION_ONLY = {"image in two splits", "duplicate image", "near-duplicate in two splits",
              "near-duplicate image", "duplicate image id", "wrong checksum"}
"""Kinds that only the full examination finds."""


@pytest.mark.parametrize("kind", sorted({*FAULTS, *FILE_FAULTS} - FULL_EXAMINATION_ONLY))
def test_the_sample_check_finds_it_too(tmp_path, kind):
    splits = sound_rows()
    FAULTS.get(kind, lambda splits: None)(splits)
    write_dataset(str(tmp_path), splits)
    FILE_FAULTS.get(kind, lambda uri: None)(str(tmp_path))
    assert kind in sample_check(str(tmp_path), ["train", "val"], YOLOV7, 640).findings


def test_the_sample_check_keeps_to_its_budget_and_reports_what_it_examined(tmp_path):
    write_dataset(str(tmp_path), sound_rows())
    seen = sample_check(str(tmp_path), ["val"], YOLOV7, 640)
    assert seen.looked_at.startswith("labels of 4, headers of 4 and pixels of 4 of 4 images; no checksums")
    none = sample_check(str(tmp_path), ["train", "val"], YOLOV7, 640, budget_s=-1)
    assert none.looked_at.startswith("labels of 0, headers of 0 and pixels of 0 of 12 images")


def test_the_sample_check_of_s3_fetches_no_shard(s3, monkeypatch):
    write_dataset(s3, sound_rows())
    monkeypatch.setattr("yolov7_ray.data.doctor.sample_check.open_shard", lambda *_: pytest.fail("fetched a shard"))
    assert sample_check(s3, ["train"], YOLOV7, 640).looked_at.startswith("the manifest and the files' sizes alone")
    FILE_FAULTS["missing shard"](s3)
    assert "missing shard" in sample_check(s3, ["train"], YOLOV7, 640).findings


def test_a_dry_run_reports_the_sample_check_without_ray(tmp_path, monkeypatch):
    splits = sound_rows()
    ROW_FAULTS["label out of range"](splits)
    ROW_FAULTS["turned by EXIF"](splits)
    write_dataset(str(tmp_path / "d"), splits)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("started Ray"))
    text = plan(load_job(f"kind: train\ndataset: {tmp_path / 'd'}\nmodel: {{architecture: yolov7-tiny, width: 0.25}}"))
    assert "  error     1 x label out of range: train 5 (5.jpg): label 2 of 2 classes; labels are" in text
    assert "  note      1 x turned by EXIF: train 5 (5.jpg): orientation 3; fine: it is used as displayed" in text
    assert "  doctor    labels of 12, headers of 12 and pixels of 12 of 12 images; " in text
    assert f"python submit.py doctor {tmp_path / 'd'} looks at all" in text
    text = plan(load_job(f"kind: doctor\ndataset: {tmp_path / 'd'}\n"))
    assert "train 8 images, val 4 images; 2 classes" in text and "  error     1 x label out of range" in text


# --- command ------------------------------------------------------------------------------------------


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr("yolov7_ray.cluster.local_ray.start_ray", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("yolov7_ray.cluster.local_ray.nodes", lambda _: None)


def test_the_exit_status_reports_errors(tmp_path, without_ray, capsys):
    write_dataset(str(tmp_path / "d"), sound_rows())
    assert submit.main(["doctor", str(tmp_path / "d"), "--json", str(tmp_path / "x.json")]) == 0
    values = json.loads((tmp_path / "x.json").read_text())
    assert (values["architecture"], values["image_size_px"], values["findings"]) == ("yolov7", 640, [])
    FILE_FAULTS["truncated shard"](str(tmp_path / "d"))
    assert submit.main(["doctor", str(tmp_path / "d"), "--architecture", "yolov7-w6"]) == 1
    printed = capsys.readouterr().out
    assert "for yolov7-w6 at 1280 px" in printed and "error           1  truncated shard: train: train/00001" in printed


@pytest.mark.parametrize("words, message", [
    (["nowhere"], "there is no dataset here; run an ingest job"),
    (["d", "--architecture", "yolov9"], "doctor: architecture: 'yolov9' is unknown; choose yolov7-tiny"),
    (["d", "--image-size", "100"],
     "doctor: image_size_px: 100 is not a multiple of the model's largest stride 32; choose")])
def test_mistakes_of_the_command(tmp_path, without_ray, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert submit.main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


# --- copies -------------------------------------------------------------------------------------------


def test_perceptual_hash_survives_compression_and_size_but_separates_pictures():
    def look(seed: int, quality: int = 95, scale: float = 1.0) -> tuple[int, bytes]:
        pixels = cv2.resize(_pixels(seed), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return perceptual_hash(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))

    looks = [look(seed) for seed in range(20)] + [look(3, 50, 0.8), look(7, 70, 1.5)]
    hashes = np.array([form for form, _ in looks], np.uint64)
    tints = np.array([list(tint) for _, tint in looks], np.int16)
    assert near_pairs(hashes, tints).tolist() == [[3, 20], [7, 21]]


def test_near_pairs_among_many_and_of_few():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, 20_000, np.uint64)
    hashes[15_000:15_200] = hashes[:200]
    for bit in rng.integers(0, 64, (200, 4)).T:
        hashes[15_000:15_200] ^= np.uint64(1) << bit.astype(np.uint64)
    tints = np.zeros((20_000, 48), np.int16)
    pairs = {tuple(pair) for pair in near_pairs(hashes, tints).tolist()}
    wanted = {(position, 15_000 + position) for position in range(200)}
    assert len(wanted & pairs) >= 198
    tints[15_000:15_200] = 50
    assert not wanted & {tuple(pair) for pair in near_pairs(hashes, tints).tolist()}
    assert near_pairs(hashes[:1], tints[:1]).shape == near_pairs(hashes[:0], tints[:0]).shape == (0, 2)


# --- reports ------------------------------------------------------------------------------------------


def test_counts_are_exact_and_examples_few():
    findings, more = Findings(), Findings()
    findings.add_all("tiny object", "train", 90, (Case("train", index) for index in range(90)))
    more.add("tiny object", Case("val", 1), 10)
    findings.merge(Findings.from_json(more.to_json()))
    assert findings["tiny object"].count == 100 and findings["tiny object"].counts == {"train": 90, "val": 10}
    assert [case.index for case in findings["tiny object"].examples] == list(range(MAX_EXAMPLES))
    with pytest.raises(KeyError):
        findings.add("a cold", Case("train"))


class _Tags(HTMLParser):
    """Counts tags and keeps what they refer to."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for key, value in attributes if key in ("src", "href")]


def test_the_reports_list_every_finding(tmp_path):
    planted_dataset(str(tmp_path / "d"))
    found = examined(str(tmp_path / "d"))
    places = write(found, str(tmp_path / "out"), str(tmp_path / "x.json"))
    values = json.loads((tmp_path / "x.json").read_text())
    assert values == json.loads((tmp_path / "out/doctor.json").read_text())
    assert [entry["kind"] for entry in values["findings"]] == [finding.kind for finding in found.findings]
    severities = [entry["severity"] for entry in values["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    text, document = table(found), (tmp_path / "out/index.html").read_text()
    for finding in found.findings:
        assert finding.kind in text and finding.definition.remedy in text
        assert finding.kind in document
    assert len(places) == 3 and len(document) < 3_000_000
    parser = _Tags()
    parser.feed(document)
    assert parser.tags.count("section") == len(values["findings"])
    assert len(parser.sources) > 15 and all(
        source.startswith(("data:image/jpeg;base64,", "#")) or source == "data:," for source in parser.sources)
    assert "script" not in parser.tags and parser.tags.count("li") == len(CLASSES)


def test_names_cannot_break_the_page(tmp_path):
    splits = sound_rows()
    splits["train"][0] |= {"file_name": "<b>x.jpg", "boxes_xyxy": [[0, 0, 9, 9]] * 2}
    splits["train"][0]["labels"] = [0, 0]
    write_dataset(str(tmp_path / "d"), splits, ("<i>cat", "dog"))
    write(examined(str(tmp_path / "d")), str(tmp_path / "out"), None)
    document = (tmp_path / "out/index.html").read_text()
    assert "<i>cat" not in document and "<b>x.jpg" not in document and "&lt;b&gt;x.jpg" in document
