"""The examination as one HTML file: what the dataset looks like, what its ingest lost, and the findings."""

import html

import numpy as np

from ...ingest.losses import recorded, totals
from ...manifest import DROPPED
from ..examination import Examination, common_classes
from ..finding import SEVERITIES, Finding
from .charts import binned, heat_map, histogram, matrix
from .pictures import Pictures
from .portrait import (
    AREA_OCTAVES,
    ASPECT_OCTAVES,
    BINS_PER_OCTAVE,
    CHOICES,
    GRID,
    OCTAVES,
    SIDE_OCTAVES,
    Portrait,
)
from .style import STYLE

GALLERY_PX = 360
FINDINGS_BYTES = 700_000
"""Of the pictures' bytes, kept for those of the findings."""
MAX_CLASSES = 200


def page(examination: Examination) -> str:
    """The HTML document; it is self-contained and runs no script."""
    name = examination.uri.rstrip("/").rpartition("/")[2]
    pictures = Pictures(examination.uri, examination.manifest)
    pictures.left -= FINDINGS_BYTES
    galleries = _galleries(examination.portrait, pictures)
    pictures.left += FINDINGS_BYTES
    findings = "".join(_section(finding, pictures) for finding in examination.findings)
    facts = (f"{examination.uri} · {examination.looked_at} in {examination.elapsed_s:.1f} s, for "
             f"{examination.architecture} at {examination.image_size_px} px · fingerprint "
             f"{examination.manifest.fingerprint[:16]}")
    parts = [("boxes", "Boxes and images", _charts(examination.portrait) if examination.num_images else ""),
             ("classes", "Classes", _classes(examination) + _together(examination)), ("images", "Images", galleries),
             ("losses", "Lost by ingest", _losses(examination)),
             ("findings", "Findings", findings or "<p>Nothing was found.</p>")]
    links = "".join(f"<a href='#{key}'>{title}</a>" for key, title, content in parts if content)
    body = "".join(f"<h2 id={key}>{title}</h2>{content}" for key, title, content in parts if content)
    title = html.escape(f"Dataset doctor · {name}")
    return (f"<!doctype html><html lang=en><head><meta charset=utf-8>"
            f"<meta name=viewport content='width=device-width, initial-scale=1'><title>{title}</title>"
            f"<link rel=icon href='data:,'><style>{STYLE}</style></head><body>"
            f"<header><h1>{html.escape(name)}</h1><p class=quiet>{html.escape(facts)}</p>{_tiles(examination)}"
            f"<nav>{links}{_verdict(examination)}</nav></header>{body}</body></html>\n")


def _verdict(examination: Examination) -> str:
    """How many kinds of each severity were found, as links to them."""
    counts = [(severity, examination.findings.num_kinds(severity)) for severity in SEVERITIES]
    return "".join(f"<a class='chip {severity}' href='#findings'>{count} kind{'s' * (count != 1)} of {severity}</a>"
                   for severity, count in counts if count)


def _tiles(examination: Examination) -> str:
    portrait = examination.portrait
    num_objects = sum(statistics.num_objects for statistics in examination.counted.values())
    num_images = examination.num_images
    splits = ", ".join(f"{name} {statistics.num_images:,}" for name, statistics in examination.counted.items())
    tiles = [(f"{num_images:,}", "images", splits),
             (f"{num_objects:,}", "objects", f"{num_objects / max(num_images, 1):.1f} per image"),
             (f"{len(examination.manifest.classes):,}", "classes",
              f"{len(common_classes(examination.manifest)):,} with objects"
              if len(examination.manifest.classes) <= 24 else ""),
             (f"{portrait.objects_per_image[0]:,}", "images without objects",
              f"{portrait.objects_per_image[0] / max(num_images, 1):.1%}")]
    if portrait.smallest_hw:
        (low_h, low_w), (high_h, high_w) = portrait.smallest_hw, portrait.largest_hw
        width, height = (str(low) if low == high else f"{low}–{high}" for low, high in (
            (low_w, high_w), (low_h, high_h)))
        tiles.append((f"{width} × {height}", "px, width × height", ""))
    return "<div class=tiles>" + "".join(
        f"<div><b>{value}</b><span>{unit}</span><small>{html.escape(detail)}</small></div>"
        for value, unit, detail in tiles) + "</div>"


