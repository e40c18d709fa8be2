"""Keys of the source section of an ingest job: where raw data are, in which format."""

from typing import Annotated, Literal, Union

from pydantic import Field

from ...jobs.spec import URI, ImageSize, Name, Part, Positive, Seed

SHAPE_CLASSES = ("circle", "square", "triangle", "star")


class _Source(Part):
    name: Name | None = None
    """In `sources`: what file names of it begin with; default: the last directory of its uri."""


class AutoSource(_Source):
    """A folder whose format is found out."""

    format: Literal["auto"]
    uri: URI
    """Root of the data."""
    splits: None = None
    """As found; set the format to name them yourself."""
    classes: list[str] | None = None
    """Class names in index order, for formats whose files do not tell."""


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


class VocSource(_Source):
    """Pascal VOC XML: JPEGImages/, Annotations/, ImageSets/Main/SPLIT.txt; or images and XML in one directory."""

    format: Literal["voc"]
    uri: URI
    """Root of the data."""
    splits: dict[Name, str] | None = None
    """Split name -> list of images, or directory of XML files, relative to uri; default: as found."""
    classes: list[str] | None = None
    """Class names in index order; default: all that occur, sorted."""


class _ToolSource(_Source):
    """Annotations of a tool, beside the images or wherever they say."""

    uri: URI
    """Root of the data."""
    splits: dict[Name, str] | None = None
    """Split name -> directory, or annotation file, relative to uri; default: as found."""
    classes: list[str] | None = None
    """Class names in index order; default: all that occur, sorted (CVAT: the labels of the task, in their order)."""


class CvatSource(_ToolSource):
    """CVAT for images 1.1: annotations.xml beside images/."""

    format: Literal["cvat"]


class KittiSource(_ToolSource):
    """KITTI object detection: label_2/ beside image_2/, or labels/ beside images/."""

    format: Literal["kitti"]


class LabelmeSource(_ToolSource):
    """LabelMe: a JSON file for each image, beside it."""

    format: Literal["labelme"]


class LabelStudioSource(_ToolSource):
    """Label Studio: an export as JSON or JSON_MIN, and the images of its tasks."""

    format: Literal["labelstudio"]


class ShapesSource(_Source):
    """Generated detection data: coloured, rotated, overlapping shapes on textured ground."""

    format: Literal["shapes"]
    splits: dict[Name, Positive] = {"train": 1000, "val": 200}
    """Split name -> number of images."""
    image_size_px: ImageSize = 160
    """Side of the square images."""
    seed: Seed = 0
    """Another seed, another data set."""


Source = Annotated[Union[AutoSource, BackgroundSource, CocoSource, CvatSource, KittiSource, LabelmeSource,
                         LabelStudioSource, YoloSource, VocSource, ShapesSource], Field(discriminator="format")]
