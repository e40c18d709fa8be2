"""The images of a predict job, by index: a split of an Arrow dataset, or the image files below a directory."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from .. import storage
from ..data.files.suffixes import IMAGE_SUFFIXES
from ..data.reading.dataset import ArrowDataset
from ..errors import JobError
from .spec import PredictSpec


@dataclass(frozen=True)
class EncodedImage:
    """An image as stored."""

    image_id: int
    file_name: str
    data: bytes


class Images(Protocol):
    """Images by index; small and picklable, since it is sent to every actor."""

    classes: tuple[str, ...]
    """Class names of the dataset, with `source_ids` as their original ids; empty without a dataset."""
    source_ids: tuple[int, ...]

    def __len__(self) -> int: ...

    def file_name(self, index: int) -> str: ...

    def read(self, index: int) -> EncodedImage: ...


class DatasetImages:
    """The images of one split of an Arrow dataset."""

    def __init__(self, uri: str, split: str):
        self.dataset = ArrowDataset(uri, split)
        self.classes = tuple(self.dataset.classes)
        self.source_ids = tuple(self.dataset.manifest.source_ids)

    def __len__(self) -> int:
        return len(self.dataset)

    def file_name(self, index: int) -> str:
        return self.dataset.truth(index).file_name

    def read(self, index: int) -> EncodedImage:
        truth = self.dataset.truth(index)
        return EncodedImage(truth.image_id, truth.file_name, self.dataset.image_bytes(index))


class FolderImages:
    """All image files below a directory, local or in S3; the id is the position in the sorted list."""

    classes: tuple[str, ...] = ()
    source_ids: tuple[int, ...] = ()

    def __init__(self, uri: str):
        self.uri = uri
        self.paths = [info.path for info in storage.list_files(uri)
                      if PurePosixPath(info.path).suffix.lower() in IMAGE_SUFFIXES]

    def __len__(self) -> int:
        return len(self.paths)

    def file_name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> EncodedImage:
        path = self.paths[index]
        return EncodedImage(index, path, storage.read_bytes(storage.join(self.uri, path)))


def images_of(spec: PredictSpec) -> Images:
    """The images of the job. JobError if there are none."""
    uri = storage.absolute(spec.images)
    if storage.exists(storage.join(uri, "dataset.json")):
        images: Images = DatasetImages(uri, spec.split)
    else:
        images = FolderImages(uri)
    if not len(images):
        raise JobError(spec.images, "holds no images",
                       f"give an Arrow dataset, or a directory of images ({', '.join(IMAGE_SUFFIXES)})")
    return images
