"""A sample: one image with its objects, and the letterbox that fits it into a network's input.

Frame: the picture as displayed, its EXIF orientation applied; x to the right, y down, in pixels measured
from the image's corner, so that pixel i covers [i, i + 1) and a box over the whole image is (0, 0, width, height).

n objects · H W pixels · k vertices
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .orientation import UPRIGHT, is_tiff, read_orientation, upright

PAD_GREY = 114
"""Grey level around letterboxed and augmented images."""

REDUCED_DECODING = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""OpenCV's flag for decoding a JPEG at 1/reduce, combined with the colour flags: it is reduced inside the
inverse DCT, which saves time. Other formats are decoded and `shrunk`: OpenCV rounds their sizes down, and
resizes a turned TIFF into the shape of its stored pixels."""

Polygons = list[list[np.ndarray]]
"""Rings of each object, (k, 2) float32 in pixels; an object without outline has no rings."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its n objects.

    `boxes_xyxy` and `polygons` are in pixels of `image`, with one exception: an image that was
    decoded at 1/reduce is smaller, while they stay in pixels of the full image, whose size is
    `original_size_hw`.
    """

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    boxes_xyxy: np.ndarray
    """(n, 4) float32."""
    labels: np.ndarray
    """(n,) int64, index into the dataset's classes."""
    iscrowd: np.ndarray
    """(n,) bool: a region of many objects. Never a training target; evaluation ignores it."""
    area: np.ndarray
    """(n,) float32, the object's area as annotated: square pixels of the original image."""
    polygons: Polygons | None
    """Outlines where the dataset has them."""
    image_id: int
    file_name: str
    original_size_hw: tuple[int, int]
    """Height and width of the full image as displayed."""

    def select(self, keep: np.ndarray) -> "Sample":
        """The sample with only the objects that `keep`, (n,) bool, marks; the image is shared."""
        if keep.all():
            return self
        polygons = self.polygons
        if polygons is not None:
            polygons = [polygons[i] for i in np.flatnonzero(keep)]
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[keep],
            labels=self.labels[keep],
            iscrowd=self.iscrowd[keep],
            area=self.area[keep],
            polygons=polygons,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Ground truth of an image, known without decoding it: its n objects, in pixels of the displayed image."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    boxes_xyxy: np.ndarray
    """(n, 4) float32."""
    labels: np.ndarray
    """(n,) int64."""
    iscrowd: np.ndarray
    """(n,) bool."""
    area: np.ndarray
    """(n,) float32."""


JPEG_END = b"\xff\xd9"


