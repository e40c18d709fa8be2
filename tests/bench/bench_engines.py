"""A folded model in every engine that is installed: CPU milliseconds of an image, batch 1 and 8.

    python tests/bench/bench_engines.py [--architecture yolov7-tiny] [--size-px 640] [--threads 1] [--rounds 7]
                                        [--model REF --registry URI]

All take turns; CPU time of the process, so that other work on the machine hardly moves it. The first row is PyTorch in
fp32, channels last; of the others the ratio to it is printed. Weights are fresh, and int8 is calibrated on noise,
unless a model is given.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from yolov7.model.detector import build_model
from yolov7.model.reparameterize import reparameterize
from yolov7_ray.engines.engine import ENGINES
from yolov7_ray.engines.folded import FoldedModel
from yolov7_ray.engines.quantize import quantized
from yolov7_ray.errors import JobError
from yolov7_ray.registry.model_source import load_model

BATCHES = (1, 8)


def folded(options: argparse.Namespace) -> FoldedModel:
    """The model with its file in int8."""
    if options.model:
        found = load_model(options.model, options.registry)
        return FoldedModel(found.model, files={name: artifact.read for name, artifact in found.artifacts.items()})
    network = reparameterize(build_model(options.architecture, 80))
    exported = FoldedModel(network).onnx("fp32")
    rng = np.random.default_rng(0)
    images = (rng.random((1, 3, options.size_px, options.size_px), np.float32) for _ in range(4))
    int8 = quantized(exported, images)
    return FoldedModel(network, files={"model.onnx": lambda: exported, "model.int8.onnx": lambda: int8})


def main() -> None:
    """Print a row for each engine and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="yolov7-tiny")
    parser.add_argument("--size-px", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", help="published with an int8 engine")
    parser.add_argument("--registry", default="registry")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = folded(options)
    engines = {}
    for name, make in ENGINES.items():
        for precision in ("fp32", "bf16", "int8"):
            try:
                engines[name, precision] = make(model, torch.device("cpu"), precision)
            except JobError as error:
                print(f"{name} {precision}: {error.problem}")
    images = {batch: torch.randint(0, 256, (batch, options.size_px, options.size_px, 3), dtype=torch.uint8,
                                   generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2) for batch in BATCHES}
    times: dict[tuple, list[float]] = {}
    for number in range(options.rounds + 1):
        for key, engine in engines.items():
            for batch in BATCHES:
                begun = time.process_time()
                engine.predict(images[batch])
                if number:  # the first one warms up
                    times.setdefault((*key, batch), []).append(1e3 * (time.process_time() - begun) / batch)
    medians = {key: statistics.median(found) for key, found in times.items()}
    for name, precision in engines:
        cells = [f"batch {batch}: {medians[name, precision, batch]:7.2f} ms "
                 f"{medians['torch', 'fp32', batch] / medians[name, precision, batch]:5.2f} x" for batch in BATCHES]
        print(f"{name:12s} {precision}  {'   '.join(cells)}")


if __name__ == "__main__":
    main()
