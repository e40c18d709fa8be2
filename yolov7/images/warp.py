"""Geometry of augmentation: one 3x3 matrix per source image, so each output pixel is sampled once.

Resizing, translation, perspective and flips are composed into one matrix before the image is
warped. Points are rows (x, y) in the frame of `yolov7.images.sample`: pixel i covers [i, i + 1).

n boxes
"""

import math

import cv2
import numpy as np

MIN_HOMOGENEOUS_WEIGHT = 1e-2
"""Lower bound: points that a strong perspective puts behind the viewer are projected far away."""

CENTRE_TO_CORNER = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From OpenCV's coordinates, relative to the first pixel's centre, to ours, relative to its corner."""


def translation(x: float, y: float) -> np.ndarray:
    """3x3 matrix that moves points by (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> np.ndarray:
    """3x3 matrix that multiplies x and y."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def rotation(degrees: float) -> np.ndarray:
    """3x3 matrix that rotates points about the origin, clockwise on the screen."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def shearing(x_degrees: float, y_degrees: float) -> np.ndarray:
    """3x3 matrix that shears both axes by an angle."""
    x, y = math.tan(math.radians(x_degrees)), math.tan(math.radians(y_degrees))
    return np.array([[1.0, x, 0.0], [y, 1.0, 0.0], [0.0, 0.0, 1.0]])


def project(matrix: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """Transform (..., 2) points by a 3x3 matrix."""
    moved = points_xy @ matrix[:2, :2].T + matrix[:2, 2]
    if is_affine(matrix):
        return moved
    weight = points_xy @ matrix[2, :2] + matrix[2, 2]
    return moved / np.maximum(weight, MIN_HOMOGENEOUS_WEIGHT)[..., None]


def project_boxes(matrix: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """The axis-aligned boxes, (n, 4), around the four projected corners of (n, 4) boxes."""
    if is_axis_aligned(matrix):  # two opposite corners are enough
        corners = project(matrix, boxes_xyxy.reshape(-1, 2, 2))
    else:
        corners = project(matrix, boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def clip_boxes(boxes_xyxy: np.ndarray, rectangle_xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) boxes clipped to one rectangle; an empty result has zero width or height."""
    x0, y0, x1, y1 = rectangle_xyxy
    return boxes_xyxy.clip((x0, y0, x0, y0), (x1, y1, x1, y1))


def areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(n,) areas of (n, 4) boxes."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def magnification(matrix: np.ndarray) -> float:
    """Output pixels per source pixel, as a length ratio, near the origin of `matrix`."""
    return math.sqrt(abs(np.linalg.det(matrix[:2, :2])))


def is_affine(matrix: np.ndarray) -> bool:
    """Whether parallel lines stay parallel: the last row is (0, 0, 1)."""
    return matrix[2, 0] == matrix[2, 1] == 0


def is_axis_aligned(matrix: np.ndarray) -> bool:
    """Whether the matrix only scales, mirrors and translates."""
    return matrix[0, 1] == matrix[1, 0] == matrix[2, 0] == matrix[2, 1] == 0


def warp_into(
    canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray, crop_xyxy: np.ndarray
) -> None:
    """Draw the part `crop_xyxy` of `image` on `canvas` through `matrix` (image to canvas pixels).

    Bilinear; canvas pixels outside the part are unchanged. An axis-aligned transformation is rounded
    to whole pixels, up to half a pixel from the exact position: OpenCV's resize is two to three
    times as fast as its warp.
    """
    height, width = image.shape[:2]
    axis_aligned = is_axis_aligned(matrix)
    if axis_aligned:  # crop what would fall outside the canvas
        frame = np.array([[0, 0, canvas.shape[1], canvas.shape[0]]], float)
        crop_xyxy = clip_boxes(
            crop_xyxy[None], project_boxes(np.linalg.inv(matrix), frame)[0]
        )[0]
    u0, v0 = np.floor(crop_xyxy[:2] + 1e-6).astype(int).clip(0)
    u1, v1 = np.ceil(crop_xyxy[2:] - 1e-6).astype(int).clip(None, (width, height))
    if u0 >= u1 or v0 >= v1:
        return
    part = image[v0:v1, u0:u1]
    if axis_aligned:
        _resize_into(canvas, part, matrix, (u0, v0, u1, v1))
    else:
        _perspective_into(canvas, part, matrix @ translation(u0, v0))


def _resize_into(canvas, part, matrix, corners) -> None:
    """Draw `part`, whose `corners` in the source are (u0, v0, u1, v1), by an axis-aligned `matrix`."""
    mapped_corners = project(matrix, np.array(corners, float).reshape(2, 2))
    x0, y0 = np.floor(mapped_corners.min(0) + 0.4).astype(int)  # halves are rounded down, as in letterboxing
    x1, y1 = np.floor(mapped_corners.max(0) + 0.4).astype(int)
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x1, canvas.shape[1]), min(y1, canvas.shape[0])
    if left >= right or top >= bottom:
        return
    width, height = int(x1 - x0), int(y1 - y0)
    if part.shape[:2] != (height, width):
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    if flip_x:
        columns = slice(x1 - right, x1 - left)
    if flip_y:
        rows = slice(y1 - bottom, y1 - top)
    window = canvas[top:bottom, left:right]
    if flip_x or flip_y:  # OpenCV's codes: 1 about the vertical axis, 0 horizontal, -1 both
        cv2.flip(part[rows, columns], -1 if flip_x and flip_y else int(flip_x), dst=window)
    else:
        window[...] = part[rows, columns]


def _perspective_into(canvas, part, matrix) -> None:
    """Draw all of `part` by any matrix, processing only the part of the canvas that it covers."""
    size_xy = np.array([canvas.shape[1], canvas.shape[0]])
    extent = project_boxes(matrix, np.array([[0, 0, part.shape[1], part.shape[0]]], float))[0]
    left, top = np.floor(extent[:2]).clip(0, size_xy).astype(int)
    right, bottom = np.ceil(extent[2:]).clip(0, size_xy).astype(int)
    if left >= right or top >= bottom:
        return
    matrix = translation(-left, -top) @ matrix
    matrix = np.linalg.inv(CENTRE_TO_CORNER) @ matrix @ CENTRE_TO_CORNER
    affine = is_affine(matrix)
    warp = cv2.warpAffine if affine else cv2.warpPerspective
    window = canvas[top:bottom, left:right]
    warp(
        part,
        matrix[:2] if affine else matrix,
        (window.shape[1], window.shape[0]),
        dst=window,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )
