"""Folders as tools export them and as people keep them: each is recognised and read to the exact boxes."""

import io
import json
import re
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import jpeg, png

from yolov7_ray.data.ingest.rows import build_row
from yolov7_ray.data.sources.annotation_tools.labelstudio.brush import box_of_strokes
from yolov7_ray.data.sources.read import read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource
from yolov7_ray.errors import JobError

X, Y = jpeg(0), jpeg(1)
CAT = ("cat", 32, 24, 64, 72)
DOG = ("dog", 1, 2, 5, 9)
YOLO = "0 0.375 0.5 0.25 0.5\n"
NAMES = "names: [cat]\n"


def write(root, files: dict):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def found(root, files: dict, **keys):
    return read_source(resolved(AutoSource(format="auto", uri=str(write(root, files)), **keys)))


def named_boxes(source) -> dict[str, list[tuple]]:
    """`split:file` -> class and box of every object, sorted."""
    boxes = {}
    for split, items in source.splits.items():
        for item in items:
            row, _ = build_row(item, item.fetch(), tuple(range(len(source.classes))))
            objects = row.objects
            boxes[f"{split}:{row.file_name}"] = sorted(
                (source.classes[label], *(round(side, 2) for side in box))
                for label, box in zip(objects.labels.tolist(), objects.boxes_xyxy.tolist(), strict=True))
    return boxes


def told(source) -> dict[str, int]:
    return {record["reason"]: record.get("count", 1) for records in source.problems.values() for record in records}


# --- COCO -------------------------------------------------------------------------------------------------


def coco(*names, key: str = "file_name", **more) -> str:
    images = [{"id": number, key: name, "height": 96, "width": 128} for number, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [32, 24, 32, 48]}],
                       "categories": [{"id": 1, "name": "cat"}], **more})


def yolo(image: str, label: str, settings: str = NAMES) -> dict:
    return {"data.yaml": settings, image: X, label: YOLO}


SETTINGS = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cat']\n"
XML = """<annotation><filename>{0}</filename><object><name>cat</name><bndbox><xmin>33</xmin><ymin>25</ymin>
 <xmax>64</xmax><ymax>72</ymax></bndbox></object></annotation>"""
