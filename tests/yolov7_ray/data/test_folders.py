"""Folders as people have them: names, encodings, ids, label lines and declared sizes, of each kind a few."""

import codecs
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import jpeg
from yolov7_ray.data.files.resolver import Resolver
from yolov7_ray.data.files.text import NotText, decode, decode_chunks, decode_xml
from yolov7_ray.data.ingest.declared_size import DIFFERS, SCALED, is_multiple
from yolov7_ray.data.ingest.losses import check_losses, losses
from yolov7_ray.data.ingest.rows import build_row
from yolov7_ray.data.files.suffixes import IMAGE_SUFFIXES
from yolov7_ray.data.sources.outline import box_of, rings_of
from yolov7_ray.data.sources.read import read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource, CocoSource, CocoSplit, VocSource, YoloSource
from yolov7_ray.data.sources.voc_xml import parse
from yolov7_ray.errors import JobError
from yolov7_ray.storage import FileInfo

from yolov7.images.sample import decode_image


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def rows_of(source, split="train"):
    built = [build_row(item, item.fetch(), tuple(range(len(source.classes)))) for item in source.splits[split]]
    return [row for row, _ in built], [problem for _, problems in built for problem in problems]


def boxes(row) -> list[list[float]]:
    return row.objects.boxes_xyxy.tolist()


def told(source, split="train") -> dict[str, int]:
    return {record["reason"]: record.get("count", 1) for record in source.problems[split]}


# --- names of files -------------------------------------------------------------------------------------


def resolver(*paths: str) -> Resolver:
    return Resolver({path: FileInfo(path, 1, "") for path in paths}, "folder", IMAGE_SUFFIXES)


@pytest.mark.parametrize(("name", "path", "how"), [
    ("a.jpg", "a.jpg", None), ("./a.jpg", "a.jpg", "./ or //"), (r"b\c.jpg", "b/c.jpg", "backslashes"),
    (r".\b\c.jpg", "b/c.jpg", "backslashes"), ("b//c.jpg", "b/c.jpg", "./ or //"), ("x/../a.jpg", "a.jpg", "./ or //"),
    ("images/a.jpg", "a.jpg", "another directory"), ("c.jpg", "b/c.jpg", "another directory"),
    ("b/b/c.jpg", "b/c.jpg", "another directory"), ("/mnt/disk/set/b/c.jpg", "b/c.jpg", "another root"),
    (r"D:\set\b\c.jpg", "b/c.jpg", "another root"), ("https://host/x/b/c.jpg?size=2#1", "b/c.jpg", "another root"),
    ("/data/local-files/?d=b%2Fmy%20photo.jpg", "b/my photo.jpg", "URL encoding"),
    ("b/my%20photo.jpg", "b/my photo.jpg", "URL encoding"), ("a%C3%A9.jpg", "aé.jpg", "URL encoding"),
    (unicodedata.normalize("NFD", "aé.jpg"), "aé.jpg", "another composition of accents"),
    ("a.JPG", "a.jpg", "another case"), ("50%.jpg", "50%.jpg", None), ("50%25.jpg", "50%.jpg", "URL encoding")])
def test_a_name_is_found_as_people_write_it(name, path, how):
    files = resolver("a.jpg", "b/c.jpg", "b/my photo.jpg", "aé.jpg", "50%.jpg")
    assert files.find(name).path == path
    assert dict(files.bent) == ({how: 1} if how else {})


@pytest.mark.parametrize("name", ["d.jpg", "val/c.jpg", "a.png", "", "/", "b", "/elsewhere/c.jpg"])
def test_another_file_is_not_taken_for_it(name):
    assert resolver("a.jpg", "b/c.jpg").find(name) is None


def test_what_may_mean_two_files_is_an_error_that_names_both():
    files = resolver("x/a.jpg", "y/a.jpg", "z/B.jpg", "z/b.JPG")
    with pytest.raises(JobError, match="'a.jpg' may mean x/a.jpg or y/a.jpg"):
        files.find("a.jpg")
    assert files.find("root/y/a.jpg").path == "y/a.jpg"
    assert files.find("B.jpg").path == "z/B.jpg"


# --- text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding):
    assert decode("Bär 狗".encode(encoding), "f") == "Bär 狗"
    assert decode(codecs.BOM_UTF16_BE + "狗".encode("utf-16-be"), "f") == "狗"


