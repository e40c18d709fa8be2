"""The page of a run: one HTML file, written anew after each evaluation, that works from disk."""

import base64
import html
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import yolov7
from yolov7.architectures.published import Published, neighbours
from yolov7.evaluation.metrics import Metrics

from ...evaluate.page.charts import Line, lines
from ...evaluate.page.parts import parts, share, tiles
from ...evaluate.page.pictures import Gallery
from ...evaluate.page.style import SCRIPT, STYLE
from ...evaluate.report import storage_name
from ...jobs.document import dump
from ...jobs.page.document import Tile, document
from ...jobs.page.figures import duration, number
from ...program import VERSION, command
from ...storage import digest
from ..spec import TrainSpec
from .results_csv import of_stages

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunView:
    """All that is shown of a run."""

    run: str
    spec: TrainSpec
    results: Mapping[str, Any]
    """results.json."""
    metrics: Metrics
    """Of the last evaluation."""
    epoch: int
    """After which it was."""
    gallery: Gallery | None
    gallery_epoch: int = 0
    batches_jpeg: bytes | None = None
    environment: Mapping[str, str] | None = None

    @property
    def rows(self) -> Sequence[Row]:
        return self.results["epochs"]

    @property
    def best(self) -> Row:
        """The row of the best saved epoch so far."""
        return self.results["best"]


def run_page(view: RunView) -> str:
    """The HTML document."""
    name, spec = storage_name(view.run), view.spec
    facts = f"{view.results['architecture']} · {spec.dataset} · {spec.data.image_size_px} px · epoch {len(view.rows)} of {spec.epochs}"
    remark = f"of epoch {view.gallery_epoch}"
    found = parts(view.metrics, view.results["classes"], view.gallery, remark)
    all_parts = [("curves", "Training", curves(view)), *found, ("batches", "First batches", _batches(view.batches_jpeg)),
                 ("time", "Time", time_part(view.rows)), ("published", "Published", among_published(view.results, spec.data.image_size_px)),
                 ("job", "Job", _job(view)), ("commands", "Commands", _commands(view))]
    return document(f"Run · {name}", name, facts, _tiles(view), all_parts, style=STYLE, script=SCRIPT)


def _tiles(view: RunView) -> list[Tile]:
    rows, best = view.rows, view.best
    by = view.spec.checkpoint.best_by
    shown: list[Tile] = []
    if best.get("ap") is not None:
        shown.append((share(best["ap"]), "AP of the best epoch", f"epoch {best['epoch']}, AP50 {share(best.get('ap50'))}, by {by}"))
    shown += tiles(view.metrics, f"epoch {view.epoch}")
    spent = sum(sum(of_stages(row["seconds"]).values()) for row in rows)
    left = spent / len(rows) * (view.spec.epochs - len(rows))
    ahead = f"about {duration(left)} left" if left else "finished"
    shown.append((f"{len(rows)} of {view.spec.epochs}", "epochs", f"{duration(spent)}, {ahead}"))
    shown.append((number(view.results["parameters"]), "parameters", f"{view.results['gflops']:.1f} GFLOPs"))
    return shown


def curves(view: RunView) -> str:
    """Figures over epochs; the best epoch is marked."""
    def line(name: str, key: str) -> Line:
        return Line(name, [(row["epoch"], row[key]) for row in view.rows if row.get(key) is not None])

    cards = [("Average precision", "of the moving average's weights, on the validation split", "AP", [
        line("AP", "ap"), line("AP50", "ap50"), line("AP75", "ap75")]),
        ("AP by size", "of the objects", "AP", [line("small", "ap_small"), line("medium", "ap_medium"), line("large", "ap_large")]),
        ("Losses", "of the training batches, augmented", "loss", [
            line("box", "train/box"), line("objectness", "train/objectness"), line("classification", "train/classification")]),
        ("Precision and recall", "at the confidence of the best mean F1", "share", [
            line("precision", "precision"), line("recall", "recall"), line("F1", "f1"), line("confidence", "confidence")]),
        ("Learning rate", "at the end of the epoch", "learning rate", [line("learning rate", "learning_rate")]),
        ("Speed", "of training, without evaluation", "images/s", [line("images/s", "images_per_s")])]
    mark = view.best.get("epoch") if len(view.rows) > 1 else None
    drawn = [(title, text, lines(given, label, mark)) for title, text, label, given in cards]
    return "<div class=charts>" + "".join(
        f"<figure class=card><h3>{title}</h3><p class=quiet>{text}</p>{chart}</figure>" for title, text, chart in drawn if chart) + "</div>"


