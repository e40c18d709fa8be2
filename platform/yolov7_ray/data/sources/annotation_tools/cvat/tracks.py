"""CVAT for video: tracks of shapes in numbered frames -> the shapes of each frame.

A shape moves evenly from one keyframe to the next, and stays after the last, until the track is outside. Polygons of
another number of points stay as they were until the next keyframe. Frames are images: those whose names end in their
number, as CVAT writes them, counted from 0 or from 1; else all of them in the order of their numbers.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from .....errors import JobError

INTERPOLATED = "shape between keyframes, interpolated"
IN_ORDER = "frames taken to be the images in the order of their names"
_NUMBERS = ("xtl", "ytl", "xbr", "ybr", "cx", "cy", "rx", "ry", "rotation")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
MAX_FRAMES = 10_000_000


def frames_of(meta: ElementTree.Element | None) -> range | None:
    """Numbers of the frames of a task, by its size, first frame and step; None where it does not tell."""
    def number(name: str, default: int) -> int:
        text = next((element.text for element in meta.iter(name) if element.text), "") if meta is not None else ""
        return int(text) if text.strip().isdecimal() else default

    first, last, size = number("start_frame", 0), number("stop_frame", -1), number("size", 0)
    step = re.search(r"step\s*=\s*([1-9]\d*)", next((element.text or "" for element in meta.iter("frame_filter")), "")
                     if meta is not None else "")
    every = int(step[1]) if step else 1
    last = first + (size - 1) * every if last < 0 and size else last
    return range(first, last + 1, every) if 0 <= last < MAX_FRAMES and last >= first else None


def shapes_by_frame(tracks: Sequence[ElementTree.Element], frames: range) -> dict[int, list[tuple]]:
    """Frame -> the shapes in it, each with the label of its track and whether it is interpolated."""
    found: dict[int, list[tuple]] = {}
    for track in tracks:
        label = track.get("label", "")
        given = sorted(((int(shape.get("frame", "")), shape) for shape in track
                        if shape.get("frame", "").isdecimal()), key=lambda pair: pair[0])
        for position, (frame, shape) in enumerate(given):
            after = given[position + 1] if position + 1 < len(given) else None
            if shape.get("outside") == "1":
                continue
            found.setdefault(frame, []).append((label, shape, False))
            stop = after[0] if after else frames.stop
            for between in range(frame + frames.step, stop, frames.step):
                moved = _between(shape, after[1], (between - frame) / (stop - frame)) if after else shape
                found.setdefault(between, []).append((label, moved, True))
    return found


def _between(shape: ElementTree.Element, after: ElementTree.Element, share: float) -> ElementTree.Element:
    """The shape a share of the way to its next keyframe; unmoved where that is outside, or of other points."""
    moved = ElementTree.Element(shape.tag, dict(shape.attrib))
    moved.extend(shape)
    if after.get("outside") == "1" or after.tag != shape.tag:
        return moved

    def mean(one: str, other: str) -> str:
        return repr(float(one) + (float(other) - float(one)) * share)

    try:
        for key in _NUMBERS:
            if key in shape.attrib and key in after.attrib:
                moved.set(key, mean(shape.attrib[key], after.attrib[key]))
        pairs = [re.split("[;,]", element.get("points", "")) for element in (shape, after)]
        if shape.get("points") and len(pairs[0]) == len(pairs[1]):
            values = list(map(mean, *pairs))
            moved.set("points", ";".join(f"{x},{y}" for x, y in zip(values[0::2], values[1::2], strict=True)))
    except ValueError:
        pass  # the shape itself will be told to be malformed
    return moved


def images_of_frames(where: str, images: Sequence[str], frames: range) -> tuple[dict[int, str], str]:
    """Frame -> its image, and what had to be assumed, if anything; JobError if there is no telling."""
    numbered = {path: int(match[1]) for path in images
                if (match := _LAST_NUMBER.search(path.rpartition("/")[2].rpartition(".")[0]))}
    by_number = {number: path for path, number in numbered.items()}
    if len(by_number) == len(images) > 0:
        known = {frame: path for frame, path in by_number.items() if frame in frames}
        is_from_1 = len(images) == len(frames) and sorted(by_number) == list(range(1, len(images) + 1))
        if is_from_1 and frames == range(len(frames)):
            return {number - 1: path for number, path in by_number.items()}, "frames whose images count from 1"
        if known and (len(known) == len(images) or len(known) == len(frames)):
            return known, ""
    if len(images) == len(frames):
        ordered = sorted(images, key=lambda path: [int(part) if part.isdecimal() else part
                                                   for part in re.split(r"(\d+)", path)])
        return dict(zip(frames, ordered, strict=True)), IN_ORDER
    raise JobError(where, f"is CVAT for video with {len(frames):,} frames ({frames.start} to {frames[-1]}), and the images "
                          f"here are {len(images):,}" + (f", e.g. {images[0]}" if images else ""),
                   "export it with images, or put the frames below as frame_000000.png, frame_000001.png, …")

