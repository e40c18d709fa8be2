"""Records learning curves of real small trainings for `bench_tune.py`, one after the other and without Ray.

    python tests/bench/record_curves.py shapes tests/bench/curves/shapes.json [--trials 64]
    python tests/bench/record_curves.py /data/BCCD tests/bench/curves/bccd.json [--trials 48]

Depth x width x image size x learning rate of YOLOv7-tiny, in an order drawn by the seed; 20 epochs on one thread. The
shapes are of one class, which so short a training can learn. A
folder is Pascal VOC; its images are shrunk to a quarter first. The file is written after each training, and a second
call goes on where the first one ended.
"""

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "yolov7_ray")]

import cv2  # noqa: E402
import torch  # noqa: E402
from conftest import ingest_here  # noqa: E402

from yolov7.model.describe import count_flops, count_parameters  # noqa: E402
from yolov7.training.engine import Diverged, train_one_epoch  # noqa: E402
from yolov7.training.stage_clock import Clock  # noqa: E402
from yolov7_ray.data.reading.chosen import ChosenSamples  # noqa: E402
from yolov7_ray.data.reading.dataset import open_splits  # noqa: E402
from yolov7_ray.data.sources.spec import SHAPE_CLASSES, ShapesSource, VocSource  # noqa: E402
from yolov7_ray.evaluate.rank_share import Worker, evaluate_share, figures, merged  # noqa: E402
from yolov7_ray.jobs.job_file import validate  # noqa: E402
from yolov7_ray.train.build import build_criterion, build_state  # noqa: E402
from yolov7_ray.train.loop import EpochBatches  # noqa: E402

SPACE = {"depth": [0.5, 1.0], "width": [0.25, 0.375, 0.5], "size_px": [64, 96],
         "learning_rate": [0.002, 0.004, 0.008, 0.016]}
EPOCHS, LATENCY_REPEATS, SHRINK, TRAIN_IMAGES, VAL_IMAGES = 20, 15, 4, 64, 40


def shrunk_voc(source: Path, target: Path) -> Path:
    """A copy of a Pascal VOC folder whose images and boxes are a quarter as large."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (target / folder).mkdir(parents=True)
    for path in sorted((source / "ImageSets/Main").glob("*.txt")):
        names = path.read_text().splitlines()
        (target / "ImageSets/Main" / path.name).write_text("\n".join(names[:VAL_IMAGES] if path.stem == "val" else names))
    for path in sorted((source / "Annotations").glob("*.xml")):
        tree = ET.parse(path)
        for tag in ("xmin", "ymin", "xmax", "ymax", "width", "height"):
            for node in tree.iter(tag):
                node.text = f"{float(node.text) / SHRINK:g}"
        tree.write(target / "Annotations" / path.name)
        image = cv2.imread(str(source / "JPEGImages" / f"{path.stem}.jpg"))
        small = cv2.resize(image, None, fx=1 / SHRINK, fy=1 / SHRINK, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(target / "JPEGImages" / f"{path.stem}.jpg"), small)
    return target


def job(dataset: str, values: dict) -> dict:
    """The train job of one trial."""
    return {
        "kind": "train", "dataset": dataset, "recipe": "tiny", "epochs": EPOCHS, "batch_size": 4,
        "nominal_batch_size": 4, "precision": "fp32", "storage": dataset,
        "model": {"architecture": "yolov7-tiny", "depth": values["depth"], "width": values["width"]},
        "data": {"image_size_px": values["size_px"], "loader_processes": 0, "max_images": TRAIN_IMAGES},
        "optimizer": {"algorithm": "adamw", "learning_rate": values["learning_rate"], "warmup_epochs": 1,
                      "final_learning_rate_ratio": 0.05, "warmup_bias_learning_rate": 0},
        "loss": {"objectness_gain": 6, "classification_gain": 8}, "ema": {"decay": 0.99, "ramp_updates": 100},
        "augment": {"mosaic": 0, "mixup": 0, "paste_in": 0, "scale": 0.3}}


def latency_ms(model: torch.nn.Module, size_px: int) -> float:
    """Milliseconds of one image on this thread, the least of repeats: other work may share the core."""
    image, seconds = torch.zeros(1, 3, size_px, size_px), []
    model.eval()
    with torch.inference_mode():
        for _ in range(LATENCY_REPEATS):
            start = time.perf_counter()
            model(image)
            seconds.append(time.perf_counter() - start)
    return min(seconds) * 1e3


def rounded(value: float | None) -> float | None:
    """Four significant digits."""
    return None if value is None else float(f"{value:.4g}")


def record(dataset: str, values: dict) -> dict:
    """Train one trial to its end; its row of the file."""
    start = time.process_time()
    spec = validate(job(dataset, values))
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"), loader_processes=0, precision="fp32")
    train_set, val_set = open_splits(spec.dataset, spec.data, "train", "val")
    train_set = ChosenSamples(train_set, spec.data.num_chosen(len(train_set)))
    state = build_state(spec, train_set, worker.device)
    criterion, batches = build_criterion(spec, state.model, train_set), EpochBatches(spec, train_set, worker, Clock())
    curves = {"ap": [], "ap50": []}
    for _ in range(spec.epochs):
        try:
            train_one_epoch(state, batches(state), criterion, precision="fp32")
        except Diverged:
            break
        found = figures(merged(evaluate_share(state.ema.model, val_set, spec.evaluation, worker, size_px=values["size_px"],
                                              batch_size=8), worker))
        for name, curve in curves.items():
            curve.append(rounded(found[name] or 0.0))
    curves = {name: curve + curve[-1:] * (spec.epochs - len(curve)) for name, curve in curves.items()}
    gflops = count_flops(state.model.architecture, values["size_px"], state.model.num_classes) / 1e9
    return {"values": values, "cost": rounded(gflops * len(train_set)), "gflops": rounded(gflops),
            "parameters": count_parameters(state.model), "latency_ms": rounded(latency_ms(state.ema.model, values["size_px"])),
            "cpu_s": round(time.process_time() - start, 1), **curves}


def dump(document: dict) -> str:
    """JSON with a line per trial."""
    head = {name: value for name, value in document.items() if name != "trials"}
    rows = ",\n".join(json.dumps(row) for row in document["trials"])
    return json.dumps(head)[:-1] + ', "trials": [\n' + rows + "\n]}\n"


def main() -> None:
    """Record what is missing of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="`shapes`, or a folder of Pascal VOC")
    parser.add_argument("file", type=Path)
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    points = [dict(zip(SPACE, point)) for point in itertools.product(*SPACE.values())]
    random.Random(0).shuffle(points)
    name = options.file.stem
    document = json.loads(options.file.read_text()) if options.file.exists() else \
        {"name": name, "epochs": EPOCHS, "trials": []}
    with tempfile.TemporaryDirectory() as directory:
        if options.source == "shapes":
            source = ShapesSource(format="shapes", splits={"train": TRAIN_IMAGES, "val": VAL_IMAGES}, image_size_px=128)
        else:
            source = VocSource(format="voc", uri=str(shrunk_voc(Path(options.source), Path(directory, "voc"))))
        classes = {"classes": {"shape": list(SHAPE_CLASSES)}} if options.source == "shapes" else {}
        ingest_here(source, f"{directory}/dataset", **classes)
        for values in points[len(document["trials"]):options.trials]:
            row = record(f"{directory}/dataset", values)
            document["trials"].append(row)
            options.file.write_text(dump(document))
            print(f"{len(document['trials'])} of {options.trials}: {values} AP {row['ap'][-1]} after {row['cpu_s']} CPU s",
                  flush=True)


if __name__ == "__main__":
    main()
