"""Where raw data may lie, and how they are listed: once, in columns, with all that is left out counted."""

import functools
import http.server
import importlib.util
import json
import os
import pickle
import random
import shutil
import socket
import tarfile
import tempfile
import threading
import urllib.parse
import uuid
import zipfile
from pathlib import Path

import faulty_s3
import fsspec
import pytest
from conftest import ingest_here, jpeg, make_coco, make_voc, make_yolo
from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.sources.detect import FORMATS, Format
from yolov7_ray.data.sources.item import CHANGED, DENIED, GONE, changes, fetched
from yolov7_ray.data.sources.read import described, opened, read_all, read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource, CocoSource, YoloSource
from yolov7_ray.errors import Corrupt, JobError, NotFound, StorageError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.paths import absolute, check_access, require_shared
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


def test_items_of_a_yolo_split_are_made_on_access_and_cut(tmp_path):
    _, source = opened(auto(make_yolo(tmp_path, 9)))
    items = source.splits["train"]
    cut = pickle.loads(pickle.dumps(items[3:6]))
    assert [(item.image_id, item.file_name, item.mark) for item in cut] == [
        (item.image_id, item.file_name, item.mark) for item in list(items)[3:6]]
    assert len(pickle.dumps(items[3:4])) < len(pickle.dumps(items)) / 2 and items[-1].image_id == 8
    assert items[8].labels_uri is None and items[-1].mark.endswith(" None None") and len(cut[0].fetch().objects) == 2


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
    (folder / "images/train/0.jpg").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # to whom permissions do not apply
        os.seteuid(65534)
    try:
        assert [skip[:2] for skip in storage.list_files(str(folder)).skipped] == [("images/val", "access is denied")]
        _, source = opened(auto(folder))
        assert told(source)["!left out: access is denied"] == 1 and list(source.splits) == ["train"]
        assert [raw.problem and raw.problem.reason for raw in map(fetched, source.splits["train"])] == [DENIED, None, None, None]
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
        sizes |= {info.path: info.num_bytes for info in storage.list_files(str(root))}
    counted.requests.clear()

    def asked(make) -> list[str]:
        """Requests of one source, which agrees with the same on the disk."""
        local, remote = opened(auto(tmp_path / make.__name__)), opened(auto(f"{s3}/{make.__name__}"))
        assert described(*remote).replace(s3, str(tmp_path)) == described(*local) and told(local[1]) == told(remote[1])
        return sorted(request.replace(make.__name__ + "/", "") for request in requests(counted))

    train, valid = (sizes[f"{split}/_annotations.coco.json"] for split in ("train", "valid"))
    assert asked(roboflow_coco) == sorted([
        "list ", "train/_annotations.coco.json bytes=0-65535", "size train/_annotations.coco.json",
        "train/_annotations.coco.json bytes=0-99999", f"train/_annotations.coco.json bytes=100000-{train - 1}",
        f"valid/_annotations.coco.json bytes=0-{valid - 1}", "size valid/_annotations.coco.json",
        f"valid/_annotations.coco.json bytes=0-{valid - 1}"])
    whole = [request for request in asked(make_yolo) if " bytes=0-" not in request]  # the others are heads
    assert whole == ["data.yaml", "data.yaml", "list "]
    whole = [request for request in asked(make_voc) if " bytes=0-" not in request]
    assert whole == sorted(["list ", *(f"Annotations/img_{number}.xml" for number in range(4)),
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


# --- a source's uri that is a file ----------------------------------------------------------------------


def counts(source) -> dict[str, int]:
    return {split: len(items) for split, items in source.splits.items()}


def upload(root: Path, uri: str) -> str:
    """Copy a folder, also to where datasets never lie."""
    for info in storage.list_files(str(root)):
        if uri.startswith("memory://"):
            fsspec.filesystem("memory").pipe_file(storage.join(uri, info.path), (root / info.path).read_bytes())
        else:
            storage.upload(root / info.path, storage.join(uri, info.path))
    return uri


@pytest.fixture(params=["local", "s3", "memory", "zip"])
def carried(request, tmp_path):
    """A function that carries a folder to a place of some kind and gives its URI there."""
    def carry(root: Path) -> str:
        if request.param == "local":
            return str(root)
        if request.param == "zip":
            return f"zip://{zipped(root, tmp_path / 'carried.zip')}!"
        return upload(root, request.getfixturevalue("s3") if request.param == "s3" else f"memory://{tmp_path}")

    return carry


def zipped(root: Path, path: Path, wrapped: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, Path(wrapped) / file.relative_to(root))
    return path


def test_an_annotation_file_is_the_one_truth(tmp_path, carried):
    root = make_coco(tmp_path / "coco")
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / f"{split}.json").rename(root / f"annotations/instances_{split}.json")
    (root / "notes.xml").write_text("<annotation/>")
    uri = carried(root)
    found, source = opened(auto(f"{uri}/annotations/instances_val.json"))
    assert (found.format, counts(source), found.splits["val"].images) == ("coco", {"val": 6}, "val")
    assert found.splits["val"].annotations == "annotations/instances_val.json"
    assert [len(item.fetch().objects) for item in source.splits["val"]] == [2] * 6
    with pytest.raises(JobError, match="instances_val.json is read as coco, not as yolo"):
        opened(YoloSource(format="yolo", uri=f"{uri}/annotations/instances_val.json"))
    with pytest.raises(JobError, match="source.splits: source.uri names the file instances_val.json"):
        opened(CocoSource(format="coco", uri=f"{uri}/annotations/instances_val.json",
                          splits={"train": {"images": "", "annotations": ""}}))


def test_roboflow_files_of_one_split(tmp_path, carried):
    uri = carried(roboflow_coco(tmp_path / "raw"))
    found, source = opened(auto(f"{uri}/valid/_annotations.coco.json"))
    assert (found.uri, counts(source)) == (f"{uri}/valid", {"train": 6})
    assert counts(opened(auto(uri))[1]) == {"train": 6, "val": 6}


@pytest.mark.parametrize("name, path", [("data.yaml", None), ("mine.yaml", "."), ("cfg/v2.yaml", ".."), ("cfg/v3.yml", "../")])
def test_a_data_yaml_is_the_one_truth(tmp_path, carried, name, path):
    root = make_yolo(tmp_path / "raw")
    (root / "data.yaml").write_text("names: [wrong]\n")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text((f"path: {path}\n" if path else "") + "train: images/val\nnames: [cat, dog]\n")
    uri = carried(root)
    found, source = opened(auto(f"{uri}/{name}"))
    assert (found.uri, source.classes, counts(source)) == (uri, ("cat", "dog"), {"train": 4})
    assert len(source.splits["train"][0].fetch().objects) == 2


@pytest.mark.parametrize("name, message", [
    ("set.tar.gz", r"set.tar.gz is packed as .gz, of which no part can be read alone; unpack it"),
    ("set.rar", "packed as .rar"), ("photo.jpg", "photo.jpg is a file that holds neither .*; give a folder, .zip, .tar, or"),
    ("bad.zip", "bad.zip: is no zip archive that can be read .*; download it again"),
    ("none.json", "none.json holds no annotations of a known format; give the root of COCO JSON")])
def test_other_files_are_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(JobError, match=message):
        opened(auto(tmp_path / name))


# --- archives, memory:// and others -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [roboflow_coco, make_yolo, make_voc])
def test_a_folder_is_the_same_wherever_it_lies(make, tmp_path, carried):
    root = make(tmp_path / "raw")
    uri = carried(root)
    (local_spec, local), (spec, source) = opened(auto(root)), opened(auto(uri))
    assert spec.format == local_spec.format and counts(source) == counts(local) and told(source) == told(local)
    for split, items in source.splits.items():
        items = pickle.loads(pickle.dumps(items[:]))  # as a worker gets them
        assert [item.fetch().image for item in items] == [item.fetch().image for item in local.splits[split]]


@pytest.mark.parametrize("wrapped", ["", "My Export", "a/b"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_export_as_zip_is_ingested(tmp_path, wrapped, method):
    root = make_yolo(tmp_path / "raw")
    path = zipped(root, tmp_path / "export.zip", wrapped, method)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._data.yaml", "x")
    expected = ingest_here(auto(root), str(tmp_path / "expected"))
    assert ingest_here(auto(path), str(tmp_path / "dataset"))["fingerprint"] == expected["fingerprint"]


def test_a_tar_is_read_where_it_lies(tmp_path, s3):
    root = make_voc(tmp_path / "raw")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(root, "./voc")
    found, source = opened(auto(tmp_path / "set.tar"))
    assert found.uri == f"tar://{tmp_path}/set.tar!/voc" and counts(source) == {"train": 3, "val": 1}
    assert source.splits["val"][0].fetch().image == jpeg(3)
    storage.upload(tmp_path / "set.tar", s3 + "/set.tar")
    with pytest.raises(JobError, match="set.tar: is a tar, which has no table of contents: .*; unpack it there, or give a zip"):
        opened(auto(s3 + "/set.tar"))


@pytest.mark.parametrize("name", ["auto", "yolo"])
def test_a_tar_of_samples_is_a_file_of_its_folder(tmp_path, monkeypatch, name):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            archive.add(__file__, f"{number}.py")
    spec = AutoSource(format="auto", uri=f"{tmp_path}/1.tar") if name == "auto" else YoloSource(format="yolo", uri=f"{tmp_path}/1.tar")
    with pytest.raises(JobError, match="/1.tar holds no annotations of a known format"):
        resolved(spec)
    shards = Format("shards", lambda listing: listing.probes(".tar"),
                    lambda spec, listing, paths: YoloSource(format="yolo", uri=spec.uri, splits={"train": paths}))
    monkeypatch.setitem(FORMATS, "yolo", shards)
    assert (resolved(spec).uri, resolved(spec).splits) == (str(tmp_path), {"train": ["1.tar"]})


def test_a_zip_in_s3_is_read_by_ranges(tmp_path, s3, counted):
    root = make_yolo(tmp_path / "raw")
    (root / "large.bin").write_bytes(os.urandom(300_000))
    storage.upload(zipped(root, tmp_path / "x.zip"), s3 + "/x.zip")
    counted.requests.clear()
    spec = auto(s3 + "/x.zip")
    _, source = opened(spec)
    assert sum(1 for request in requests(counted) if "bytes=" not in request) <= 2  # its size, twice
    item = source.splits["train"][0]
    assert item.fetch().image == jpeg(0)
    read = [request.rpartition("=")[2].split("-") for request in requests(counted)]
    assert len(read) == 2 and sum(int(last) - int(first) for first, last in read) < item.num_bytes + 1000
    assert storage.plain(f"zip://images::{s3}/x.zip") == f"zip://{s3}/x.zip!/images"
    assert storage.plain(f"zip://*::{s3}/x.zip") == f"zip://{s3}/x.zip!"


def test_files_in_a_zip_are_verified_and_odd_ones_told(tmp_path):
    path, content = tmp_path / "x.zip", os.urandom(3 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/" + "long" * 50 + ".bin", content)
        archive.writestr("../out.jpg", b"x")
        archive.writestr(r"dir\back.jpg", b"x")
        archive.writestr(zipfile.ZipInfo("./b.txt"), b"b" * 10)
        archive.writestr("packed.jpg", b"x" * 100, zipfile.ZIP_LZMA)
    uri = f"zip://{path}!"
    files = storage.list_files(uri)
    assert [info.path for info in files] == ["a/" + "long" * 50 + ".bin", "b.txt", "dir/back.jpg"]
    assert sorted((skip.path, skip.reason) for skip in files.skipped) == [
        ("../out.jpg", "name outside of the archive"), ("packed.jpg", "packed by method 14, not deflate")]
    large = storage.join(uri, files[0].path)
    assert storage.read_bytes(large) == content == storage.opened(large).read()
    assert storage.read_range(large, 5, 70_000) == content[5:70_000] and storage.read_bytes(uri + "/b.txt") == b"b" * 10
    assert storage.size(large) == 3 << 20 and storage.exists(uri + "/a") and not storage.exists(uri + "/none")
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 1
    path.write_bytes(data)
    for read in (storage.read_bytes, lambda uri: storage.opened(uri).read()):
        with pytest.raises(Corrupt, match="long.bin: is corrupt: .*; download the archive again"):
            read(large)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("new.txt", b"new")
        archive.writestr("b.txt", b"another")
    assert storage.read_bytes(uri + "/b.txt") == b"another"  # the archive is another one
    for write in (lambda: storage.write_bytes(uri + "/x", b""), lambda: storage.delete(uri), lambda: storage.create(uri, b"")):
        with pytest.raises(StorageError, match="is only read here; give a local path or s3://"):
            write()


def test_names_in_a_zip_of_another_system(tmp_path):
    name = "b\xe4r/狗.jpg"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"x")
    data = (tmp_path / "x.zip").read_bytes()
    for place in (data.index(b"PK\3\4") + 7, data.index(b"PK\1\2") + 9):  # UTF-8 that does not say so
        data = data[:place] + bytes([data[place] & ~8]) + data[place + 1:]
    (tmp_path / "x.zip").write_bytes(data)
    assert [info.path for info in storage.list_files(f"zip://{tmp_path}/x.zip!")] == [name]
    assert storage.read_bytes(f"zip://{tmp_path}/x.zip!/{name}") == b"x"


@pytest.mark.parametrize("scheme, package", [("gs", "gcsfs"), ("abfs", "adlfs"), ("hf", "huggingface_hub")])
def test_a_package_that_is_not_installed_is_named(scheme, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    spec = validate({"kind": "ingest", "source": {"format": "auto", "uri": f"{scheme}://b/x"}, "dataset": "d"})
    with pytest.raises(JobError, match=rf"{scheme}://b/x: {scheme}:// is read with the package {package}, which is not "
                                       rf"installed; pip install {package}, on all nodes"):
        check_access(spec)


def test_schemes_that_nobody_knows_and_places_that_are_only_read():
    job = {"kind": "ingest", "source": {"format": "auto", "uri": "nosuch://b/x"}, "dataset": "d"}
    with pytest.raises(JobError, match="source.uri: scheme 'nosuch' is unknown; give a local path, s3://, gs://"):
        validate(job)
    for uri in ("gs://b/x", "zip://x.zip!", "memory://x"):
        with pytest.raises(JobError, match="dataset: scheme '.*' is unknown; give a local path or s3://bucket/prefix"):
            validate(job | {"source": {"format": "shapes"}, "dataset": uri})
    assert storage.plain("S3://b/x") == "s3://b/x" and storage.plain("File:///x") == "/x"
    relative = validate(job | {"source": {"format": "auto", "uri": "zip://images::x.zip"}, "dataset": "/d"})
    assert relative.source.uri == "zip://x.zip!/images" and absolute(relative).source.uri == f"zip://{Path.cwd()}/x.zip!/images"
    with pytest.raises(JobError, match="source.uri: 'zip://x.zip!/images' is relative to this machine's working directory"):
        require_shared(relative, "job")


def test_what_fsspec_says_becomes_one_sentence():
    uri = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(uri + "/a/b.txt", b"0123456789")
    fsspec.filesystem("memory").pipe_file(uri + "/.hidden/c", b"x")
    [info] = storage.list_files(uri)
    assert (info.path, info.num_bytes) == ("a/b.txt", 10) and info.mark
    assert storage.read_range(uri + "/a/b.txt", 2, 5) == b"234" and storage.opened(uri + "/a/b.txt").read() == b"0123456789"
    assert storage.exists(uri + "/a") and not storage.exists(uri + "/b") and not storage.list_files(uri + "/b")
    for call in (storage.read_bytes, storage.opened, storage.size):
        with pytest.raises(NotFound, match="none: there is nothing here"):
            call(uri + "/none")
    filesystem, path = storage.filesystem(uri + "/a/b.txt")
    assert filesystem.open_input_stream(path).read() == b"0123456789"


# --- the web ----------------------------------------------------------------------------------------------


class _Files(http.server.SimpleHTTPRequestHandler):
    """A web server of a directory, with ranges, that counts."""

    asked: list[tuple[str, str]] = []
    faults: list[int] = []
    ranges = True

    def do_GET(self) -> None:
        if self.command == "GET":
            self.asked.append((self.path, self.headers.get("Range", "")))
        if self.faults:
            return self.send_error(self.faults.pop())
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data, status = path.read_bytes(), 200
        if self.ranges and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            content, status = f"bytes {first}-{last}/{len(data)}", 206
            data = data[int(first):int(last) + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", content)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
        return None

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def web(tmp_path):
    """Address of a web server of `tmp_path`/web, and its handler."""
    (tmp_path / "web").mkdir()
    handler = type("Handler", (_Files,), {"asked": [], "faults": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_a_zip_on_the_web_is_read_by_ranges(tmp_path, web):
    address, handler = web
    zipped(make_yolo(tmp_path / "raw"), tmp_path / "web/export")
    expected = ingest_here(auto(tmp_path / "raw"), str(tmp_path / "expected"))
    uri = f"{address}/export?key=a/b"  # as Roboflow's links are: nothing says that it is a zip
    assert ingest_here(auto(uri), str(tmp_path / "dataset"))["fingerprint"] == expected["fingerprint"]
    assert all(bytes_ for _, bytes_ in handler.asked)
    assert load_manifest(str(tmp_path / "dataset")).source["uri"] == f"zip://{address}/export?…!"  # no key in it
    handler.ranges = False
    with pytest.raises(JobError, match="the server gives no parts of files; download it"):
        opened(auto(f"{address}/export?x"))


def test_an_annotation_file_on_the_web_and_images_beside_it(tmp_path, web, monkeypatch):
    address, handler = web
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.05)
    root = make_coco(tmp_path / "web/set", 3)
    document = json.loads((root / "train.json").read_text())
    for image, name in zip(document["images"], ("train/a b.jpg", f"{address}/set/train/0001.jpg", "train/none.jpg"), strict=True):
        image["file_name"] = name
    (root / "train.json").write_text(json.dumps(document))
    (root / "train/0000.jpg").rename(root / "train/a b.jpg")
    found, source = opened(auto(f"{address}/set/train.json"))
    assert (found.format, counts(source)) == ("coco", {"train": 3})
    handler.faults += [503, 500]  # that pass
    raws = [fetched(item) for item in source.splits["train"]]
    assert [raw.image for raw in raws[:2]] == [jpeg(100), jpeg(101)] and not handler.faults
    assert raws[2].problem.reason == "file gone since it was listed" and "none.jpg: there is nothing here" in raws[2].problem.detail
    with pytest.raises(JobError, match="1 of 3 images would be lost, most to: file gone since it was listed"):
        ingest_here(auto(f"{address}/set/train.json"), str(tmp_path / "dataset"))
    assert "file changed since it was listed" not in str(load_manifest(ingest_here(
        auto(f"{address}/set/train.json"), str(tmp_path / "dataset"), max_loss=0.5)["dataset"]).dropped)


def test_a_web_address_is_no_folder(web):
    address, _ = web
    with pytest.raises(JobError, match="/set: there is nothing here"):
        opened(auto(f"{address}/set/"))
    with pytest.raises(StorageError, match="a web address cannot be listed; give a .zip there, or a COCO .json"):
        storage.list_files(f"{address}/set")


def test_a_host_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr(retry, "RETRY_UNREACHABLE_FOR_S", 0.1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(StorageError, match="cannot be read .Client.*Error: Cannot connect.*; check the address, the network"):
            storage.size(f"http://127.0.0.1:{unused.getsockname()[1]}/x.zip")


# --- files that change under way --------------------------------------------------------------------------


def test_files_that_went_or_changed_since_the_listing_are_told(tmp_path):
    root = make_coco(tmp_path / "raw", 4, ("train",))
    _, source = opened(auto(root))
    (root / "train/0000.jpg").unlink()
    (root / "train/0001.jpg").write_bytes(jpeg(7, 96, 128) + b"\0")
    (root / "train/0002.jpg").write_bytes(b"")
    raws = [(item, fetched(item)) for item in source.splits["train"]]
    assert [raw.problem and raw.problem.reason for _, raw in raws] == [GONE, None, None, None]
    assert [[problem.reason for problem in changes(*pair)] for pair in raws] == [[], [CHANGED], [CHANGED], []]
    yolo = make_yolo(tmp_path / "yolo")
    _, source = opened(auto(yolo))
    (yolo / "labels/train/0.txt").unlink()
    raw = fetched(source.splits["train"][0])
    assert raw.problem.reason == GONE and "labels/train/0.txt" in raw.problem.detail and raw.problem.is_image


def test_a_changed_file_is_noted_in_the_manifest(tmp_path, monkeypatch):
    root = make_coco(tmp_path / "raw", 20, ("train",))
    read = read_all

    def then_changed(spec):
        found = read(spec)
        (root / "train/0003.jpg").write_bytes(jpeg(7, 96, 128) + b"\0")
        (root / "train/0004.jpg").unlink()
        return found

    monkeypatch.setattr("yolov7_ray.data.ingest.ingest.read_all", then_changed)
    ingest_here(auto(root), str(tmp_path / "dataset"))
    assert load_manifest(str(tmp_path / "dataset")).dropped == {GONE: 1, CHANGED: 1}
