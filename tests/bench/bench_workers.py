"""What Ray Train costs and brings: a bare loop against one worker and against two, each on one thread.

Beside two workers stand two bare loops at once, each with half the batch, that know nothing of each other: what the
machine could do. What two workers lack of that is the price of Ray and of summing gradients.

    python tests/bench/bench_workers.py [--rounds 3] [--epochs 5] [--width 0.5] [--size-px 160]

All read the same dataset and make the same batches; checkpoints are written as a job does by default. Images per
second, and per CPU second of a training process, of the epochs after the first, in rounds in which each takes its
turn; steal is what other guests of the machine took of both cores meanwhile. CPU time knows no waiting, neither for
those guests nor for another worker.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "yolov7_ray")]

import torch  # noqa: E402
from conftest import ingest_here  # noqa: E402

from yolov7.training.stage_clock import Clock  # noqa: E402
from yolov7.training.engine import train_one_epoch  # noqa: E402
from yolov7_ray import storage  # noqa: E402
from yolov7_ray.cluster.local_ray import start_ray  # noqa: E402
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.data.sources.spec import ShapesSource
from yolov7_ray.train.spec import TrainSpec  # noqa: E402
from yolov7_ray.train.build import build_criterion, build_state  # noqa: E402
from yolov7_ray.train.loop import EpochBatches
from yolov7_ray.data.reading.dataset import open_splits  # noqa: E402
from yolov7_ray.train import trainer  # noqa: E402
from yolov7_ray.evaluate.rank_share import Worker  # noqa: E402


def job(directory: str, workers: int, options: argparse.Namespace) -> TrainSpec:
    """The job of every variant but for the number of workers."""
    return validate({
        "kind": "train", "dataset": f"{directory}/shapes", "storage": f"{directory}/runs", "recipe": "tiny",
        "epochs": options.epochs, "batch_size": 16, "nominal_batch_size": 16, "precision": "bf16",
        "model": {"architecture": "yolov7-tiny", "width": options.width},
        "data": {"image_size_px": options.size_px, "loader_processes": 0},
        "evaluation": {"every_epochs": options.epochs}, "resources": {"workers": workers}})


Speeds = list[tuple[float, float]]
"""Of each epoch: images per second, and per CPU second."""


def bare(spec: TrainSpec) -> Speeds:
    """Those of a loop in this process, on one thread and without Ray."""
    torch.set_num_threads(1)
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"), loader_processes=0, precision="bf16")
    [train_set] = open_splits(spec.dataset, spec.data, "train")
    state = build_state(spec, train_set, worker.device)
    criterion, batches = build_criterion(spec, state.model, train_set), EpochBatches(spec, train_set, worker, Clock())
    speeds = []
    for _ in range(spec.epochs):
        start, cpu_start = time.perf_counter(), time.process_time()
        images = train_one_epoch(state, batches(state), criterion, precision="bf16")["num_images"]
        speeds.append((images / (time.perf_counter() - start), images / (time.process_time() - cpu_start)))
    return speeds


def bare_half(directory: str, options: argparse.Namespace) -> Speeds:
    """Those of such a loop with half the batch."""
    spec = job(directory, 1, options)
    return bare(spec.model_copy(update={"batch_size": spec.batch_size // 2, "nominal_batch_size": spec.batch_size // 2}))


def two_bare(directory: str, options: argparse.Namespace) -> Speeds:
    """Those of two such loops at once: images per second of both together."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap_async(bare_half, [(directory, options)] * 2, chunksize=1).get(timeout=600)
    return [(rate + other, (cpu_rate + other_cpu) / 2)
            for (rate, cpu_rate), (other, other_cpu) in zip(first, second)]


def with_ray(spec: TrainSpec, name: str) -> Speeds:
    """Those of a job; its workers have equal shares of the images."""
    results = storage.read_json(storage.join(trainer.train(spec, name)["run"], "results.json"))
    return [(row["images_per_s"], row["num_images"] / spec.resources.workers / row["cpu_s"])
            for row in results["epochs"]]


def timed_train_loop(config: dict) -> dict:
    """A worker's loop that writes its CPU seconds into each epoch's row."""
    from yolov7_ray.train import loop

    fit = loop.TrainingRun.fit

    def timed(self: loop.TrainingRun, clock: Clock) -> dict:
        start = time.process_time()
        return fit(self, clock) | {"cpu_s": time.process_time() - start}

    loop.TrainingRun.fit = timed
    return loop.train_loop(config)


def cpu_times() -> tuple[int, int]:
    """Ticks that were stolen from this machine, and all ticks."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def main() -> None:
    """Print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--size-px", type=int, default=160)
    options = parser.parse_args()
    trainer.train_loop = timed_train_loop
    with tempfile.TemporaryDirectory() as directory, start_ray():
        ingest_here(ShapesSource(format="shapes", splits={"train": options.images, "val": 8},
                                 image_size_px=options.size_px), f"{directory}/shapes")
        speeds: dict[str, Speeds] = {"bare loop": [], "1 worker": [], "2 bare loops": [], "2 workers": []}
        stolen, ticks = cpu_times()
        for number in range(options.rounds):
            speeds["bare loop"] += bare(job(directory, 1, options))[1:]
            speeds["1 worker"] += with_ray(job(directory, 1, options), f"one-{number}")[1:]
            speeds["2 bare loops"] += two_bare(directory, options)[1:]
            speeds["2 workers"] += with_ray(job(directory, 2, options), f"two-{number}")[1:]
        stolen, ticks = (after - before for after, before in zip(cpu_times(), (stolen, ticks)))
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in speeds.items()}
    for name, (rate, cpu_rate) in medians.items():
        print(f"{name:14}{rate:8.1f} images/s (best {max(speeds[name])[0]:.1f}), {cpu_rate:.1f} per CPU second")
    for name, other in (("1 worker", "bare loop"), ("2 workers", "1 worker"), ("2 workers", "2 bare loops")):
        rate, cpu_rate = (own / others for own, others in zip(medians[name], medians[other]))
        print(f"{name}: {rate:.2f} x {other}; per CPU second {cpu_rate:.3f} x")
    print(f"steal {stolen / ticks:.0%}")


if __name__ == "__main__":
    main()
