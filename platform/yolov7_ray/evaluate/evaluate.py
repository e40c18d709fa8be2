"""Model x dataset split -> COCO AP, plots and results.json, on the job's number of workers."""

import json
import tempfile
from pathlib import Path

import ray
import torch
from ray.exceptions import RayTaskError

from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.model.describe import count_flops, count_parameters
from yolov7.training.engine import resolve_precision

from .. import storage
from ..cluster.ray_errors import original
from ..data.manifest import load_manifest
from ..data.reading.dataset import open_splits
from ..errors import JobError
from ..registry.model_source import load_model
from .page.pictures import gallery
from .rank_share import Worker, evaluate_share, figures
from .report import evaluation_page, write_plots
from .spec import EvaluateSpec
from .summary import summary_table


def evaluate(spec: EvaluateSpec, run_name: str) -> dict:
    """Evaluate and write ``<storage>/<run_name>/results.json`` and ``report/index.html``."""
    classes = check_model(spec)
    resources = spec.resources
    task = ray.remote(evaluate_shard).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_retries=resources.max_failures)
    try:
        shards = ray.get([task.remote(spec.model_dump(mode="json"), rank, resources.workers)
                          for rank in range(resources.workers)])
    except RayTaskError as error:  # its text is a traceback; a JobError is raised directly
        raise original(error) if isinstance(original(error), JobError) else error
    metrics = CocoEvaluator.merged(classes, [shard["state"] for shard in shards]).compute()
    run = storage.join(spec.storage, run_name)
    results = {"model": spec.model, "dataset": spec.dataset, "split": spec.split, **shards[0]["measured"],
               "metrics": metrics.to_dict(), "spec": spec.model_dump(mode="json")}
    with tempfile.TemporaryDirectory() as directory:
        pictures = Path(directory, "report")
        pictures.mkdir()
        write_plots(pictures, metrics, list(classes))
        page = evaluation_page(run, spec.model, f"{spec.dataset} · {spec.split}", metrics, list(classes), shards[0]["gallery"])
        (pictures / "index.html").write_text(page)
        Path(directory, "results.json").write_text(json.dumps(results, indent=1))
        storage.upload_directory(directory, run)
    print("\n".join(summary_table(metrics.to_dict())), flush=True)
    return {"run": run, "metrics": figures(metrics), "report": storage.join(run, "report", "index.html")}


def check_model(spec: EvaluateSpec) -> tuple[str, ...]:
    """The classes of model and dataset, which must be equal. JobError if they differ or the image size does not fit."""
    manifest = load_manifest(spec.dataset)
    manifest.split(spec.split)
    loaded = load_model(spec.model, spec.registry)
    if list(manifest.classes) != list(loaded.classes):
        raise JobError(f"model {spec.model}", f"knows the classes {list(loaded.classes)}, "
                       f"{spec.dataset} has {list(manifest.classes)}", "evaluate on a dataset with the same classes")
    size_px, stride = spec.image_size_px or loaded.image_size_px, max(loaded.model.strides)
    if size_px % stride:
        raise JobError("image_size_px", f"{size_px} is not a multiple of the model's largest stride {stride}",
                       f"choose {max(1, size_px // stride) * stride} or {(size_px // stride + 1) * stride}")
    return tuple(manifest.classes)


def evaluate_shard(config: dict, rank: int, world_size: int) -> dict:
    """Evaluate this rank's images of the split; returns the evaluator's arrays, what was measured on which content, and,
    from rank 0, its worst images."""
    spec = EvaluateSpec.model_validate(config)
    [dataset] = open_splits(spec.dataset, spec.data, spec.split)
    loaded = load_model(spec.model, spec.registry)
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    device = torch.device("cuda" if spec.resources.gpus_per_worker else "cpu")
    worker = Worker(rank, world_size, device, spec.data.processes(spec.resources.cpus_per_worker),
                    resolve_precision(spec.precision, device))
    size_px = spec.image_size_px or loaded.image_size_px
    measured = {"dataset_fingerprint": dataset.fingerprint, "parameters": count_parameters(loaded.model),
                "gflops": count_flops(loaded.model, size_px) / 1e9}
    share = evaluate_share(loaded.model.to(device), dataset, spec.evaluation, worker, size_px=size_px, batch_size=16)
    worst = None
    if rank == 0:
        worst = gallery(dataset, share, share.evaluator.compute().operating.best_confidence)
    return {"state": share.evaluator.state(), "measured": measured, "gallery": worst}
