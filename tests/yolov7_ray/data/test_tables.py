"""Tables of boxes: exact boxes of each dialect, and what is refused, dropped or bent."""

import pytest
from conftest import ingest_here, jpeg
from test_folders import boxes, rows_of, told, write

from yolov7_ray import storage
from yolov7_ray.data.ingest.ingest import ingest
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.sources.read import read_source, resolved
from yolov7_ray.data.sources.spec import AutoSource, CsvSource
from yolov7_ray.errors import JobError

TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
OPEN_IMAGES = ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
               "IsDepiction,IsInside\n")
OPEN_IMAGES_FILES = {
    "train/0a1.jpg": jpeg(1), "train/0b2.jpeg": jpeg(2), "validation/0c3.jpg": jpeg(3),
    "class-descriptions-boxable.csv": '/m/1,Tortoise\n/m/2,"Container, large"\n',
    "train-annotations-bbox.csv": OPEN_IMAGES + "0a1,xclick,/m/1,1,0.25,0.5,0.125,0.75,0,0,0,0,0\n"
                                                "0b2,xclick,/m/2,1,0,0.5,0,0.5,0,0,1,0,0\n",
    "validation-annotations-bbox.csv": OPEN_IMAGES + "0c3,xclick,/m/1,0.7,0.5,1,0.5,1,-1,-1,-1,1,-1\n"}
CSV_FILES = {"train/a.jpg": jpeg(1), "train/b.jpg": jpeg(2), "valid/a.jpg": jpeg(3),
             "train/_annotations.csv": TENSORFLOW + "a.jpg,128,96,dog,10,20,30,40\nb.jpg,128,96,cat,1,2,3.5,4\n",
             "valid/_annotations.csv": TENSORFLOW + "a.jpg,128,96,cat,5,6,7,8\n"}


def auto(root, **settings):
    return read_source(resolved(AutoSource(format="auto", uri=str(root), **settings)))


def csv_source(root, **settings):
    return read_source(CsvSource(format="csv", uri=str(root), **settings))


def test_open_images(tmp_path):
    source = auto(write(tmp_path, OPEN_IMAGES_FILES))
    assert source.classes == ("Container, large", "Tortoise")
    [first, second], problems = rows_of(source)
    assert (boxes(first), first.objects.labels.tolist()) == ([[32, 12, 64, 72]], [1])  # 128x96 px
    assert (boxes(second), second.objects.iscrowd.tolist()) == ([[0, 0, 64, 48]], [True])
    [third], _ = rows_of(source, "val")
    assert (boxes(third), third.objects.iscrowd.tolist()) == ([[64, 48, 128, 96]], [False])
    assert problems == [] and told(source) == {}


def test_open_images_in_trouble(tmp_path):
    table = OPEN_IMAGES + "".join(f"{row},0,0,0,0,0\n" for row in (
        "a,x,/m/1,1,0.5,0.25,0,1", "a,x,/m/1,1,40,80,10,20", "a,x,/m/1,0,0,1,0,1", "none,x,/m/1,1,0,1,0,1"))
    source = auto(write(tmp_path, {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "boxes.csv": table}))
    [row], problems = rows_of(source)
    assert boxes(row) == [[32, 0, 64, 96]] and source.classes == ("/m/1",)
    assert [problem.reason for problem in problems] == ["box is no fraction of the image"]
    assert told(source) == {"missing image file": 1, "image without rows": 1,
                            "reversed corners of a box put in order": 1,
                            "row of a class that is absent (Confidence 0)": 1}


def test_split_folders_with_the_same_names(tmp_path):
    source = auto(write(tmp_path, CSV_FILES))
    assert source.classes == ("cat", "dog")
    assert [boxes(row) for row in rows_of(source)[0]] == [[[10, 20, 30, 40]], [[1, 2, 3.5, 4]]]
    [row], _ = rows_of(source, "val")
    assert boxes(row) == [[5, 6, 7, 8]] and row.image == jpeg(3)


@pytest.mark.parametrize(("text", "expected"), [
    ("Image_Name;Label;X_Min;Y_Min;X_Max;Y_Max\na.jpg;dog;1;2;3;4\n", [1, 2, 3, 4]),
    ("path\tclass_name\tx1\ty1\tx2\ty2\nC:\\set\\imgs\\a.jpg\tdog\t1\t2\t3\t4\n", [1, 2, 3, 4]),
    ('image_id,bbox,label\na,"[1.0, 2, 3, 4]",dog\n', [1, 2, 4, 6]),
    ("imgs/a.jpg,1,2,3,4,dog\n", [1, 2, 3, 4])])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_dialects(tmp_path, text, expected, encoding):
    source = auto(write(tmp_path, {"imgs/a.jpg": jpeg(1), "boxes.csv": text.encode(encoding)}))
    assert [boxes(row) for row in rows_of(source)[0]] == [[expected]] and source.classes == ("dog",)


