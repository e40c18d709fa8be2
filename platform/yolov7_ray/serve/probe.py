"""The probe: send one held-out image over HTTP as a client would, and store the answer."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from yolov7.images.draw import draw_detections
from yolov7.images.sample import Sample, encode_image

from .. import storage
from ..data.reading.dataset import ArrowDataset
from ..errors import JobError
from .spec import Probe

TIMEOUT_S = 120
DRAWN_SIDE_PX = 480


@dataclass(frozen=True)
class ProbeImage:
    """An image of a dataset, and the directory for the answers."""

    sample: Sample
    classes: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, probe: Probe) -> "ProbeImage":
        """Read the image; JobError if the dataset, split or index does not exist."""
        dataset = ArrowDataset(probe.dataset, probe.split)
        if probe.index >= len(dataset):
            raise JobError("probe.index", f"{probe.index} is past the end of split '{probe.split}' of {probe.dataset}",
                           f"it has {len(dataset)} images")
        return cls(dataset.read(probe.index), tuple(dataset.classes), probe.output)

    def run(self, url: str, token: str = "") -> dict[str, Any]:
        """Send the image; print the detections as a table; write image.jpg, detections.json and drawn.png."""
        image = encode_image(self.sample.image, ".jpg")
        answer = json.loads(post_image(f"{url}/v1/detect", image, token))
        rows = [[*found["box_xyxy"], found["score"], found["label"]] for found in answer["detections"]]
        drawn = encode_image(draw_detections(self.sample.image, rows, self.classes, min_side_px=DRAWN_SIDE_PX), ".png")
        storage.write_bytes(storage.join(self.output, "image.jpg"), image)
        storage.write_json(storage.join(self.output, "detections.json"), answer)
        storage.write_bytes(storage.join(self.output, "drawn.png"), drawn)
        print(f"serve: {self.sample.file_name}: {len(answer['detections'])} detections, "
              f"{len(self.sample.labels)} objects in its annotation, {answer['inference_ms']:.1f} ms")
        print(table(answer["detections"]))
        print(f"serve: picture: {storage.join(self.output, 'drawn.png')}")
        return answer


def post_image(url: str, image: bytes, token: str = "") -> bytes:
    """POST a JPEG and return the answer's body; JobError if the endpoint refuses."""
    headers = {"Content-Type": "image/jpeg"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, image, headers), timeout=TIMEOUT_S) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise JobError(url, f"answered {error.code}: {error.read().decode(errors='replace')[:500]}",
                       "the logs of Ray Serve hold the cause") from error
    except OSError as error:
        raise JobError(url, f"does not answer ({error})", "see whether the endpoint still runs") from error


def table(detections: list[dict[str, Any]]) -> str:
    """Detections as lines of text, boxes in pixels."""
    width = max([5, *(len(detection["name"]) for detection in detections)])
    lines = [f"  {'class':<{width}}  score    left     top   right  bottom"]
    for detection in detections:
        box = " ".join(f"{value:7.1f}" for value in detection["box_xyxy"])
        lines.append(f"  {detection['name']:<{width}}  {detection['score']:.3f} {box}")
    return "\n".join(lines)