def encode_image(image_rgb: np.ndarray, extension: str = ".jpg") -> bytes:
    """(H, W, 3) uint8 RGB -> the bytes of a .jpg, .png or .webp file."""
    return cv2.imencode(extension, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def decode_image(data, reduce: int = 1) -> np.ndarray:
    """Decode JPEG, PNG, WebP, BMP, TIFF or GIF (first frame) to (H, W, 3) uint8 RGB.

    `data` is bytes or any buffer. Grey, alpha, CMYK and 16-bit images become 8-bit RGB. The picture
    is as displayed: turned and flipped as its EXIF orientation says. With `reduce` 2, 4 or 8 it is
    decoded at that fraction of its size, rounded up. ValueError where the bytes are no image.
    """
    if reduce not in REDUCED_DECODING:
        raise ValueError(f"decode_image: reduce={reduce!r} is not possible; choose 1, 2, 4 or 8")
    encoded = np.frombuffer(data, np.uint8)
    is_jpeg = encoded[:2].tobytes() == b"\xff\xd8"
    flags = REDUCED_DECODING[reduce if is_jpeg else 1] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(encoded, flags) if encoded.size else None
    except cv2.error:  # OpenCV's own limit on pixels
        image = None
    if image is None and is_jpeg:
        image = _decoded_without_end(encoded, flags)
    if image is None:
        raise ValueError(
            f"decode_image: {encoded.size} bytes starting with {encoded[:8].tobytes()!r} are no "
            "image that can be decoded; JPEG, PNG, WebP, BMP, TIFF and GIF work"
        )
    if not is_tiff(encoded):  # OpenCV turns a TIFF whatever the flags say
        image = upright(image, read_orientation(encoded))
    return image if is_jpeg or reduce == 1 else shrunk(image, reduce)


def _decoded_without_end(encoded: np.ndarray, flags: int) -> np.ndarray | None:
    """A JPEG that lacks just its end marker, else None.

    Where its pixels are complete, what follows them makes no difference; where they are cut, it becomes pixels.
    """
    data = encoded.tobytes()
    if b"\xff\xc2" in data or data.rstrip(b"\0").endswith(JPEG_END):  # in a progressive one, whole scans may be missing
        return None
    data = data.removesuffix(JPEG_END[:1])
    images = [cv2.imdecode(np.frombuffer(data + filling + JPEG_END, np.uint8), flags)
              for filling in (b"", b"\xaa" * 99, b"\x55" * 99, b"\xe3" * 99, b"\x97" * 99)]
    return images[0] if all(image is not None and np.array_equal(image, images[0]) for image in images) else None


def reduction(scale: float) -> int:
    """The largest decoding reduction whose result is no smaller than the image resized by `scale`."""
    return max(reduce for reduce in REDUCED_DECODING if reduce == 1 or scale * reduce <= 1)


def shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """(H, W, 3) uint8 at 1/factor of its size, rounded up: the mean of each block of pixels.

    As reduced decoding does, the last row and column are repeated where a block is not full: OpenCV
    averages whole blocks twenty times as fast as fractional ones.
    """
    height, width = image.shape[:2]
    missing = -height % factor, -width % factor
    if any(missing):
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def read_sample(
    *,
    image,
    height_px: int,
    width_px: int,
    boxes_xyxy,
    labels,
    iscrowd,
    area,
    image_id: int,
    file_name: str,
    polygons: Sequence | None = None,
    reduce: int = 1,
) -> Sample:
    """Build a sample from one dataset row: the arguments are named like the Arrow columns.

    `image` holds the encoded bytes, n arrays or nested lists describe the objects; a ring of
    `polygons` is (k, 2) or flat x, y, x, y. ValueError, naming the file, where the image cannot be
    decoded, has another size than the row says, or where the columns differ in length.
    """
    try:
        pixels = decode_image(image, reduce)
    except ValueError as error:
        raise ValueError(f"{file_name}: {error}") from None
    expected_hw = (-(-height_px // reduce), -(-width_px // reduce))
    if pixels.shape[:2] != expected_hw:
        orientation = read_orientation(image)
        turned = f" (EXIF orientation {orientation})" if orientation != UPRIGHT else ""
        reduced = f" at 1/{reduce}" if reduce > 1 else ""
        raise ValueError(
            f"{file_name}: the image is {pixels.shape[1]}x{pixels.shape[0]} px as displayed{turned}"
            f"{reduced}, by its row {expected_hw[1]}x{expected_hw[0]} px; ingest the dataset again with "
            "`overwrite: true`, so that boxes fit the pixels"
        )
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4)
    lengths = {len(boxes), len(labels), len(iscrowd), len(area)}
    if polygons is not None:
        lengths.add(len(polygons))
        polygons = [
            [np.asarray(ring, np.float32).reshape(-1, 2) for ring in rings or ()]
            for rings in polygons
        ]
    if len(lengths) > 1:
        raise ValueError(
            f"{file_name}: boxes, labels, iscrowd, area and polygons have lengths "
            f"{sorted(lengths)}; every object needs one of each"
        )
    return Sample(
        image=pixels,
        boxes_xyxy=boxes,
        labels=np.asarray(labels, np.int64),
        iscrowd=np.asarray(iscrowd, bool),
        area=np.asarray(area, np.float32),
        polygons=polygons,
        image_id=int(image_id),
        file_name=file_name,
        original_size_hw=(int(height_px), int(width_px)),
    )


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image was fitted into a network's input: letterboxed = original * scale * stretch + pad."""

    scale: float
    pad_x: float
    pad_y: float
    original_size_hw: tuple[int, int]
    stretch_xy: tuple[float, float] = (1.0, 1.0)
    """What the rounding of both sides to whole pixels adds to the scale; 1 where it is left out of account."""

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the original, along each axis."""
        return self.scale * self.stretch_xy[0], self.scale * self.stretch_xy[1]

    def to_letterboxed(self, points_xy: np.ndarray) -> np.ndarray:
        """Convert (..., 4) boxes, or (..., 2) points, from pixels of the original to pixels of the input."""
        scale, pad = self._per_column(points_xy)
        return np.asarray(points_xy, np.float32) * scale + pad

    def to_original(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Convert (..., 4) boxes back to pixels of the original, clipped to it."""
        height, width = self.original_size_hw
        scale, pad = self._per_column(boxes_xyxy)
        return ((np.asarray(boxes_xyxy, np.float32) - pad) / scale).clip(0, np.array([width, height] * 2, np.float32))

    def _per_column(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = np.shape(values)[-1] // 2
        return np.array(self.scale_xy * pairs, np.float32), np.array([self.pad_x, self.pad_y] * pairs, np.float32)


def fitted_size_hw(
    size_hw: tuple[int, int], into_hw: tuple[int, int], scale_up: bool = True
) -> tuple[float, tuple[int, int]]:
    """Scale and (height, width) of an image resized to fit `into_hw`, keeping its aspect ratio."""
    scale = min(into_hw[0] / size_hw[0], into_hw[1] / size_hw[1])
    if not scale_up:
        scale = min(scale, 1.0)
    return scale, (max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale)))


def letterbox(
    image: np.ndarray,
    size_hw: tuple[int, int],
    pad_value: int = PAD_GREY,
    scale_up: bool = True,
    canvas_hw: tuple[int, int] | None = None,
    original_hw: tuple[int, int] | None = None,
) -> tuple[np.ndarray, Letterbox]:
    """Fit an (H, W, 3) uint8 image into `size_hw`, bilinearly, centred on a canvas of `pad_value`.

    The canvas has size `canvas_hw` if given, which must hold the fitted image, else `size_hw`.
    `scale_up=False` keeps small images at their size. If the padding is odd, the image lies half a
    pixel above (or left of) the centre that `Letterbox` records, as in the official detector. This is how it sees
    single images, and how ours are predicted, served and trained; evaluation shrinks by `area_resize`.
    An image that was decoded at a part of its size has the full one as `original_hw`.
    """
    original_hw = original_hw or image.shape[:2]
    scale, (height, width) = fitted_size_hw(original_hw, size_hw, scale_up)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas, pad_x, pad_y = centred(image, canvas_hw or size_hw, pad_value)
    return canvas, Letterbox(scale, pad_x, pad_y, original_hw)


def centred(
    image: np.ndarray, canvas_hw: tuple[int, int], pad_value: int = PAD_GREY
) -> tuple[np.ndarray, float, float]:
    """An (H, W, 3) uint8 image in the middle of a canvas that holds it, and the padding left and above."""
    height, width = image.shape[:2]
    pad_x, pad_y = (canvas_hw[1] - width) / 2, (canvas_hw[0] - height) / 2
    left, top = int(pad_x), int(pad_y)
    canvas = np.full((*canvas_hw, 3), pad_value, np.uint8)
    canvas[top : top + height, left : left + width] = image
    return canvas, pad_x, pad_y


def area_resize(image: np.ndarray, longer_px: int) -> np.ndarray:
    """Resize an (H, W, 3) uint8 image until its longer side is `longer_px`, as the reference evaluates.

    Shrinking averages over the area of each new pixel, so that nothing is skipped; enlarging is bilinear.
    Sizes are truncated to whole pixels, at least 1, where `letterbox` rounds.
    """
    height, width = image.shape[:2]
    scale = longer_px / max(height, width)
    if scale == 1:
        return image
    size_wh = max(1, int(width * scale)), max(1, int(height * scale))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