def test_bytes_that_are_no_text_are_named_with_their_offset():
    with pytest.raises(NotText, match="labels.txt: byte 0xe4 at offset 7 is not utf-8"):
        decode("abcdefgä".encode("latin-1"), "labels.txt")
    with pytest.raises(NotText, match="offset 4"):  # cut within a character, in pieces
        list(decode_chunks([b"ab", b"c", "dé".encode()[:2]], "utf-8", 0, "f"))
    with pytest.raises(NotText, match="offset 3"):
        list(decode_chunks([b"abc", b"\xff"], "utf-8", 0, "f"))


@pytest.mark.parametrize(("encoding", "declared"), [
    ("gbk", "GBK"), ("gb18030", "gb2312"), ("cp932", "Shift_JIS"), ("latin-1", "ISO-8859-1"), ("utf-16", "UTF-16"),
    ("utf-16-le", "utf-16"), ("utf-8", "utf-16"), ("euc_jp", "EUC-JP"), ("utf-8-sig", "utf-8")])
def test_the_declaration_of_xml_counts(encoding, declared):
    name = "Bär" if encoding == "latin-1" else "犬"
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation><a>{name}</a></annotation>'
    assert decode_xml(text.encode(encoding), "f") == f"<annotation><a>{name}</a></annotation>"


@pytest.mark.parametrize("declared", ["klingon", "base64", "rot13"])
def test_an_unknown_declaration_is_an_error(declared):
    with pytest.raises(NotText, match=f"a.xml: declares the encoding '{declared}', which is unknown"):
        decode_xml(f"<?xml version='1.0' encoding='{declared}'?><a/>".encode(), "a.xml")


# --- COCO -----------------------------------------------------------------------------------------------


def coco(root: Path, images: list, annotations: list, categories=({"id": 1, "name": "a"},), encoding="utf-8", **files):
    write(root, {f"train/{name}.jpg": jpeg(0) for name in ("x", "y")})
    text = json.dumps({"images": images, "annotations": annotations, "categories": list(categories)}, ensure_ascii=False)
    (root / "train.json").write_bytes(text.encode(encoding))
    return CocoSource(format="coco", uri=str(root),
                      splits={"train": CocoSplit(images="train", annotations="train.json")})


@pytest.mark.parametrize("of_image", [(7, "7"), ("7", 7.0), ("x-1", " x-1"), (2**70, str(2**70)), ("007", "007")])
@pytest.mark.parametrize("category", [(3, "3"), ("c", "c")])
def test_ids_link_whatever_their_type(tmp_path, of_image, category):
    source = read_source(coco(tmp_path, [{"id": of_image[0], "file_name": "x.jpg"}], [
        {"id": 0, "image_id": of_image[1], "category_id": category[1], "bbox": ["1", 2, 3, 4], "iscrowd": "0"},
        {"id": 0, "image_id": of_image[1], "category_id": category[1], "bbox": [5, 2, 3, 4], "iscrowd": "1", "area": ""}],
        [{"id": category[0], "name": "a"}]))
    [row], problems = rows_of(source)
    assert boxes(row) == [[1, 2, 4, 6], [5, 2, 8, 6]] and not problems
    assert [record["detail"] for record in source.problems["train"]] == ["train/y.jpg"]
    assert [entry["source_id"] for entry in source.original_ids] == [
        identity for identity in ("c", "x-1", 2**70, "007") if identity in (category[0], of_image[0])]
    assert row.objects.iscrowd.tolist() == [False, True] and row.objects.area.tolist() == [12, 12] and row.image_id >= 0


def test_ids_that_differ_do_not_link(tmp_path):
    source = read_source(coco(tmp_path, [{"id": "007", "file_name": "x.jpg"}, {"id": 7, "file_name": "y.jpg"}], [
        {"id": 0, "image_id": "7", "category_id": 1, "bbox": [1, 2, 3, 4]}]))
    assert [len(row.objects) for row in rows_of(source)[0]] == [0, 1]


@pytest.mark.parametrize("segmentation", [
    [[1, 2, 9, 2, 9, 8]], [1, 2, 9, 2, 9, 8], [[[1, 2], [9, 2], [9, 8]]], [[1, 2], [9, 2], [9, 8]],
    [[{"x": 1, "y": 2}, {"x": 9, "y": 2}, {"x": 9, "y": 8}]]])