# --- charts ---------------------------------------------------------------------------------------------


def _charts(portrait: Portrait) -> str:
    halves = [(position * GRID, text) for position, text in ((0, "0"), (.25, "¼"), (.5, "½"), (.75, "¾"), (1, "1"))]
    step = GRID // OCTAVES
    powers = [(step * octave, f"1/{2 ** (OCTAVES - octave)}" if octave < OCTAVES else "1") for octave in range(0, 9, 2)]
    sides = [((octave - SIDE_OCTAVES[0]) * BINS_PER_OCTAVE, short_px(2 ** octave)) for octave in range(4, 15, 2)]
    flip = [(len(portrait.image_sizes) - position, text) for position, text in sides]
    areas = [(2 * octave, f"1/{short_px(2 ** (AREA_OCTAVES - octave))}" if octave < AREA_OCTAVES else "1")
             for octave in range(0, AREA_OCTAVES + 1, 4)]
    area_names = [f"up to {2 ** ((bin_ + 1) / 2 - AREA_OCTAVES):.3g} of the image"
                  for bin_ in range(len(portrait.areas))]
    ratios = [2 ** (bin_ / BINS_PER_OCTAVE - ASPECT_OCTAVES) for bin_ in range(len(portrait.aspects))]
    aspects = [(BINS_PER_OCTAVE * (octave + ASPECT_OCTAVES) + .5, f"{2 ** octave}:1" if octave >= 0 else f"1:{2 ** -octave}")
               for octave in range(-ASPECT_OCTAVES, ASPECT_OCTAVES + 1, 2)]
    charts = [
        ("Where boxes lie", "centres, as shares of the image's width and height",
         heat_map(portrait.centres, halves, halves, "centres of boxes")),
        ("How large boxes are", "width across, height up, as shares of the image's",
         heat_map(portrait.sizes[::-1], powers, [(GRID - position, text) for position, text in powers],
                  "width and height of boxes")),
        ("How large images are", "width across, height up, in pixels",
         heat_map(portrait.image_sizes[::-1], sides, flip, "width and height of images")),
        ("Area of boxes", f"share of the image; the median is {_median(portrait.areas, area_names)}",
         histogram(portrait.areas.tolist(), area_names, areas, "relative areas")),
        ("Shape of boxes", "width : height", histogram(
            portrait.aspects.tolist(), [f"{ratio:.2f} : 1" for ratio in ratios], aspects, "aspect ratios")),
        ("Objects in an image", _objects_in_words(portrait), histogram(
            *binned(portrait.objects_per_image), "objects per image")),
    ]
    return "<div class=charts>" + "".join(
        f"<figure class=card><h3>{title}</h3><p class=quiet>{html.escape(text)}</p>{chart}</figure>"
        for title, text, chart in charts) + "</div>"


def short_px(value: int) -> str:
    """A power of two as people write it: 512, 4k."""
    return str(value) if value < 1024 else f"{value // 1024}k"


def _median(counts: np.ndarray, names: list[str]) -> str:
    total = int(counts.sum())
    return names[int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))] if total else "unknown: there are none"


