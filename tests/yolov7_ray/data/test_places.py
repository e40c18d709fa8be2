"""Where raw data may lie, and how they are listed: once, in columns, with all that is left out counted."""

import os
import pickle
import random
import shutil
import tempfile
import urllib.parse
from pathlib import Path

import faulty_s3
import pytest
from conftest import ingest_here, jpeg, make_coco, make_voc, make_yolo
from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.sources.read import described, opened, read_source
from yolov7_ray.data.sources.spec import AutoSource, CocoSource, YoloSource
from yolov7_ray.errors import Corrupt, JobError
from yolov7_ray.storage import FileInfo, retry, stream
from yolov7_ray.storage import s3 as s3_module
from yolov7_ray.storage.file_list import SORTED_HERE, FileColumns, FileList


def auto(uri: Path | str) -> AutoSource:
    return AutoSource(format="auto", uri=str(uri))


def told(source) -> dict[str, int]:
    """Reason -> count, and "!" before that of a loss."""
    found: dict[str, int] = {}
    for record in sum(source.problems.values(), []):
        reason = "!" * bool(record["dropped"]) + record["reason"]
        found[reason] = found.get(reason, 0) + record.get("count", 1)
    return found


# --- lists in columns -----------------------------------------------------------------------------------

PATHS = ["a.jpg", "a/b.jpg", "a/b/c.jpg", "a-b/d.jpg", "a0/e.jpg", "ä/狗.jpg", "𐐷.jpg", "\ud800.jpg", "ﬀ", "b c.txt"]


@pytest.mark.parametrize("count", [0, 3 * SORTED_HERE])
def test_a_list_is_sorted_and_finds_every_file(count):
    infos = [FileInfo(path, number, f"mark-{number}") for number, path in
             enumerate(PATHS + [f"a/b/{number * 7919 % 100_003}" for number in range(count)])]
    random.Random(0).shuffle(infos)
    files, expected = FileList.of(infos), sorted(infos, key=lambda info: info.path)
    assert files == expected and list(files.by_path) == [info.path for info in expected]
    assert len(files) == len(infos) and files[0] == expected[0] and files[-3:-1] == expected[-3:-1]
    for info in infos[::1 if not count else 101]:
        assert files.find(info.path) == files.by_path[info.path] == info and info.path in files.by_path
    for path in ("", "a", "a/", "zzz", "a.jp", "a.jpgg"):
        assert files.find(path) is None and path not in files.by_path
    assert dict(files.by_path.items()) == {info.path: info for info in infos} == files.by_path


def test_what_lies_below_a_directory():
    files = FileList.of(FileInfo(path, 1, "") for path in PATHS)
    assert [info.path for info in files.below("a")] == ["b.jpg", "b/c.jpg"] and files.below("") is files
    assert [info.path for info in files.below("a").below("b/")] == ["c.jpg"] == list(files.below("a/b").paths())
    assert files.below("a").find("b/c.jpg") and not files.below("a").find("a/b.jpg") and not files.below("nowhere")
    images = files.below("a").by_path.where(lambda path: path.startswith("b/"))
    assert list(images) == ["b/c.jpg"] and "b.jpg" not in images and list(images.below("b")) == ["c.jpg"]
    assert pickle.loads(pickle.dumps(files.below("a"))) == [FileInfo("b.jpg", 1, ""), FileInfo("b/c.jpg", 1, "")]


def test_columns_keep_their_order_and_are_cut():
    infos = [FileInfo(path, number, "m" * number) for number, path in enumerate(PATHS)]
    columns = FileColumns(infos)
    assert list(columns) == infos and list(columns[2:5]) == infos[2:5] and list(columns[7:2]) == []
    assert len(pickle.dumps(columns[:1])) < len(pickle.dumps(columns)) and columns[-1] == infos[-1]
    with pytest.raises(IndexError):
        columns[len(infos)]


# --- local folders with something wrong in them ----------------------------------------------------------


@pytest.fixture
def folder():
    """A YOLO folder that all users may enter."""
    root = Path(tempfile.mkdtemp(prefix="places-"))
    root.chmod(0o755)
    yield make_yolo(root)
    shutil.rmtree(root)