def test_outlines_as_people_write_them(segmentation):
    assert rings_of(segmentation) == [[1, 2, 9, 2, 9, 8]]
    assert box_of(rings_of(segmentation), segmentation) == (1, 2, 9, 8)


def test_boxes_of_masks():
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 10:16] = 1
    flat = mask.ravel("F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    assert box_of([], {"size": [20, 30], "counts": counts}) == (10, 4, 16, 9)
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask))
    assert box_of([], {"size": [20, 30], "counts": encoded["counts"].decode()}) == (10, 4, 16, 9)
    with pytest.raises(ValueError, match="counts are not its pixels"):
        box_of([], {"size": [20, 30], "counts": [1, 2]})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_coco_in_other_encodings_with_a_root_category_and_a_bent_name(tmp_path, encoding):
    categories = [{"id": 0, "name": "root", "supercategory": "none"}, {"id": 1, "name": "Bär", "supercategory": "root"}]
    source = read_source(coco(tmp_path, [{"id": 1, "file_name": r"C:\mine\train\x.JPG"}], [
        {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}], categories, encoding))
    assert source.classes == ("Bär",) and source.class_ids == (1,) and boxes(rows_of(source)[0][0]) == [[1, 1, 5, 5]]
    assert told(source) == {"category that only groups others is no class": 1, "box taken from the outline": 1,
                            "file name found in spite of another case": 1,
                            "picture that belongs to no split, left aside": 1}


@pytest.mark.parametrize(("size_hw", "reason"), [((96, 128), None), ((192, 256), SCALED), ((48, 64), SCALED),
                                                 ((289, 383), SCALED), ((100, 128), DIFFERS), ((144, 192), DIFFERS)])
def test_the_declared_size_decides(tmp_path, size_hw, reason):
    source = read_source(coco(tmp_path, [{"id": 1, "file_name": "x.jpg", "height": size_hw[0], "width": size_hw[1]}], [
        {"image_id": 1, "category_id": 1, "bbox": [size_hw[1] / 4, 0, size_hw[1] / 2, size_hw[0] / 2]}]))
    [row], problems = rows_of(source)
    assert [problem.reason for problem in problems] == ([reason] if reason else [])
    assert row is None if reason == DIFFERS else np.allclose(boxes(row), [[32, 0, 96, 48]])


def test_multiples_of_a_size():
    assert is_multiple((100, 201), (50, 100)) and is_multiple((333, 500), (1000, 1500))
    assert not is_multiple((100, 100), (100, 100)) and not is_multiple((100, 200), (50, 50))


# --- YOLO -----------------------------------------------------------------------------------------------

LINE = "0 .5 .5 .25 .5\n"


def yolo(root: Path, settings: str, files: dict, **keys) -> YoloSource:
    return YoloSource(format="yolo", uri=str(write(root, {"data.yaml": settings, **files})), **keys)


@pytest.mark.parametrize(("image", "label"), [
    ("images/train/x.jpg", "labels/train/x.txt"), ("train/images/x.jpg", "train/labels/x.txt"), ("train/x.jpg", "train/x.txt"),
    ("train/x.jpg", "labels/train/x.txt"), ("train/x.jpg", "train/labels/x.txt"), ("images/x.jfif", "labels/x.txt")])
@pytest.mark.parametrize("settings", ["names: {0: a}", "names: a\nnc: 1", "names: [a]"])
def test_labels_where_people_put_them(tmp_path, image, label, settings):
    [row], _ = rows_of(read_source(yolo(tmp_path, settings, {image: jpeg(0), label: LINE})))
    assert boxes(row) == [[48, 24, 80, 72]]


@pytest.mark.parametrize("settings", [
    "path: /content/set\ntrain: images/train\nval: images/val\n", "train: ../images/train\nval: [../images/val]\n",
    "train: train\nval: val\n",
    "path: ../set\ntrain: [images/train]\nvalid: val.txt\ntest: images/test\n"])
def test_data_yaml_is_the_truth(tmp_path, settings):
    files = {"images/train/x.jpg": jpeg(0), "labels/train/x.txt": LINE, "images/val/y.jpg": jpeg(1), "labels/val/y.txt": LINE,
             "val.txt": r"D:\set\images\val\y.jpg" + "\n"}
    source = read_source(yolo(tmp_path / "set", settings + "names: [on, 010]\n", files))
    assert source.classes == ("on", "010")
    assert {split: [item.file_name for item in items] for split, items in source.splits.items()} == {
        "train": ["images/train/x.jpg"], "val": ["images/val/y.jpg"]}