def _objects_in_words(portrait: Portrait) -> str:
    counts = sorted(portrait.objects_per_image.items())
    total = sum(images for _, images in counts)
    median = counts[int(np.searchsorted(np.cumsum([images for _, images in counts]), (total + 1) // 2))][0]
    return f"images by their number of objects; median {median}, at most {counts[-1][0]}"


# --- classes --------------------------------------------------------------------------------------------


def _classes(examination: Examination) -> str:
    """A row per class, most frequent first, with a bar per split: its share of the split's most frequent class."""
    splits, classes = examination.counted, examination.manifest.classes
    totals_ = [sum(statistics.objects_per_class[label] for statistics in splits.values()
                   if label < len(statistics.objects_per_class)) for label in range(len(classes))]
    order = sorted(range(len(classes)), key=lambda label: -totals_[label])
    rows = []
    for label in order[:MAX_CLASSES]:
        bars = "".join(_bar(number, statistics.objects_per_class[label], max(statistics.objects_per_class), name)
                       for number, (name, statistics) in enumerate(splits.items()))
        rows.append(f"<li><b>{html.escape(classes[label])}</b><div>{bars}</div>")
    legend = "".join(f"<span><i class=s{number % 4}></i>{html.escape(name)}: {statistics.num_images:,} images, "
                     f"{statistics.num_objects:,} objects</span>"
                     for number, (name, statistics) in enumerate(splits.items()))
    left = len(classes) - MAX_CLASSES
    more = f"<p class=quiet>and {left:,} more, in the JSON</p>" if left > 0 else ""
    return f"<div class=card><p class=legend>{legend}</p><ul class=classes>{''.join(rows)}</ul>{more}</div>"


def _bar(number: int, count: int, most: int, split: str) -> str:
    return (f"<p title='{html.escape(split, quote=True)}'><i class=s{number % 4} "
            f"style='width:{75 * count / max(most, 1):.2f}%'></i>{count:,}</p>")


def _together(examination: Examination) -> str:
    """Which classes occur in one image."""
    names = [examination.manifest.classes[label] for label in common_classes(examination.manifest)]
    counts = examination.portrait.together
    if len(names) < 2 or counts.shape != (len(names),) * 2:
        return ""
    which = f"the {len(names)} most frequent classes" if len(names) < len(examination.manifest.classes) else "all classes"
    return (f"<figure class=card><h3>Classes that occur together</h3><p class=quiet>Of the images with the row's class, "
            f"how many percent hold the column's, too; {which}</p><div class=wide>"
            f"{matrix(counts, names, 'co-occurrence of classes')}</div></figure>")


# --- images, losses, findings ---------------------------------------------------------------------------


def _galleries(portrait: Portrait, pictures: Pictures) -> str:
    """A row of pictures for each choice; the budget is spent evenly, in turns."""
    chosen = {choice: portrait.picks[choice] for choice in CHOICES if choice in portrait.picks}
    shown: dict[str, list[str]] = {choice: [] for choice in chosen}
    for turn in range(max(map(len, chosen.values()), default=0)):
        for choice, picks in chosen.items():
            if turn < len(picks) and (drawn := pictures.of(picks[turn][1], GALLERY_PX, crop=choice == "smallest box")):
                case = picks[turn][1]
                detail = f"<b>{html.escape(case.detail)}</b> " if case.detail else ""
                shown[choice].append(f"<figure>{drawn}<figcaption>{detail}{html.escape(case.split)} · "
                                     f"{html.escape(case.file_name)}</figcaption></figure>")
    return "".join(f"<h3>{html.escape(CHOICES[choice])}</h3><div class=gallery>{''.join(figures)}</div>"
                   for choice, figures in shown.items() if figures)


def _losses(examination: Examination) -> str:
    found = recorded(examination.manifest)
    if not found:
        return ""
    rows = "".join(f"<tr><td class=number>{loss.count:,}<td>{html.escape(loss.dropped or 'nothing')}"
                   f"<td>{html.escape(loss.reason)}<td class=quiet>{html.escape(loss.example)}" for loss in found)
    return (f"<div class='card wide'><p>{html.escape(totals(found))}. All are listed in <code>"
            f"{html.escape(examination.uri)}/{DROPPED}</code>.</p><table class=losses><tr><th class=number>count"
            f"<th>dropped<th>reason<th>example{rows}</table></div>")


def _section(finding: Finding, pictures: Pictures) -> str:
    definition = finding.definition
    per_split = ", ".join(f"{split} {count:,}" for split, count in finding.counts.items())
    cases = "".join(f"<figure>{pictures.of(case)}<figcaption>{html.escape(str(case))}</figcaption></figure>"
                    for case in finding.examples)
    return (f"<section class={definition.severity}><h3><b>{definition.severity}</b> · {finding.count:,} × "
            f"{html.escape(finding.kind)} <span class=quiet>({html.escape(per_split)})</span></h3>"
            f"<p>{html.escape(definition.remedy)}</p><div class=cases>{cases}</div></section>")
