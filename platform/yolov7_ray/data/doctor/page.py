"""The examination as one HTML file: findings with thumbnails, and bar charts of the classes of every split."""

import base64
import html
from functools import cache

import cv2
import numpy as np
import pyarrow as pa

from yolov7.images.draw import draw_truth
from yolov7.images.sample import encode_image

from ...errors import JobError
from ..reading.mapped_shard import MappedShard
from .examination import Examination
from .finding import SEVERITIES, Case, Finding
from .image_checks import decode
from .shard_examination import open_shard

THUMBNAIL_PX = 240
MAX_PICTURES = 120
"""Maximum for the whole page, which keeps it at a few MB."""
MAX_CLASSES = 200

_STYLE = """
:root { --ground: #f6f5f2; --panel: #fff; --ink: #1d1c1a; --quiet: #75716a; --line: #dedad2; --error: #c8341f;
  --warning: #b7791f; --note: #4a7d9c; color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #171614; --panel: #211f1d; --ink: #eeebe5; --quiet: #9a948a;
  --line: #38342f; --error: #f0715e; --warning: #e0a84e; --note: #7fb2d0; } }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; background: var(--ground); color: var(--ink); }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem; font-size: 1.15rem; }
p { margin: .2rem 0; } .quiet { color: var(--quiet); }
section { background: var(--panel); border: 1px solid var(--line); border-left: 4px solid var(--kind);
  border-radius: 10px; padding: .8rem 1.1rem; margin: .8rem 0; }
section h3 { margin: 0; font-size: 1rem; } section h3 b { color: var(--kind); font-weight: 600; }
.error { --kind: var(--error); } .warning { --kind: var(--warning); } .note { --kind: var(--note); }
.cases { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .7rem; }
figure { margin: 0; max-width: 30rem; } figure img { border-radius: 6px; display: inline-block; max-width: 100%; }
figcaption { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 500; white-space: nowrap; }
th, td { padding: .12rem 1rem .12rem 0; font-variant-numeric: tabular-nums; }
td { width: 40%; } .bar { display: flex; align-items: center; gap: .5rem; }
.bar i { height: .7rem; border-radius: 3px; background: var(--note); min-width: 1px; }
"""


def page(examination: Examination) -> str:
    """The HTML document; it is self-contained and runs no script."""
    title = html.escape(f"Dataset doctor · {examination.uri}")
    counts = " · ".join(f"{examination.findings.num_kinds(severity)} kinds of {severity}" for severity in SEVERITIES)
    facts = (f"{examination.looked_at} in {examination.elapsed_s:.1f} s, for {examination.architecture} at "
             f"{examination.image_size_px} px · fingerprint {examination.manifest.fingerprint[:16]}")
    pictures = Pictures(examination)
    findings = "".join(_section(finding, pictures) for finding in examination.findings)
    return (f"<!doctype html><html lang=en><meta charset=utf-8>"
            f"<meta name=viewport content='width=device-width, initial-scale=1'><title>{title}</title>"
            f"<style>{_STYLE}</style><h1>{title}</h1><p>{counts}</p><p class=quiet>{html.escape(facts)}</p>"
            f"<h2>Findings</h2>{findings or '<p>Nothing was found.</p>'}"
            f"<h2>Classes</h2>{_classes(examination)}</html>\n")


def _section(finding: Finding, pictures: "Pictures") -> str:
    definition = finding.definition
    per_split = ", ".join(f"{split} {count:,}" for split, count in finding.counts.items())
    cases = "".join(f"<figure>{pictures.of(case)}<figcaption>{html.escape(str(case))}</figcaption></figure>"
                    for case in finding.examples)
    return (f"<section class={definition.severity}><h3><b>{definition.severity}</b> · {finding.count:,} × "
            f"{html.escape(finding.kind)} <span class=quiet>({html.escape(per_split)})</span></h3>"
            f"<p>{html.escape(definition.remedy)}</p><div class=cases>{cases}</div></section>")


def _classes(examination: Examination) -> str:
    """A row per class, a bar per split: its object count relative to the most frequent class."""
    splits = examination.counted
    rows = []
    for label, name in enumerate(examination.manifest.classes[:MAX_CLASSES]):
        cells = [_bar(statistics.objects_per_class[label], max(statistics.objects_per_class))
                 for statistics in splits.values()]
        rows.append(f"<tr><th>{html.escape(name)}{''.join(cells)}")
    left = len(examination.manifest.classes) - MAX_CLASSES
    more = f"<p class=quiet>and {left:,} more, in the JSON</p>" if left > 0 else ""
    heads = "".join(f"<th>{html.escape(name)}: {statistics.num_images:,} images, {statistics.num_objects:,} objects"
                    for name, statistics in splits.items())
    return f"<table><tr><th>class{heads}{''.join(rows)}</table>{more}"


def _bar(count: int, most: int) -> str:
    return f"<td><div class=bar><i style='width:{80 * count / max(most, 1):.2f}%'></i>{count:,}</div>"


class Pictures:
    """Thumbnails of cases, as img tags, up to a limit."""

    def __init__(self, examination: Examination):
        self.uri, self.manifest = examination.uri, examination.manifest
        self.left = MAX_PICTURES
        self._open = cache(self._open_shard)

    def of(self, case: Case) -> str:
        """The case's image with its object, or all objects, then the image it duplicates; empty if there is none."""
        places = [(case.split, case.index), case.twin] if case.twin else [(case.split, case.index)]
        return "".join(self._image(*place, case) for place in places if place[1] is not None)

    def _image(self, split: str, index: int, case: Case) -> str:
        if not self.left:
            return ""
        try:
            pixels = self._drawn(split, index, case)
        except (ValueError, JobError, OSError, pa.ArrowException):
            return ""  # the case itself says why it cannot be shown
        self.left -= 1
        encoded = base64.b64encode(encode_image(pixels)).decode()
        return (f"<img src='data:image/jpeg;base64,{encoded}' width={pixels.shape[1]} height={pixels.shape[0]} "
                f"alt='{html.escape(f'{split} {index}', quote=True)}'> ")

    def _drawn(self, split: str, index: int, case: Case) -> np.ndarray:
        mapped, row = self._locate(split, index)
        values = mapped.values(row)
        pixels, _ = decode(mapped.image(row))
        scale = min(1.0, THUMBNAIL_PX / max(pixels.shape[:2]))
        size_wh = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        small = cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA)
        boxes, labels = values["boxes_xyxy"], values["labels"]
        if case.box_xyxy:
            same = (boxes == np.asarray(case.box_xyxy, np.float32)).all(axis=1) if len(boxes) == len(labels) else []
            boxes, labels = [case.box_xyxy], labels[same][:1] if np.any(same) else [-1]
        boxes = np.asarray(boxes, float).reshape(-1, 4)[:len(labels)] * scale
        return draw_truth(small, boxes, labels[:len(boxes)], self.manifest.classes)

    def _locate(self, split: str, index: int) -> tuple[MappedShard, int]:
        for number, shard in enumerate(self.manifest.split(split).shards):
            if index < shard.num_rows:
                return self._open(split, number), index
            index -= shard.num_rows
        raise ValueError(f"{split} has no image {index}")

    def _open_shard(self, split: str, number: int) -> MappedShard:
        return open_shard(self.uri, self.manifest.split(split).shards[number])