def test_pose_lines_and_lines_of_predictions(tmp_path):
    pose = "0 .5 .5 .25 .5 .1 .1 2 .2 .2 0\n"
    [row], problems = rows_of(read_source(yolo(tmp_path / "p", "names: [a]\nkpt_shape: [2, 3]", {
        "images/x.jpg": jpeg(0), "labels/x.txt": pose + LINE + "0 .1 .1 .2 .1 .2 .2\n"})))
    assert boxes(row) == [[48, 24, 80, 72]] * 2 and [problem.reason for problem in problems] == ["malformed label"]
    _, problems = rows_of(read_source(yolo(tmp_path / "c", "names: [a]", {
        "images/x.jpg": jpeg(0), "labels/x.txt": LINE.strip() + " 0.9\n1.5 .5 .5 .2 .2"})))
    assert [problem.reason for problem in problems] == ["label with a sixth number, as predictions have (confidence)",
                                                        "malformed label"]


def test_what_a_yolo_folder_holds_beside_is_told(tmp_path):
    source = read_source(yolo(tmp_path, "names: [a]", {
        "images/x.jpg": jpeg(0), "images/bare.jpg": jpeg(1), "images/p.heic": b"..", "images/q.csv": "1", "labels/x.txt": LINE,
        "labels/bad.txt": LINE, "labels/classes.txt": "a", "labels/p.txt": LINE}))
    assert told(source) == {"image of a format that cannot be read": 1, "file of another kind left aside": 1,
                            "image without a label file, taken as one without objects": 1, "label file without an image": 1}
    (tmp_path / "labels/x.txt").write_bytes(LINE.encode("utf-16") + b"\0")
    rows, [problem] = rows_of(source)
    assert problem.is_image and "x.txt" in problem.detail and "offset" in problem.detail


def test_a_folder_without_labels_is_no_set_of_backgrounds(tmp_path):
    with pytest.raises(JobError, match="none of the 1 images has a label file: that of images/x.jpg would be labels/x.txt"):
        read_source(yolo(tmp_path, "names: [a]", {"images/x.jpg": jpeg(0)}))


def test_the_images_directory_itself_finds_its_labels(tmp_path):
    write(tmp_path, {"images/train/x.jpg": jpeg(0), "labels/train/x.txt": LINE})
    source = read_source(YoloSource(format="yolo", uri=str(tmp_path / "images"), classes=["a"]))
    assert boxes(rows_of(source)[0][0]) == [[48, 24, 80, 72]] and told(source) == {"label file found beside source.uri": 1}


# --- Pascal VOC -----------------------------------------------------------------------------------------


def xml(name: str = "a", size: str = "", box: str = "", declaration: str = "", more: str = "") -> str:
    box = box or "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    return f"{declaration}<annotation{more}>{size}<object><name>{name}</name>{box}</object></annotation>"


@pytest.mark.parametrize("files", [
    {"train/x.jpg": "", "train/x.xml": ""}, {"x.jpg": "", "x.xml": ""}, {"images/x.png.jpg": "", "annotations/x.png.xml": ""},
    {"JPEGImages/a b 1.jpg": "", "Annotations/a b 1.xml": "", "ImageSets/Main/train.txt": "a b 1\n"},
    {"JPEGImages/x.jpg": "", "Annotations/x.xml": "", "ImageSets/Main/trainval.txt": "x.jpg\n"},
    {"VOC2007/JPEGImages/x.jpg": "", "VOC2007/Annotations/x.xml": "", "VOC2007/ImageSets/Main/train.txt": "x  1\n"},
    {"JPEGImages/d/x.jpg": "", "Annotations/d/x.xml": "", "ImageSets/Main/train.txt": "d/x\n",
     "SegmentationClass/d/x.png": ""}])
def test_voc_folders(tmp_path, files):
    write(tmp_path, {path: text or (xml() if path.endswith("xml") else jpeg(0)) for path, text in files.items()})
    source = read_source(VocSource(format="voc", uri=str(tmp_path)))
    [row], problems = rows_of(source)
    assert boxes(row) == [[10, 20, 30, 40]] and not problems and not told(source)


