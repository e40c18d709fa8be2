"""Keys of the source section of an ingest job: where raw data are, in which format."""

from typing import Annotated, Literal, Union

from pydantic import Field

from ...jobs.spec import ImageSize, Name, Part, Positive, Seed
from ...jobs.spec import RawURI as URI

Box = Literal["xywh", "xyxy"]
Unit = Literal["pixels", "fractions"]
SHAPE_CLASSES = ("circle", "square", "triangle", "star")


class _Source(Part):
    name: Name | None = None
    """In `sources`: what file names of it begin with; default: the last directory of its uri."""


class AutoSource(_Source):
    """A folder whose format is found out."""

    format: Literal["auto"]
    uri: URI
    """Root of the data, an archive of it (.zip, .tar), or an annotation file, which is then all that counts."""
    splits: None = None
    """As found; set the format to name them yourself."""
    classes: list[str] | None = None
    """Class names in index order, for formats whose files do not tell."""
    box: Box | None = None
    """For Parquet, Hugging Face and WebDataset: [x, y, width, height] or [x1, y1, x2, y2], where no name tells."""
    coordinates: Unit | None = None
    """For tables: unit of the boxes, where they may be of either."""


class BackgroundSource(_Source):
    """Images without objects, to go with other sources: every one is a negative."""

    format: Literal["background"]
    uri: URI
    """Root of the images."""
    split: Name | None = None
    """The split of all of them; default: by directories called train, val or test, else train."""


class CocoSplit(Part):
    images: str
    """Directory of the images, relative to the source's uri."""
    annotations: str
    """COCO instances JSON, relative to the source's uri."""


class CocoSource(_Source):
    """COCO JSON annotations."""

    format: Literal["coco"]
    uri: URI
    """Root of the data."""
    splits: dict[Name, CocoSplit] = {
        "train": CocoSplit(images="train2017", annotations="annotations/instances_train2017.json"),
        "val": CocoSplit(images="val2017", annotations="annotations/instances_val2017.json"),
    }
    """Split name -> images and annotations."""


class YoloSource(_Source):
    """YOLO text labels: images/…/x.jpg beside labels/…/x.txt (class cx cy w h, normalised; polygons too)."""

    format: Literal["yolo"]
    uri: URI
    """Root of the data."""
    splits: dict[Name, str | list[str]] | None = None
    """Split name -> directory of images, .txt list of images, or several; default: those of data.yaml, or as found."""
    classes: list[str] | None = None
    """Class names in index order; default: `names` of data.yaml, or obj.names or classes.txt, under uri."""
    settings: URI | None = None
    """The data.yaml that counts; default: the one under uri, if there is one."""


class _FolderSource(_Source):
    """Images and their annotations below one root."""

    uri: URI
    """Root of the data."""
    splits: dict[Name, str] | None = None
    """Split name -> list of images, table, annotation file or directory, relative to uri; default: as found."""
    classes: list[str] | None = None
    """Class names in index order; default: in the order that a list of them has, else all that occur, sorted."""


class VocSource(_FolderSource):
    """Pascal VOC XML: JPEGImages/, Annotations/, ImageSets/Main/SPLIT.txt; or images and XML in one directory."""

    format: Literal["voc"]


class CvatSource(_FolderSource):
    """CVAT 1.1 for images or video: annotations.xml beside images/."""

    format: Literal["cvat"]


class DatumaroSource(_FolderSource):
    """Datumaro: annotations/SPLIT.json and images/SPLIT/."""

    format: Literal["datumaro"]


class KittiSource(_FolderSource):
    """KITTI object detection: label_2/ beside image_2/, or labels/ beside images/; ImageSets/ may name the splits."""

    format: Literal["kitti"]


class LabelmeSource(_FolderSource):
    """LabelMe: a JSON file for each image, beside it."""

    format: Literal["labelme"]


class LabelStudioSource(_FolderSource):
    """Label Studio: an export as JSON, JSON_MIN or CSV, and the images of its tasks."""

    format: Literal["labelstudio"]


class ViaSource(_FolderSource):
    """VGG Image Annotator: an export as JSON or a project, and its images."""

    format: Literal["via"]


class OpenImagesSource(_FolderSource):
    """OpenImages CSV of boxes, with class-descriptions*.csv."""

    format: Literal["openimages"]


class _UnitSource(_FolderSource):
    coordinates: Unit | None = None
    """Unit of the boxes; default: pixels, unless all are within 0 to 1, which is an error."""


class CsvSource(_UnitSource):
    """CSV of boxes: image, class, xmin, ymin, xmax, ymax; or bbox [x, y, width, height]."""

    format: Literal["csv"]


class _RecordSource(_UnitSource):
    """Records of images with nested objects."""

    splits: dict[Name, str] | None = None
    """Split name -> directory, file, or pattern of files, relative to uri; default: as they are called."""
    classes: list[str] | None = None
    """Class names in order of number; default: those of the files, or all that occur, sorted."""
    objects: str | None = None
    """Column or key that holds boxes and classes; default: as found."""
    boxes: str | None = None
    """Column or key of boxes; default: as found."""
    labels: str | None = None
    """Column or key of classes, names or numbers; default: as found."""
    box: Box | None = None
    """[x, y, width, height] or [x1, y1, x2, y2]; default: by the name of the boxes, where that tells."""


class HuggingFaceSource(_RecordSource):
    """Hugging Face: metadata.jsonl or metadata.csv beside images, or Parquet of the `datasets` library."""

    format: Literal["huggingface"]


class JsonSource(_RecordSource):
    """JSON of one's own, or of CreateML: a list of records, or one a line, each with an image's name and objects."""

    format: Literal["json"]


class ParquetSource(_RecordSource):
    """Parquet: a row for each image, or for each object."""

    format: Literal["parquet"]
    image: str | None = None
    """Column of the images: bytes, paths, or structs of bytes and path; default: as found."""


class WebDatasetSource(_RecordSource):
    """WebDataset: tar shards of images, each with a .json of the same name."""

    format: Literal["webdataset"]


class ShapesSource(_Source):
    """Generated detection data: coloured, rotated, overlapping shapes on textured ground."""

    format: Literal["shapes"]
    splits: dict[Name, Positive] = {"train": 1000, "val": 200}
    """Split name -> number of images."""
    image_size_px: ImageSize = 160
    """Side of the square images."""
    seed: Seed = 0
    """Another seed, another data set."""


Source = Annotated[Union[AutoSource, BackgroundSource, CocoSource, CsvSource, CvatSource, DatumaroSource, HuggingFaceSource,
                         JsonSource, KittiSource, LabelmeSource, LabelStudioSource, OpenImagesSource, ParquetSource,
                         YoloSource, ViaSource, VocSource, WebDatasetSource, ShapesSource], Field(discriminator="format")]