def test_links_in_a_circle_and_to_nothing_are_told_and_followed_once(folder):
    (folder / "images/train/again").symlink_to(folder / "images")
    (folder / "images/train/self.jpg").symlink_to("self.jpg")
    (folder / "images/train/gone.jpg").symlink_to("nowhere.jpg")
    (folder / "images/train/gone.txt").symlink_to("nowhere.txt")
    os.mkfifo(folder / "images/train/pipe.jpg")
    found, source = opened(auto(folder))
    assert (found.format, {split: len(items) for split, items in source.splits.items()}) == ("yolo", {"train": 4, "val": 4})
    assert {reason: count for reason, count in told(source).items() if "left out" in reason} == {
        "left out: link to a directory above it": 1, "!left out: link to nothing": 1, "left out: link to nothing": 1,
        "!left out: neither file nor directory": 1, "!left out: Too many levels of symbolic links": 1}


def test_links_to_elsewhere_are_followed(folder, tmp_path):
    shutil.move(folder / "images", tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert len(storage.list_files(str(folder))) == 15 and not storage.list_files(str(folder)).skipped


def test_names_that_are_no_text_are_counted(folder):
    (Path(os.fsdecode(os.fsencode(folder / "images/train") + b"/b\xe4r.jpg"))).write_bytes(jpeg(0))
    _, source = opened(auto(folder))
    [record] = [record for record in source.problems["train"] if record["reason"] == "left out: name that is not UTF-8"]
    assert record["dropped"] == "image" and record["file_name"] == r"images/train/b\xe4r.jpg"
    with pytest.raises(JobError, match=r"1 of 9 images would be lost, most to: left out: name that is not UTF-8 .*b.xe4r.jpg"):
        ingest_here(auto(folder), str(folder / "dataset"))
    ingest_here(auto(folder), str(folder / "dataset"), max_loss=0.2)
    assert load_manifest(str(folder / "dataset")).dropped["left out: name that is not UTF-8"] == 1


def test_directories_that_cannot_be_read_are_losses(folder):
    (folder / "images/val").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # to whom permissions do not apply
        os.seteuid(65534)
    try:
        assert [skip[:2] for skip in storage.list_files(str(folder)).skipped] == [("images/val", "access is denied")]
        _, source = opened(auto(folder))
        assert told(source)["!left out: access is denied"] == 1 and list(source.splits) == ["train"]
        with pytest.raises(JobError, match="images/val: access is denied; check the permissions"):
            storage.list_files(str(folder / "images/val"))
    finally:
        if is_root:
            os.seteuid(0)
        (folder / "images/val").chmod(0o755)


# --- S3: few requests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(s3_server):
    with faulty_s3.running(s3_server) as proxy:
        yield proxy


@pytest.fixture
def counted(proxy, monkeypatch):
    """The S3 server behind a proxy that lists the requests."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.05)
    proxy.requests.clear()
    yield proxy
    proxy.heal()


def requests(proxy) -> list[str]:
    """What came since the last call, sorted: "list PREFIX", "size KEY", "KEY bytes=START-STOP"."""
    found = []
    for method, path, bytes_ in proxy.requests:
        url = urllib.parse.urlsplit(path)
        listed, key = urllib.parse.parse_qs(url.query).get("prefix"), url.path.split("/", 3)[-1]
        found.append(f"list {listed[0].partition('/')[2]}" if listed else f"size {key}" if method == "HEAD" else
                     f"{key} {bytes_}".strip())
    proxy.requests.clear()
    return sorted(found)


def roboflow_coco(root: Path) -> Path:
    """Splits with images and annotations in one directory each; one annotation file is larger than a head."""
    make_coco(root)
    (root / "val").rename(root / "valid")
    (root / "train/_annotations.coco.json").write_text((root / "train.json").read_text() + " " * 150_000)
    (root / "val.json").rename(root / "valid/_annotations.coco.json")
    (root / "train.json").unlink()
    return root


def test_auto_in_s3_takes_one_listing_and_heads(s3, counted, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_BYTES", 100_000)
    sizes = {}
    for make in (roboflow_coco, make_yolo, make_voc):
        root = tmp_path / make.__name__
        storage.upload_directory(make(root), f"{s3}/{make.__name__}")
        sizes[make.__name__] = {info.path: info.num_bytes for info in storage.list_files(str(root))}
    counted.requests.clear()

    def asked(make) -> list[str]:
        local, remote = opened(auto(tmp_path / make.__name__)), opened(auto(f"{s3}/{make.__name__}"))
        assert described(*remote).replace(s3, str(tmp_path)) == described(*local) and told(local[1]) == told(remote[1])
        return sorted(request.replace(make.__name__ + "/", "") for request in requests(counted))

    train, valid = (sizes["roboflow_coco"][f"{split}/_annotations.coco.json"] for split in ("train", "valid"))
    assert asked(roboflow_coco) == sorted([
        "list ", "train/_annotations.coco.json bytes=0-65535", "size train/_annotations.coco.json",
        "train/_annotations.coco.json bytes=0-99999", f"train/_annotations.coco.json bytes=100000-{train - 1}",
        f"valid/_annotations.coco.json bytes=0-{valid - 1}", "size valid/_annotations.coco.json",
        f"valid/_annotations.coco.json bytes=0-{valid - 1}"])
    assert asked(make_yolo) == ["data.yaml", "data.yaml", f"data.yaml bytes=0-{sizes['make_yolo']['data.yaml'] - 1}", "list "]
    assert asked(make_voc) == sorted([
        "list ", *(f"Annotations/img_{number}.xml{range_}" for number in range(4) for range_ in (
            "", f" bytes=0-{sizes['make_voc'][f'Annotations/img_{number}.xml'] - 1}")),
        "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"])


def test_listings_in_s3_come_in_pages(s3, counted, monkeypatch):
    monkeypatch.setattr(s3_module, "PAGE_KEYS", 4)
    for number in range(9):
        storage.write_bytes(f"{s3}/{number}", b"x")
    counted.requests.clear()
    assert [info.path for info in storage.list_files(s3)] == list("012345678") and len(requests(counted)) == 3


def test_within_a_block_a_directory_and_what_is_below_it_are_listed_once(place):
    for name in ("a/b", "a/.hidden/c", "d"):
        storage.write_bytes(storage.join(place, name), b"x")
    with storage.listed_once():
        assert [info.path for info in storage.list_files(place)] == ["a/b", "d"]
        storage.write_bytes(storage.join(place, "a/late"), b"x")
        with storage.listed_once():
            assert [info.path for info in storage.list_files(place + "/a")] == ["b"]
        assert [info.path for info in storage.list_files(place + "/a/.hidden")] == ["c"]
    assert [info.path for info in storage.list_files(place + "/a")] == ["b", "late"]


@pytest.mark.parametrize("kind", ["flipped", "short", "busy", "broken"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_streamed_annotation_file_is_whole_or_read_again(kind, recorded, s3, counted, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_BYTES", 1000)
    monkeypatch.setattr(retry, "READ_TIMEOUT_S", 0.6)
    storage.upload_directory(make_coco(tmp_path), s3)
    if not recorded:  # as another program writes it
        s3_module._client().put_object(Bucket="bucket", Key=s3.removeprefix("s3://bucket/") + "/train.json",
                                       Body=(tmp_path / "train.json").read_bytes())
    spec = {"format": "coco", "splits": {"train": {"images": "train", "annotations": "train.json"}}}
    expected = read_source(CocoSource(uri=str(tmp_path), **spec))
    fault = counted.inject(kind, "GET", part="train.json", count=1)
    source = read_source(CocoSource(uri=s3, **spec))
    assert fault.count == 0 and source.inputs == expected.inputs and len(source.splits["train"]) == 6
    if recorded:  # else the same bytes twice are taken for whole
        counted.inject("flipped", "GET", part="train.json")
        with pytest.raises(Corrupt, match="train.json: is corrupt"):
            read_source(CocoSource(uri=s3, **spec))


def test_an_object_that_changes_while_it_is_read_is_an_error(s3, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_BYTES", 10)
    storage.write_bytes(s3 + "/x", b"a" * 20)
    with storage.opened(s3 + "/x") as file:
        assert file.raw.read(10) == b"a" * 10
        storage.write_bytes(s3 + "/x", b"b" * 20)
        with pytest.raises(JobError, match="x: changed while it was read"):
            file.raw.read(10)
