"""Ingest from a local disk: MB of images per CPU second of a worker and per second of a whole job, and its memory.

    python tests/bench/bench_ingest.py [COCO_FOLDER] [--megabytes 400] [--rounds 3] [--annotations-mb 100]
                                       [--times 100] [--only worker job annotations memory]

The images are those of the folder (train2017/ and annotations/; without one, generated shapes) again and again
under new names, with their annotations. A worker is measured in this process, over all that it does: read, check,
Arrow, sha256, write. Annotation files and memory are measured in processes of their own, since peaks never go
back; for memory, the images are links to a few files, so that only what is written takes room on the disk.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from memory import watched  # noqa: E402
from yolov7_ray import storage  # noqa: E402
from yolov7_ray.data.ingest import ingest as room  # noqa: E402
from yolov7_ray.data.sources.shapes import SHAPE_CLASSES, generate_shape_image  # noqa: E402
from yolov7_ray.data.ingest.shards import write_shard  # noqa: E402
from yolov7_ray.data.sources.read import read_source  # noqa: E402
from yolov7_ray.cluster.local_ray import start_ray  # noqa: E402
from yolov7_ray.data.sources.spec import CocoSource
from yolov7_ray.data.ingest.spec import IngestSpec  # noqa: E402

PARTS = ("worker", "job", "annotations", "memory")


# --- raw data -------------------------------------------------------------------------------------------


def originals(folder: Path | None) -> tuple[list[bytes], list[list[dict]], list[dict]]:
    """Encoded images, the annotations of each, and the categories."""
    if folder is None:
        rows = [generate_shape_image(0, index, 640) for index in range(40)]
        return ([row["image"] for row in rows],
                [[{"category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": area, "iscrowd": 0,
                   "segmentation": rings}
                  for label, (x0, y0, x1, y1), area, rings in zip(*(row[key] for key in (
                      "labels", "boxes_xyxy", "area", "polygons")), strict=True)] for row in rows],
                [{"id": index, "name": name} for index, name in enumerate(SHAPE_CLASSES)])
    document = json.loads((folder / "annotations/instances_train2017.json").read_text())
    by_image = {entry["id"]: [] for entry in document["images"]}
    for entry in document["annotations"]:
        by_image[entry["image_id"]].append(entry)
    images = [(folder / "train2017" / entry["file_name"]).read_bytes() for entry in document["images"]]
    return images, list(by_image.values()), document["categories"]


def write_annotations(path: Path, annotations: list[list[dict]], categories: list[dict], num_images: int) -> int:
    """A COCO instances file of so many images, written entry by entry; the number of its objects."""
    count = 0
    with open(path, "w") as file:
        file.write('{"info": {"description": "bench"}, "images": [')
        for index in range(num_images):
            file.write(", " * (index > 0) + json.dumps({"id": index, "file_name": f"{index:08d}.jpg"}))
        file.write('], "annotations": [')
        for index in range(num_images):
            for entry in annotations[index % len(annotations)]:
                file.write(", " * (count > 0) + json.dumps({**entry, "image_id": index, "id": count}))
                count += 1
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return count


def make_coco(root: Path, folder: Path | None, megabytes: float, linked: bool = False) -> CocoSource:
    """A COCO directory with about so many MB of images in one split."""
    images, annotations, categories = originals(folder)
    (root / "train").mkdir(parents=True)
    num_images = num_bytes = 0
    while num_bytes < megabytes * 1e6:
        path, data = root / "train" / f"{num_images:08d}.jpg", images[num_images % len(images)]
        if linked and num_images >= len(images):
            path.hardlink_to(root / "train" / f"{num_images % len(images):08d}.jpg")
        else:
            path.write_bytes(data)
        num_images, num_bytes = num_images + 1, num_bytes + len(data)
    count = write_annotations(root / "train.json", annotations, categories, num_images)
    print(f"{num_images} images, {num_bytes / 1e6:.0f} MB, {count} objects; load {os.getloadavg()[0]:.1f}", flush=True)
    return source_of(root)


def source_of(root: Path) -> CocoSource:
    """The source section for `make_coco`."""
    return CocoSource(format="coco", uri=str(root), splits={"train": {"images": "train", "annotations": "train.json"}})


# --- measurements ---------------------------------------------------------------------------------------


def bench_worker(source: CocoSource, directory: Path, rounds: int) -> None:
    """Every shard of the job, one after the other, as a worker writes them."""
    raw = read_source(source)
    rates, walls = [], []
    for number in range(rounds):
        spec = IngestSpec(kind="ingest", source=source, dataset=str(directory / f"worker-{number}"))
        labels, count = tuple(range(len(raw.classes))), len(raw.classes)
        plans = {split: room.split_plan(spec, spec.dataset, raw, split, labels, count, None, []) for split in raw.splits}
        tasks = room._plan(spec, spec.dataset, plans, labels, count, "0" * 16)
        cpu, wall = time.process_time(), time.perf_counter()
        megabytes = sum(write_shard(task)["image_bytes"] for task in tasks) / 1e6
        rates.append(megabytes / (time.process_time() - cpu))
        walls.append(megabytes / (time.perf_counter() - wall))
        shutil.rmtree(spec.dataset)
    print(f"worker: {statistics.median(rates):.0f} MB per CPU second ({min(rates):.0f} to {max(rates):.0f}), "
          f"{statistics.median(walls):.0f} MB/s on the clock")


def bench_job(source: CocoSource, directory: Path, rounds: int) -> None:
    """Whole jobs in a Ray that runs already, as a step of a pipeline finds it; the first one starts the workers."""
    with start_ray():
        for number in range(rounds):
            uri = str(directory / f"job-{number}")
            begun = time.perf_counter()
            room.ingest(IngestSpec(kind="ingest", source=source, dataset=uri), "job")
            took_s = time.perf_counter() - begun
            megabytes = sum(info.num_bytes for info in storage.list_files(uri)) / 1e6
            print(f"job {number}: {megabytes / took_s:.0f} MB/s on the clock, {took_s:.1f} s", flush=True)
            shutil.rmtree(uri)


HERE = str(Path(__file__).parent)
PREFIX = f"import sys; from pathlib import Path; sys.path.insert(0, {HERE!r}); import bench_ingest as bench\n"
READ_WITH_JSON = PREFIX + "import json; document = json.load(open(sys.argv[1] + '/train.json'))"
READ = PREFIX + "source = bench.read_source(bench.source_of(Path(sys.argv[1])))"
SUFFIX = ("\nimport time; print(time.process_time(), [line.split()[1] for line in open('/proc/self/status') "
          "if line.startswith('VmHWM')][0])")


def bench_annotations(directory: Path, folder: Path | None, megabytes: float, rounds: int) -> None:
    """A large annotation file, its images empty files: time and peak memory, against `json.load` of it."""
    root = directory / "annotations"
    (root / "train").mkdir(parents=True)
    _, annotations, categories = originals(folder)
    num_images = int(megabytes * 1e6 / (len(json.dumps(annotations)) / len(annotations)))
    for index in range(num_images):
        (root / "train" / f"{index:08d}.jpg").touch()
    count = write_annotations(root / "train.json", annotations, categories, num_images)
    print(f"{(root / 'train.json').stat().st_size / 1e6:.0f} MB of annotations: {num_images} images, {count} objects")
    imports_s = imports_mb = 0.0
    for name, code in {"imports": PREFIX, "json.load": READ_WITH_JSON, "our reader": READ}.items():
        runs = [own_process(code + SUFFIX, root).split() for _ in range(rounds)]
        cpu_s, peak_mb = statistics.median(float(run[0]) for run in runs), max(float(run[1]) for run in runs) / 1e3
        print(f"{name:11s} {cpu_s - imports_s:5.1f} CPU s, peak {peak_mb - imports_mb:5.0f} MB"
              f"{' above those of the imports' if imports_s else ''}", flush=True)
        if not imports_s:
            imports_s, imports_mb = cpu_s, peak_mb


def own_process(code: str, *arguments: object) -> str:
    """The last line that a fresh Python prints when it runs `code`."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.splitlines()[-1]