def test_rows_in_trouble(tmp_path):
    table = TENSORFLOW + "".join(f"{row}\n" for row in (
        "a.jpg,128,96,dog,30,40,10,20", "a.jpg,128,96,dog,10,20,30,40", "a.jpg,128,96,dog,1,x,3,4",
        "b.jpg,128,96,,,,,"))
    source = auto(write(tmp_path, {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "c.jpg": jpeg(3), "boxes.csv": table}))
    [first, background], problems = rows_of(source)
    assert boxes(first) == [[10, 20, 30, 40]] and boxes(background) == []
    assert [problem.reason for problem in problems] == ["duplicate row", "box is no four numbers"]
    assert told(source) == {"image without rows": 1, "reversed corners of a box put in order": 1}


def test_the_class_file_orders_the_classes(tmp_path):
    source = auto(write(tmp_path, {"a.jpg": jpeg(1), "train.csv": "a.jpg,1,2,3,4,zebra\na.jpg,1,2,3,5,ant\n",
                                   "class_list.csv": "zebra,0\nant,1\n"}))
    assert source.classes == ("zebra", "ant")
    assert rows_of(source)[0][0].objects.labels.tolist() == [0, 1]


def test_fractions_are_never_guessed(tmp_path):
    write(tmp_path, {"a.jpg": jpeg(1), "boxes.csv": "image,label,xmin,ymin,xmax,ymax\na.jpg,dog,0,0.5,0.5,1\n"})
    with pytest.raises(JobError, match="within 0 to 1.*source.coordinates"):
        csv_source(tmp_path)
    assert boxes(rows_of(csv_source(tmp_path, coordinates="fractions"))[0][0]) == [[0, 48, 64, 96]]


@pytest.mark.parametrize("header", ["image,label,x,y,w,h", "image,path,label,xmin,ymin,xmax,ymax",
                                    "image,label,xmin,ymin,xmax,ymax,bbox"])
def test_a_header_with_several_readings_is_named(tmp_path, header):
    write(tmp_path, {"a.jpg": jpeg(1), "boxes.csv": header + "\n"})
    with pytest.raises(JobError, match=header.replace(",", ", ")):
        csv_source(tmp_path)


def test_a_table_without_classes_needs_the_one(tmp_path):
    write(tmp_path, {"train/a.jpg": jpeg(1),
                     "train.csv": 'image_id,width,height,bbox,source\na,128,96,"[1, 2, 3, 4]",x\n'})
    with pytest.raises(JobError, match="names no class"):
        auto(tmp_path)
    assert boxes(rows_of(auto(tmp_path, classes=["wheat"]))[0][0]) == [[1, 2, 4, 6]]


def test_images_of_other_directories_are_counted(tmp_path):
    for files, name in ((CSV_FILES, "csv"), (OPEN_IMAGES_FILES, "openimages")):
        found = auto(write(tmp_path / name, files | {"other/x.jpg": jpeg(7), "other/y.jpg": jpeg(8)}))
        assert told(found) == {"picture that belongs to no split, left aside": 2}
        assert [record["dropped"] for record in found.problems["train"]] == [None]


@pytest.mark.parametrize(("files", "name", "other"), [
    ({"a.jpg": jpeg(1), "train.csv": "a.jpg,1,2,3,4,ant\n", "class_list.csv": "ant,0\n"}, "class_list.csv",
     "ant,0\nbee,1\n"),
    (OPEN_IMAGES_FILES, "class-descriptions-boxable.csv", "/m/1,Tortoise\n/m/2,Box\n")])
def test_the_file_of_classes_is_an_input(tmp_path, files, name, other):
    before, again = (auto(write(tmp_path / part, files)).inputs for part in ("a", "b"))
    assert before == again != auto(write(tmp_path / "a", {name: other})).inputs


@pytest.mark.parametrize("files", [OPEN_IMAGES_FILES, CSV_FILES])
def test_objects_of_a_missing_image_are_lost_objects(tmp_path, files):
    root = write(tmp_path / "raw", files)
    whole = auto(root)
    counts = {item.file_name: len(item.labels()) for items in whole.splits.values() for item in items}
    name = max(counts, key=counts.get)
    (root / name).unlink()
    lost = [record for records in auto(root).problems.values() for record in records
            if record["reason"] == "missing image file"]
    assert [record["objects"] for record in lost] == [counts[name]] and counts[name]


@pytest.mark.parametrize("files", [OPEN_IMAGES_FILES, CSV_FILES])
def test_tables_in_s3(tmp_path, s3, files):
    for name, content in files.items():
        storage.write_bytes(storage.join(s3, "raw", name), content if isinstance(content, bytes) else content.encode())
    ingest_here(AutoSource(format="auto", uri=storage.join(s3, "raw")), str(tmp_path / "set"))
    manifest = load_manifest(str(tmp_path / "set"))
    assert [manifest.split(split).num_objects for split in ("train", "val")] == [2, 1]


@pytest.mark.parametrize("files", [OPEN_IMAGES_FILES, CSV_FILES])
def test_ingest_in_ray(ray_session, tmp_path, files):
    source = AutoSource(format="auto", uri=str(write(tmp_path / "raw", files)))
    ingest(IngestSpec(kind="ingest", source=source, dataset=str(tmp_path / "set")), "ingest-test")
    manifest = load_manifest(str(tmp_path / "set"))
    assert [manifest.split(split).num_objects for split in ("train", "val")] == [2, 1]