def time_part(rows: Sequence[Row]) -> str:
    """Seconds of all epochs by stage, with their parts."""
    totals: dict[str, float] = {}
    for row in rows:
        for name, seconds in row["seconds"].items():
            totals[name] = totals.get(name, 0.0) + seconds
    stages = of_stages(totals)
    whole = sum(stages.values()) or 1.0
    shown = []
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        shown.append(_bar(stage, seconds, whole))
        inner = {name: spent for name, spent in totals.items() if name.startswith(f"{stage}/")}
        base = max(whole, *inner.values()) if inner else whole
        shown += [_bar(name, spent, base, "part") for name, spent in sorted(inner.items(), key=lambda item: -item[1])]
    note = "Parts of fetch are spent by loader processes, meanwhile" if any(name.startswith("fetch/") for name in totals) else ""
    return f"<div class=card><p class=quiet>{note}</p><ul class=stages>{''.join(shown)}</ul></div>"


def _bar(name: str, seconds: float, whole: float, kind: str = "") -> str:
    return (f"<li class='{kind}'><b>{html.escape(name)}</b><i style='width:{100 * seconds / whole:.1f}%'></i>"
            f"<span>{duration(seconds) if seconds >= 10 else f'{seconds:.1f} s'}</span>")


def _batches(jpeg: bytes | None) -> str:
    if jpeg is None:
        return ""
    data = base64.b64encode(jpeg).decode()
    return (f"<figure class='card picture'><p class=quiet>As the model sees them, augmented, with their boxes</p>"
            f"<img src='data:image/jpeg;base64,{data}' alt='first training batches'></figure>")


def among_published(results: Mapping[str, Any], size_px: int) -> str:
    """The run between models of its size that the paper publishes, as HTML."""
    parameters_m, best = results["parameters"] / 1e6, results["best"]
    ours = Published(f"this run ({results['architecture']})", None, size_px, parameters_m, results["gflops"],
                     100 * (best.get("ap") or 0.0), 100 * (best.get("ap50") or 0.0))
    rows = sorted([*neighbours(parameters_m, size_px), ours], key=lambda row: row.parameters_m)
    cells = "".join(
        f"<tr><td>{html.escape(row.model)}<td class=number>{row.image_size_px}<td class=number>{row.parameters_m:.1f}"
        f"<td class=number>{row.flops_g:.1f}<td class=number>{row.ap:.1f}<td class=number>"
        f"{'–' if row.ap50 is None else format(row.ap50, '.1f')}" for row in rows)
    heads = "".join(f"<th class=number>{name}" for name in ("px", "params M", "GFLOPs", "AP", "AP50"))
    return (f"<div class='card wide'><p class=quiet>Theirs as published in arXiv:2207.02696, on COCO val2017; this run's on the "
            f"validation split of {html.escape(results['dataset'])}, so only their cost compares unless that is COCO.</p>"
            f"<table class=plain><tr><th>model{heads}{cells}</table></div>")


def _job(view: RunView) -> str:
    facts = {"run": view.run, "dataset": f"{view.spec.dataset}, fingerprint {view.results['dataset_fingerprint']}",
             "best checkpoint": view.results["best_checkpoint"] or "–", **(view.environment or {})}
    rows = "".join(f"<tr><th>{html.escape(key)}<td>{html.escape(str(value))}" for key, value in facts.items())
    job = dump(view.spec.model_dump(mode="json", exclude_none=True))
    return (f"<div class='card wide'><table class=plain>{rows}</table><details><summary>the job, every key</summary>"
            f"<pre>{html.escape(job)}</pre></details></div>")


def _commands(view: RunView) -> str:
    run, name = view.run, storage_name(view.run)
    text = "\n".join([
        "# go on where it stopped", command(f"{run}/spec.json --resume {name}"),
        "# measure it on another split, or another dataset of the same classes",
        command(f"jobs/evaluate-detector.yaml --set model={run} --set dataset={view.spec.dataset} --set split=test"),
        "# publish its best checkpoint", command(f"jobs/publish-detector.yaml --set model={run}")])
    return f"<div class=card><pre>{html.escape(text)}</pre></div>"


@cache
def code_version() -> str:
    """Version of the package, and the beginning of a digest of its source: what exactly has run."""
    roots = [Path(yolov7.__file__).parent, Path(__file__).parents[2]]
    files = sorted((path.relative_to(root.parent).as_posix(), path) for root in roots for path in root.rglob("*.py"))
    return f"{VERSION}, source {digest(b''.join(name.encode() + path.read_bytes() for name, path in files))[:12]}"


def environment(device: torch.device, precision: str, world_size: int) -> dict[str, str]:
    """What a run runs on and with."""
    import ray

    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"code": code_version(), "workers": f"{world_size} × {hardware}, {precision}",
            "software": f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, Ray {ray.__version__}"}
