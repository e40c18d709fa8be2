"""What platform/README.md says under "How to add", done to a copy of the sources: each addition touches one room."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The sources, to be changed."""
    for name in ("yolov7", "platform"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "submit.py", tmp_path)
    return tmp_path


def add_line(file: Path, before: str, line: str) -> None:
    """Insert ``line`` above the first line that begins with ``before``."""
    lines = file.read_text().splitlines()
    place = next(number for number, text in enumerate(lines) if text.startswith(before))
    file.write_text("\n".join([*lines[:place], line, *lines[place:]]) + "\n")


def run(copy: Path, *words: str, status: int = 0) -> str:
    """What ``python WORDS`` in the copy prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True, timeout=600,
                          env=environment | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'platform'}"})
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_architecture(copy):
    add_line(copy / "yolov7/architectures/family.py", "def rep_elan",
             'ARCHITECTURES["toy"] = YOLOV7_TINY.scaled(width=0.25).replace(name="toy")\n\n')
    assert "toy" in run(copy, "-m", "yolov7", "describe", "toy", "--image-size", "64")
    (copy / "job.yaml").write_text("kind: train\ndataset: data\nmodel: {architecture: toy}\nepocs: 1\n")
    assert "epocs: is an unknown key" in run(copy, "submit.py", "job.yaml", status=2), "the architecture is known"


TOY_SPEC = '''
from typing import Literal

from ..jobs.spec import URI, Job


class CountSpec(Job):
    """Arrow dataset -> its number of images."""

    kind: Literal["count"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
'''
TOY_JOB = '''
from ..jobs.kind import JobKind
from .spec import CountSpec


class Count(JobKind[CountSpec]):
    spec = CountSpec
    outputs = {"images": "number"}
    example = {"dataset": "datasets/coco"}

    def run(self, spec, run_name):
        from ..data.manifest import load_manifest

        return {"images": sum(split.num_rows for split in load_manifest(spec.dataset).splits.values())}

    def check_inputs(self, spec, upcoming):
        from ..data.manifest import require_dataset

        require_dataset(spec.dataset, upcoming)

    def dry_run(self, spec, upcoming):
        return [("counts", f"the images of {spec.dataset}")]


KIND = Count()
'''
TOY_SOURCE = '''
import numpy as np

from ... import storage
from .item import FileItem, RawSource
from .objects import Objects


def read(spec) -> RawSource:
    items = [FileItem(image_id=number, file_name=info.path, num_bytes=info.num_bytes, mark=info.mark,
                      uri=storage.join(spec.uri, info.path), objects=Objects.of([]))
             for number, info in enumerate(storage.list_files(spec.uri))]
    return RawSource(("thing",), (0,), {split: items for split in spec.splits})
'''


@pytest.fixture
def with_toy_kind(copy) -> Path:
    room = copy / "platform/yolov7_ray/count"
    room.mkdir()
    for name, text in (("__init__.py", ""), ("spec.py", TOY_SPEC), ("job.py", TOY_JOB)):
        (room / name).write_text(text)
    add_line(copy / "platform/yolov7_ray/jobs/kinds.py", '    "pipeline"', '    "count": "yolov7_ray.count.job",')
    return copy


def test_a_kind_of_job_is_known_to_all_commands(with_toy_kind):
    copy = with_toy_kind
    assert "kind: count" in run(copy, "submit.py", "new", "count", "-")
    assert '"CountSpec"' in run(copy, "submit.py", "schema")
    (copy / "job.yaml").write_text("kind: count\ndataset: data\ndatset: x\n")
    assert "job.yaml: datset: is an unknown key; did you mean 'dataset'?" in run(copy, "submit.py", "job.yaml", status=2)
    (copy / "job.yaml").write_text("kind: count\ndataset: data\n")
    assert f"counts    the images of {copy}/data" in run(copy, "submit.py", "job.yaml", "--dry-run")
    assert f"error: {copy}/data: there is no dataset here" in run(copy, "submit.py", "job.yaml", status=2)


@pytest.mark.ray
@pytest.mark.slow
def test_a_dataset_format_and_a_kind_of_job_run_in_a_pipeline(with_toy_kind):
    from yolov7.images.sample import encode_image

    copy = with_toy_kind
    sources = copy / "platform/yolov7_ray/data/sources"
    (sources / "bare.py").write_text(TOY_SOURCE)
    spec = (sources / "spec.py").read_text()
    (sources / "spec.py").write_text(spec.replace("ShapesSource]", "ShapesSource, BareSource]"))
    add_line(sources / "spec.py", "Source =", '''class BareSource(_Source):
    """A directory of images."""

    format: Literal["bare"]
    uri: URI
    splits: dict[Name, str] = {"train": ""}


''')
    read = (sources / "read.py").read_text()
    (sources / "read.py").write_text(read.replace('"coco": coco.read', '"bare": bare.read, "coco": coco.read')
                                     .replace("from . import ", "from . import bare, "))
    (copy / "photos").mkdir()
    for number in range(3):
        (copy / f"photos/{number}.png").write_bytes(encode_image(np.full((32, 32, 3), number, np.uint8), ".png"))
    job = {"kind": "pipeline", "steps": {
        "ingest": {"kind": "ingest", "source": {"format": "bare", "uri": "photos"}, "dataset": "data"},
        "count": {"kind": "count", "dataset": "${ingest.dataset}"}}}
    (copy / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    assert "counts    the images of" in run(copy, "submit.py", "job.yaml", "--dry-run")
    assert "[2/2] count (count): images 3 (" in run(copy, "submit.py", "job.yaml")


def test_a_storage_scheme(monkeypatch):
    from yolov7_ray import storage
    from yolov7_ray.errors import NotFound
    from yolov7_ray.jobs.job_file import validate

    files: dict[str, bytes] = {}

    class Memory:
        """Only what this test needs of `storage.store.Store`."""

        def __init__(self, uri: str):
            self.uri = uri

        def read(self) -> bytes:
            if self.uri not in files:
                raise NotFound(self.uri, "there is nothing here")
            return files[self.uri]

        def write(self, data: bytes) -> None:
            files[self.uri] = data

    monkeypatch.setitem(storage.SCHEMES, "memory", Memory)
    storage.write_json("memory://a/b", {"x": 1})
    assert storage.read_json("memory://a/b") == {"x": 1} and storage.is_remote("memory://a")
    assert validate({"kind": "doctor", "dataset": "memory://a/data"}).dataset == "memory://a/data"


def test_a_served_engine(monkeypatch):
    from yolov7.architectures.family import ARCHITECTURES
    from yolov7.model.detector import build_model
    from yolov7_ray.detect.detector import Detector
    from yolov7_ray.engines.engine import ENGINES
    from yolov7_ray.registry.model_source import LoadedModel

    class OneBox:
        def __init__(self, folded, device, precision):
            self.num_classes = folded.model.num_classes

        def predict(self, images):
            scores = torch.eye(self.num_classes)[1]
            return torch.cat([torch.tensor([10.0, 20, 4, 8, 1]), scores]).expand(len(images), 1, -1)

    monkeypatch.setitem(ENGINES, "one-box", OneBox)
    model = build_model(ARCHITECTURES["yolov7-tiny"].scaled(width=0.25), 3)
    loaded = LoadedModel(model, ["a", "b", "c"], 64, "here", {})
    found = Detector(loaded, engine="one-box", confidence=0.5)(np.zeros((64, 64, 3), np.uint8))
    assert (found.boxes_xyxy.tolist(), found.scores.tolist(), found.names) == ([[8, 16, 12, 24]], [1], ["b"])