WATCHED_JOB = PREFIX + "bench.watched_job(Path(sys.argv[1]), sys.argv[2])"


def bench_memory(directory: Path, folder: Path | None, megabytes: float, times: int) -> None:
    """A small data set and one many times as large: peak memory of the driver and of its largest worker."""
    for factor in (1, times):
        root = directory / f"memory-{factor}"
        make_coco(root, folder, megabytes * factor, linked=True)
        print(own_process(WATCHED_JOB, root, directory / f"memory-{factor}-dataset"), flush=True)
        shutil.rmtree(directory / f"memory-{factor}-dataset")


def watched_job(root: Path, uri: str) -> None:
    """Ingest in a Ray of its own and print the peaks."""
    with start_ray(), watched("_write_row") as memory:
        begun = time.perf_counter()
        room.ingest(IngestSpec(kind="ingest", source=source_of(root), dataset=uri, shard_mb=8), "job")
        took_s = time.perf_counter() - begun
    print(f"{took_s:.0f} s; peak of the driver {max(memory.driver_mb):.0f} MB, "
          f"of a worker {max(map(max, memory.workers_mb.values())):.0f} MB")


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--annotations-mb", type=float, default=100)
    parser.add_argument("--times", type=int, default=100, help="how much larger the second data set for memory is")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ingest-") as name:
        directory = Path(name)
        if {"worker", "job"} & set(options.only):
            source = make_coco(directory / "raw", options.folder, options.megabytes)
        if "worker" in options.only:
            bench_worker(source, directory, options.rounds)
        if "job" in options.only:
            bench_job(source, directory, options.rounds)
        if "annotations" in options.only:
            bench_annotations(directory, options.folder, options.annotations_mb, options.rounds)
        if "memory" in options.only:
            bench_memory(directory, options.folder, 40, options.times)


if __name__ == "__main__":
    main()