FOLDERS = {
    "coco: directories that repeat names": ({"instances.json": coco("a/x.jpg", "b/x.jpg"), "images/a/x.jpg": X, "images/b/x.jpg": Y},
                                            {"train:a/x.jpg": [CAT], "train:b/x.jpg": []}),
    "coco: CVAT's subsets": ({"annotations/instances_default.json": coco("a/x.jpg"), "images/default/a/x.jpg": X},
                             {"train:a/x.jpg": [CAT]}),
    "coco: LVIS has addresses alone": ({"lvis_train.json": coco("http://host/train2017/x.jpg", key="coco_url"), "train2017/x.jpg": X},
                                       {"train:x.jpg": [CAT]}),
    "coco: path in place of file_name": ({"train.json": coco("/datasets/p/x.jpg", key="path"), "train/x.jpg": X}, {"train:x.jpg": [CAT]}),
    "yolo: data.yaml in a directory": (
        {f"My Project.v1/{name}": content for name, content in {
            "data.yaml": SETTINGS, "train/images/x.jpg": X, "train/labels/x.txt": YOLO, "valid/images/y.jpg": Y, "valid/labels/y.txt": ""}.items()}
        | {"__MACOSX/._x.jpg": b"1", ".DS_Store": b"1"},
        {"train:My Project.v1/train/images/x.jpg": [CAT], "val:My Project.v1/valid/images/y.jpg": []}),
    "yolo: settings beside the data": (yolo("images/train/x.jpg", "labels/train/x.txt", "") | {
        "data.yaml": "version: 1", "cfg/my.yaml": "path: ..\ntrain: images/train\nnames: {0: cat}\n"}, {"train:images/train/x.jpg": [CAT]}),
    "yolo: names in each split": ({f"{split}/{name}": content for split in ("train", "valid") for name, content in {
        "_darknet.labels": "cat\n", "x.jpg": X, "x.txt": YOLO}.items()}, {"train:train/x.jpg": [CAT], "val:valid/x.jpg": [CAT]}),
    "yolo: .TXT": (yolo("images/X.JPG", "labels/X.TXT"), {"train:images/X.JPG": [CAT]}),
    "yolo: IMAGES": (yolo("IMAGES/x.jpg", "LABELS/x.txt"), {"train:IMAGES/x.jpg": [CAT]}),
    "yolo: accents": (yolo("images/bär.jpg", unicodedata.normalize("NFD", "labels/bär.txt")), {"train:images/bär.jpg": [CAT]}),
    "yolo: annotations/": (yolo("images/x.jpg", "annotations/x.txt"), {"train:images/x.jpg": [CAT]}),
    "voc: two years": ({f"kit/VOC{year}/{name}": content for year in (2007, 2012) for name, content in {
        "JPEGImages/1.jpg": X, "Annotations/1.xml": XML.format("1.jpg"), "ImageSets/Main/train.txt": "1\n"}.items()},
        {"train:kit/VOC2007/1.jpg": [CAT], "train:kit/VOC2012/1.jpg": [CAT]}),
    "voc: masks of the same name": ({"annotations/xmls/x.xml": XML.format("x.jpg"), "annotations/trimaps/x.png": png(0), "images/x.jpg": X},
                                    {"train:images/x.jpg": [CAT]}),
    "voc: splits below a directory": ({"a/b/train/x.jpg": X, "a/b/train/x.xml": XML, "a/b/test/y.jpg": Y, "a/b/test/y.xml": XML},
                                      {"train:a/b/train/x.jpg": [CAT], "test:a/b/test/y.jpg": [CAT]}),
    "voc: annotations beside images": ({f"{split}/{name}": content for split in ("train", "val") for name, content in {
        "images/x.jpg": X, "annotations/x.xml": XML}.items()}, {"train:train/images/x.jpg": [CAT], "val:val/images/x.jpg": [CAT]}),
    "voc: reversed, with decimal commas": ({"x.jpg": X, "x.xml": XML.replace("33<", "64,0<").replace(">64</xmax", ">33,0</xmax")},
                                           {"train:x.jpg": [CAT]}),
    "csv: decimal commas": ({"b.csv": "filename;class;xmin;ymin;xmax;ymax\nx.jpg;cat;32,0;24,0;64,0;72,0\n", "x.jpg": X}, {"train:x.jpg": [CAT]}),
    "csv: left and top": ({"b.csv": "image,label,left,top,width,height\nx.jpg,cat,32,24,32,48\n", "x.jpg": X}, {"train:x.jpg": [CAT]}),
    "csv: sizes of box and image": ({"b.csv": "image,label,bbox_x,bbox_y,bbox_width,bbox_height,image_width,image_height\n"
                                              "x.jpg,cat,32,24,32,48,128,96\n", "x.jpg": X}, {"train:x.jpg": [CAT]}),
    "csv: makesense.ai": ({"b.csv": "cat,32,24,32,48,x.jpg,128,96\ndog,1,2,4,7,x.jpg,128,96\n", "x.jpg": X}, {"train:x.jpg": [CAT, DOG]}),
    "csv: AutoML": ({"b.csv": "TRAIN,gs://b/i/x.jpg,cat,0.25,0.25,,,0.5,0.75,,\nVALIDATION,gs://b/i/y.jpg,,,,,,,,,\n", "i/x.jpg": X, "i/y.jpg": Y},
                    {"train:i/x.jpg": [CAT], "val:i/y.jpg": []}),
    "csv: a column of splits": ({"b.csv": "split,filename,class,x1,y1,x2,y2\ntrain,x.jpg,cat,32,24,64,72\nvalid,y.jpg,cat,32,24,64,72\n",
                                 "x.jpg": X, "y.jpg": Y}, {"train:x.jpg": [CAT], "val:y.jpg": [CAT]}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_to_the_exact_boxes(tmp_path, name):
    files, expected = FOLDERS[name]
    assert named_boxes(found(tmp_path, files)) == expected


def test_other_files_of_a_coco_folder_are_counted(tmp_path):
    source = found(tmp_path, {"annotations/instances_train2017.json": coco("x.jpg"), "annotations/captions_train2017.json": "{}",
                              "train2017/x.jpg": X, "train2017/Thumbs.db": b"1", "notes/a.docx": b"1", "test2017/y.jpg": Y})
    assert told(source) == {"file of another kind left aside": 3, "picture that belongs to no split, left aside": 1}


@pytest.mark.parametrize(("files", "message"), [
    (yolo("a/images/x.jpg", "a/labels/x.txt", "") | {"a/data.yaml": NAMES, "b/data.yaml": NAMES, "b/images/y.jpg": Y},
     "a/data.yaml and b/data.yaml each describe a data set"),
    ({"a/classes.txt": "cat", "b/classes.txt": "dog", "a/x.jpg": X, "a/x.txt": YOLO}, "a/classes.txt and b/classes.txt list different class names"),
    ({"train.json": coco("bär.jpg", info="ä").replace("b\\u00e4r", "bär").encode("latin-1"), "train/x.jpg": X},
     "train.json: byte 0xe4 at offset .* is not utf-8 text"),
    ({"labels/x.txt": YOLO, "classes.txt": "cat"}, "it holds 2 .txt, and no image")])
def test_what_cannot_be_read_is_told(tmp_path, files, message):
    with pytest.raises(JobError, match=message):
        found(tmp_path, files)


@pytest.mark.parametrize(("line", "reason", "detail"), [
    ("1 .5 .5 .2 .2", "unknown class", "class 1 of 1 .do the classes count from 1"), ("2 .5 .5 .2 .2", "unknown class", "class 2 of 1$"),
    ("0 48 48 32 48", "label in pixels, not in fractions of the image", "line 1")])
def test_yolo_lines_that_are_usual_mistakes(tmp_path, line, reason, detail):
    source = found(tmp_path, {"data.yaml": NAMES, "images/x.jpg": X, "labels/x.txt": line})
    [item] = source.splits["train"]
    [problem] = item.fetch().objects.problems.values()
    assert problem.reason == reason and re.search(detail, problem.detail)


# --- annotation tools -------------------------------------------------------------------------------------

STROKES = [0, 0, 192, 0, 57, 27, 255, 48, 127, 0, 207, 255, 252, 5, 252, 3, 63, 255, 245, 185, 240, 8, 255, 249,
           138, 216, 0]
"""Two rows and a pixel below in a picture of 128 x 96 px, as label-studio-sdk 2.1.2 packs them (mask2rle)."""


def test_brush_strokes_are_enclosed(tmp_path):
    assert box_of_strokes(STROKES, (96, 128)) == (32, 24, 64, 72)
    size = {"original_width": 128, "original_height": 96}
    value = {"format": "rle", "rle": STROKES, "brushlabels": ["cat"]}
    annotations = [{"id": 1, "result": [{"id": "a", "type": "brushlabels", "value": value} | size]}]
    tasks = [{"id": 1, "annotations": annotations, "data": {"image": "/data/upload/1/0a1b2c3d-x.jpg"}}]
    source = found(tmp_path / "json", {"p.json": json.dumps(tasks), "0a1b2c3d-x.jpg": X})
    assert named_boxes(source) == {"train:0a1b2c3d-x.jpg": [CAT]} and told(source) == {"brush strokes: the enclosing box taken": 1}
    cell = json.dumps([value | size]).replace('"', '""')
    table = f'image,id,tag,annotator,annotation_id,lead_time\n/data/upload/1/0a1b2c3d-x.jpg,1,"{cell}",1,9,1.0\n'
    assert named_boxes(found(tmp_path / "csv", {"p.csv": table, "0a1b2c3d-x.jpg": X})) == {"train:0a1b2c3d-x.jpg": [CAT]}


@pytest.mark.parametrize(("strokes", "size_hw"), [(STROKES, (96, 127)), (STROKES[:-3], (96, 128)), ([], (96, 128)), ([1, 2], (1, 1))])
def test_brush_strokes_that_are_none(strokes, size_hw):
    with pytest.raises(ValueError):
        box_of_strokes(strokes, size_hw)


def video(tracks: str, size: int = 4, more: str = "") -> str:
    return (f"<annotations><meta><task><size>{size}</size><start_frame>0</start_frame><stop_frame>{size - 1}</stop_frame>{more}"
            f"<labels><label><name>cat</name></label></labels></task></meta>{tracks}</annotations>")


def shape(frame: int, x: int, outside: int = 0, kind: str = "box") -> str:
    place = f'xtl="{x}" ytl="10" xbr="{x + 10}" ybr="20"' if kind == "box" else f'points="{x},10;{x + 10},10;{x},20"'
    return f'<{kind} frame="{frame}" keyframe="1" outside="{outside}" {place}/>'


@pytest.mark.parametrize("kind", ["box", "polygon"])
def test_tracks_move_evenly_between_keyframes_until_they_are_outside(tmp_path, kind):
    track = f'<track id="0" label="cat">{shape(0, 10, kind=kind)}{shape(2, 14, kind=kind)}{shape(3, 14, 1, kind=kind)}</track>'
    files = {f"images/frame_{number:06d}.PNG": png(number) for number in range(4)}
    source = found(tmp_path, files | {"annotations.xml": video(track)})
    boxes = [[("cat", x, 10, x + 10, 20)] for x in (10, 12, 14)] + [[]]
    assert list(named_boxes(source).values()) == boxes and [item.image_id for item in source.splits["train"]] == [0, 1, 2, 3]
    assert told(source)["shape between keyframes, interpolated"] == 1


@pytest.mark.parametrize(("names", "note"), [
    (["frames/0001.png", "frames/0002.png"], "frames whose images count from 1"),
    (["cam_9.png", "cam_10.png"], "frames taken to be the images in the order of their names"),
    (["frame_000000.png", "frame_000001.png"], None)])
def test_frames_are_found(tmp_path, names, note):
    track = f'<track id="0" label="cat">{shape(1, 10)}</track>'
    source = found(tmp_path, {name: png(0) for name in names} | {"annotations.xml": video(track, 2)})
    assert named_boxes(source) == {f"train:{names[0]}": [], f"train:{names[1]}": [("cat", 10, 10, 20, 20)]}
    assert (note in told(source)) if note else not told(source)


def test_frames_of_a_step(tmp_path):
    track = f'<track id="0" label="cat">{shape(0, 10)}{shape(10, 20)}</track>'
    meta = video(track, 3, "<frame_filter>step=5</frame_filter>").replace("<stop_frame>2", "<stop_frame>10")
    source = found(tmp_path, {f"images/frame_{number:06d}.png": png(0) for number in (0, 5, 10)} | {"annotations.xml": meta})
    assert list(named_boxes(source).values()) == [[("cat", x, 10, x + 10, 20)] for x in (10, 15, 20)]


KITTI = "cat 0.00 0 -1.57 32 24 64 72 1.5 1.6 3.9 1.8 1.5 8.4 0.01\n"


def test_kitti_lists_are_the_splits(tmp_path):
    files = {f"training/image_2/00000{number}.png": png(number) for number in range(4)}
    files |= {f"training/label_2/00000{number}.txt": KITTI for number in range(4)} | {"testing/image_2/000000.png": png(9)}
    source = found(tmp_path, files | {"ImageSets/train.txt": "000000\r\n000001.png\n", "ImageSets/val.txt": "000002\n000007",
                                      "ImageSets/trainval.txt": "000000\n", "ImageSets/test.txt": "000000\n",
                                      "training/calib/000000.txt": "P0"})
    assert named_boxes(source) == {f"{split}:training/image_2/00000{number}.png": [CAT]
                                   for split, number in (("train", 0), ("train", 1), ("val", 2))}
    assert told(source) == {"missing label file": 1, "image that no list in ImageSets names, left aside": 1,
                            "image file that no annotation mentions, left aside": 1, "file of another kind left aside": 3}
    (tmp_path / "ImageSets/val.txt").write_text("000001\n")
    with pytest.raises(JobError, match="source.splits.val: ImageSets/val.txt names 000001, and ImageSets/train.txt does, too"):
        found(tmp_path, {})


RECT = {"name": "rect", "x": 32, "y": 24, "width": 32, "height": 48}
OUTLINE = {"name": "polygon", "all_points_x": [1, 5, 5], "all_points_y": [2, 2, 9]}


@pytest.mark.parametrize("is_project", [False, True])
def test_via(tmp_path, is_project):
    images = {"x.jpg1": {"filename": "x.jpg", "size": 1, "file_attributes": {}, "regions": [
        {"shape_attributes": RECT, "region_attributes": {"id": "7", "type": "cat"}},
        {"shape_attributes": OUTLINE, "region_attributes": {"type": {"dog": True}}},
        {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"type": "cat"}}]},
        "y.jpg2": {"filename": "y.jpg", "size": 2, "file_attributes": {}, "regions": {}}}
    document = {"_via_settings": {}, "_via_img_metadata": images} if is_project else images
    source = found(tmp_path, {"via.json": json.dumps(document), "x.jpg": X, "y.jpg": Y})
    assert named_boxes(source) == {"train:x.jpg": [CAT, DOG], "train:y.jpg": []}
    [objects] = [item.known()[0] for item in source.splits["train"] if item.file_name == "x.jpg"]
    assert [problem.reason for problem in objects.problems.values()] == ["a point has no area"]


def test_datumaro_as_it_writes_itself(tmp_path):
    """An export of datumaro 1.13.12: box, polygon, mask, ellipse and points."""
    counts = "dj2d0\\200000000000000000000000000000000000000000000000000000000000\\X6"
    shapes = [{"type": "bbox", "label_id": 0, "bbox": [32.0, 24.0, 32.0, 48.0], "attributes": {}},
              {"type": "polygon", "label_id": 1, "points": [1.0, 2.0, 5.0, 2.0, 5.0, 9.0]},
              {"type": "mask", "label_id": 0, "rle": {"counts": counts, "size": [96, 128]}},
              {"type": "ellipse", "label_id": 1, "points": [10.0, 20.0, 30.0, 40.0]},
              {"type": "points", "label_id": 0, "points": [1.0, 2.0]}]
    document = {"dm_format_version": "1.0", "infos": {}, "categories": {"label": {"labels": [{"name": "cat"}, {"name": "dog"}]}},
                "items": [{"id": "a/x", "annotations": shapes, "image": {"path": "a_x.jpg", "size": [96, 128]}}]}
    source = found(tmp_path, {"annotations/train.json": json.dumps(document), "images/train/a_x.jpg": X})
    assert named_boxes(source) == {"train:images/train/a_x.jpg": [("cat", 30, 20, 61, 40), CAT, DOG, ("dog", 10, 20, 30, 40)]}
    assert told(source)["points, left aside"] == 1 and source.classes == ("cat", "dog")


# --- records ----------------------------------------------------------------------------------------------

BOXES = {"xywh": {"x": 32, "y": 24, "width": 32, "height": 48}, "wh": {"x": 32, "y": 24, "w": 32, "h": 48},
         "corners": {"xMin": 32, "yMin": 24, "xMax": 64, "yMax": 72}, "x1": {"x1": 32, "y1": 24, "x2": 64, "y2": 72},
         "ltrb": {"left": 32, "top": 24, "right": 64, "bottom": 72}, "ltwh": {"left": 32, "top": 24, "width": 32, "height": 48},
         "centre": {"cx": 48, "cy": 48, "w": 32, "h": 48}}


def parquet(*rows: dict) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file.getvalue()


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("make", [
    lambda box: {"metadata.jsonl": json.dumps({"file_name": "x.jpg", "objects": [{"bbox": box, "label": "cat"}]})},
    lambda box: {"metadata.jsonl": json.dumps({"file_name": "x.jpg", "objects": [box | {"label": "cat"}]})},
    lambda box: {"mine.json": json.dumps([{"image": "x.jpg", "boxes": [box | {"class": "cat"}]}])},
    lambda box: {"mine.json": json.dumps({"name": "x.jpg", "labels": [{"category": "cat", "box2d": box}]})},
    lambda box: {"mine.jsonl": json.dumps({"image": "x.jpg", "label": "cat", "bbox": box})},
    lambda box: {"a.parquet": parquet({"file_name": "x.jpg", "objects": [{"box": box, "label": "cat"}]})},
    lambda box: {"a.parquet": parquet({"file_name": "x.jpg", "label": "cat", "box": box})}])
def test_boxes_that_are_mappings(tmp_path, make, box):
    assert named_boxes(found(tmp_path, {"x.jpg": X, **make(box)})) == {"train:x.jpg": [CAT]}


def test_create_ml_has_centres(tmp_path):
    record = {"image": "x.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 48, "y": 48, "width": 32, "height": 48}}]}
    source = found(tmp_path, {"train/_annotations.createml.json": json.dumps([record, {"image": "y.jpg", "annotations": []}]),
                              "train/x.jpg": X, "train/y.jpg": Y})
    assert named_boxes(source) == {"train:train/x.jpg": [CAT], "train:train/y.jpg": []}


def test_metadata_in_csv_with_a_long_cell(tmp_path):
    cell = json.dumps({"bbox": [[32, 24, 32, 48]], "category": ["cat"], "notes": ["x" * 200_000]}).replace('"', '""')
    source = found(tmp_path, {"metadata.csv": f'file_name,objects\nx.jpg,"{cell}"\n', "x.jpg": X})
    assert named_boxes(source) == {"train:x.jpg": [CAT]}


def test_metadata_in_parquet(tmp_path):
    rows = [{"file_name": "x.jpg", "objects": {"bbox": [[32.0, 24, 32, 48]], "category": ["cat"]}},
            {"file_name": "y.jpg", "objects": {"bbox": [], "category": []}}]
    source = found(tmp_path, {"train/metadata.parquet": parquet(*rows), "train/x.jpg": X, "train/y.jpg": Y})
    assert named_boxes(source) == {"train:train/x.jpg": [CAT], "train:train/y.jpg": []}


@pytest.mark.parametrize("numbers", [{"xmin": 32, "ymin": 24, "xmax": 64, "ymax": 72}, {"bbox": [32.0, 24.0, 32.0, 48.0]}])
def test_parquet_with_a_row_for_each_object(tmp_path, numbers):
    rows = [{"image_path": name, "class": label} | box for name, label, box in (
        ("x.jpg", "cat", numbers), ("y.jpg", None, dict.fromkeys(numbers)), ("x.jpg", "dog", numbers))]
    source = found(tmp_path / "paths", {"a.parquet": parquet(*rows), "x.jpg": X, "y.jpg": Y})
    assert named_boxes(source) == {"train:x.jpg": [CAT, ("dog", *CAT[1:])], "train:y.jpg": []}
    with pytest.raises(JobError, match="a.parquet: has a row for each object, with the image in it"):
        found(tmp_path / "bytes", {"a.parquet": parquet({"image": X, "class": "cat"} | numbers)})


@pytest.mark.parametrize("record", [
    {"image_id": "x", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}, {"name": "my project", "objects": []},
    {"name": "x.jpg", "labels": ["a"]}, {"image": "x.jpg", "bbox": [1, 2, 3, 4], "confidence": 1}])
def test_json_that_is_no_annotation(tmp_path, record):
    with pytest.raises(JobError, match="no dataset of a known format"):
        found(tmp_path, {"a.json": json.dumps([record]), "b.json": json.dumps(record), "x.jpg": X})


def test_where_all_objects_are_lost_the_reason_is_told(tmp_path):
    record = {"file_name": "x.jpg", "objects": [{"bbox": [1], "label": "cat"}]}
    with pytest.raises(JobError, match="source: no object is left: box is no four numbers .x.jpg: metadata.jsonl line 1"):
        found(tmp_path, {"metadata.jsonl": json.dumps(record), "x.jpg": X})