def test_voc_objects_of_other_tools():
    rotated = "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>"
    outline = "<polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>4</y2><x3>9</x3><y3>8</y3></polygon>"
    for box, expected in ((rotated, (45, 30, 55, 50)), (outline, (3, 4, 9, 8))):
        parsed = parse(xml(box=box, more=' xmlns="urn:x"'))
        assert np.allclose(parsed.objects[0][1].box_xyxy, expected, atol=1e-4) and len(parsed.notes) == 1


def test_voc_files_in_their_encodings(tmp_path):
    declaration = '<?xml version="1.0" encoding="{}"?>'
    write(tmp_path, {"x.jpg": jpeg(0), "y.jpg": jpeg(1), "z.jpg": jpeg(2), "lost.xml": xml(),
                     "x.xml": xml("犬", declaration=declaration.format("Shift_JIS")).encode("shift_jis"),
                     "y.xml": xml("Bär", declaration=declaration.format("latin-1")).encode("latin-1"),
                     "z.xml": xml("Bär").encode("latin-1")})
    source = read_source(VocSource(format="voc", uri=str(tmp_path)))
    assert source.classes == ("Bär", "犬")
    assert told(source) == {"annotations that cannot be decoded": 1, "annotation file without an image": 1}
    assert "z.xml: byte 0xe4 at offset" in source.problems["train"][0]["detail"]


# --- auto -----------------------------------------------------------------------------------------------


def test_formats_are_recognised(tmp_path):
    coco(tmp_path / "coco", [{"id": 1, "file_name": "x.jpg"}], [])
    write(tmp_path / "yolo", {"images/x.jpg": jpeg(0), "labels/x.txt": LINE, "data.yaml": "names: [a]"})
    write(tmp_path / "voc", {"x.jpg": jpeg(0), "x.xml": xml()})
    for name in ("coco", "yolo", "voc"):
        source = resolved(AutoSource(format="auto", uri=str(tmp_path / name)))
        assert source.format == name and len(read_source(source).splits["train"]) == 1
    with pytest.raises(JobError, match=r"may be read as coco \(coco/train.json\) or (yolo|voc) .*set source.format to coco"):
        resolved(AutoSource(format="auto", uri=str(tmp_path)))
    write(tmp_path / "none", {"a.csv": "1", "b.jpg": jpeg(0)})
    with pytest.raises(JobError, match="no dataset of a known format: it holds 1 .csv, 1 .jpg"):
        resolved(AutoSource(format="auto", uri=str(tmp_path / "none")))


def test_roboflow_and_split_directories_of_coco(tmp_path):
    for split in ("train", "valid"):
        coco(tmp_path / split, [{"id": 1, "file_name": "x.jpg"}], [])
        (tmp_path / split / "train.json").rename(tmp_path / split / "_annotations.coco.json")
        (tmp_path / split / "train/x.jpg").rename(tmp_path / split / "x.jpg")
    source = resolved(AutoSource(format="auto", uri=str(tmp_path)))
    assert {split: place.images for split, place in source.splits.items()} == {"train": "train", "val": "valid"}


# --- losses ---------------------------------------------------------------------------------------------


def test_losses_are_worst_first_and_bounded():
    def record(reason, dropped, **more):
        return {"split": "train", "file_name": "x.jpg", "detail": "d", "reason": reason, "dropped": dropped} | more

    found = losses([record("c", None, count=9), record("b", "object"), record("a", "image"), *[record("o", "object")] * 2])
    assert [(loss.reason, loss.count) for loss in found] == [("a", 1), ("o", 2), ("b", 1), ("c", 9)]
    check_losses("source", found, {"image": 19, "object": 57}, 0.05, "")
    with pytest.raises(JobError, match="source: 3 of 59 objects would be lost, most to: o .2, e.g. train: x.jpg: d.*b.*0.06"):
        check_losses("source", found, {"image": 19, "object": 56}, 0.05, "")
    with pytest.raises(JobError, match="all 1 images would be lost, most to: a"):
        check_losses("source", found, {"image": 0}, 0.99, "")


@pytest.mark.parametrize("seed", range(3))
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(seed):
    data = jpeg(seed)
    for cut in (1, 2):
        np.testing.assert_array_equal(decode_image(data[:-cut]), decode_image(data))
    for cut in (3, 4, 9, 40, len(data) // 2):
        with pytest.raises(ValueError, match="no image"):
            decode_image(data[:-cut])
