"""Parts of a page that say how good a model is: figures, thresholds, classes, confusion, images."""

import html
from collections.abc import Sequence

import numpy as np

from yolov7.evaluation.metrics import CONFUSION_CONFIDENCE, CONFUSION_IOU, Metrics
from yolov7.evaluation.mistakes import MISTAKES
from yolov7.evaluation.operating_point import CONFIDENCES

from ...jobs.page.document import Part, Tile
from .charts import embedded, legend, place_data, rounded, unit_chart
from .pictures import Gallery

MAX_CONFUSED = 30
"""Classes in the confusion matrix: of more, those that are confused most."""
SIZES = (("ap_small", "small", "under 32² px"), ("ap_medium", "medium", "32² to 96² px"), ("ap_large", "large", "above 96² px"))


def share(value: float | None, digits: int = 3) -> str:
    """A share of 1, or – where it is undefined."""
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def tiles(metrics: Metrics, remark: str = "") -> list[Tile]:
    """Headline figures of one evaluation."""
    best = metrics.operating.at_best()
    return [(share(metrics.ap), "AP", remark), (share(metrics.ap50), "AP50", remark), (share(metrics.ap75), "AP75", remark),
            (share(best["f1"]), "F1", f"precision {share(best['precision'])}, recall {share(best['recall'])} at confidence "
                                      f"{best['confidence']:.2f}")]


def parts(metrics: Metrics, class_names: Sequence[str], gallery: Gallery | None, remark: str = "") -> list[Part]:
    """What one evaluation found; ``remark`` says of which model the images are."""
    return [("confidence-part", "Confidence", confidence_part(metrics, class_names)),
            ("classes", "Classes", classes_part(metrics)),
            ("confusion", "Confusion", confusion_part(metrics.confusion, class_names)),
            ("images", "Images", images_part(gallery, class_names, metrics.num_images, remark) if gallery else "")]


def confidence_part(metrics: Metrics, class_names: Sequence[str]) -> str:
    """Precision, recall and F1 over a slider, for all classes or one; empty where there is no object."""
    curves, best = metrics.operating, metrics.operating.best
    known = [label for label in range(len(class_names)) if not np.isnan(curves.recall[label]).any()]
    if not known:
        return ""
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(curves.precision[known], nan=0.0).mean(axis=0)
        precision[np.isnan(curves.precision[known]).all(axis=0)] = np.nan
    drawn = [{"precision": rounded(precision), "recall": rounded(curves.recall[known].mean(axis=0)),
              "f1": rounded(curves.f1[known].mean(axis=0))}]
    drawn += [{"precision": rounded(curves.precision[label]), "recall": rounded(curves.recall[label]),
               "f1": rounded(curves.f1[label])} for label in known]
    options = "".join(f"<option value={number}>{html.escape(name)}</option>" for number, name in enumerate(
        ["all classes", *(class_names[label] for label in known)]))
    controls = (
        f"<div class=controls><label>confidence <input type=range id=confidence min=0 max={len(CONFIDENCES) - 1} "
        f"value={best}><output id=confidence-value>{CONFIDENCES[best]:.2f}</output></label>"
        f"<button type=button id=to-best>best: {CONFIDENCES[best]:.2f}</button>"
        f"<label>class <select id=curve-class>{options}</select></label></div>")
    cards = [("Over the confidence", "Detections below the confidence are left out; dashed: the best mean F1", legend(
        ["precision", "recall", "F1"]) + unit_chart("confidence", ("confidence", "precision, recall, F1"))),
        ("Precision and recall", "Precision up, recall across; the point is where the slider stands",
         unit_chart("pr", ("recall", "precision")))]
    charts = "".join(f"<figure class=card><h3>{title}</h3><p class=quiet>{text}</p>{chart}</figure>" for title, text, chart in cards)
    return (f"{controls}<p id=operating-values class=values></p><div class=charts>{charts}</div>"
            + embedded("operating", {"classes": drawn, "best": best, "area": place_data()}))


def classes_part(metrics: Metrics) -> str:
    """A row for each class; a click on a head sorts."""
    best = metrics.operating.best
    heads = ["class", "objects", "AP", "AP50", "precision", "recall", "F1", "best at"]
    rows = []
    for label, (name, of_class) in enumerate(metrics.per_class.items()):
        at_best = [float(values[label, best]) for values in
                   (metrics.operating.precision, metrics.operating.recall, metrics.operating.f1)]
        figures = [of_class.ap, of_class.ap50, *at_best, of_class.confidence]
        cells = "".join(_cell(value) for value in figures)
        rows.append(f"<tr><td>{html.escape(name)}<td class=number data-value={of_class.num_truth}>{of_class.num_truth:,}{cells}")
    head = "".join(f"<th{' class=number' * bool(number)}><button type=button>{text}</button>"
                   for number, text in enumerate(heads))
    sizes = " · ".join(f"{name} ({text}) {share(getattr(metrics, key))}" for key, name, text in SIZES)
    return (f"<div class='card wide'><p class=quiet>Precision, recall and F1 at IoU 0.5 and confidence "
            f"{CONFIDENCES[best]:.2f}; best at: where the class alone has its best F1. AP by size of the objects: {sizes}</p>"
            f"<table class='plain classes'><thead><tr>{head}<tbody>{''.join(rows)}</table></div>")


def confusion_part(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """True class in rows, found class in columns; a click on a cell chooses its images."""
    background = len(class_names)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    by_confusion = np.argsort(-(wrong[:-1].sum(axis=1) + wrong[:, :-1].sum(axis=0)), kind="stable")
    shown = [*sorted(by_confusion[:MAX_CONFUSED].tolist()), background]
    names = [*class_names, "background"]
    labels = [name if len(name) <= 16 else name[:15] + "…" for name in (names[label] for label in shown)]
    side, margin = min(44, max(22, 640 // len(shown))), 14 + 6.3 * max(map(len, labels))
    totals, cells = np.maximum(counts.sum(axis=1), 1), []
    for (row, true), (column, found) in ((one, other) for one in enumerate(shown) for other in enumerate(shown)):
        if count := int(counts[true, found]):
            part, x, y = count / totals[true], margin + column * side, margin + row * side
            tip = f"{count:,} × {names[true]} found as {names[found]}, {part:.0%} of its row"
            number = f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
            cells.append(f"<g data-pair='{true}>{found}'><title>{html.escape(tip)}</title><rect class='cell{' off' * (true != found)}' "
                         f"x={x:.1f} y={y:.1f} width={side} height={side} fill-opacity={max(.04, part):.2f} />"
                         f"<text class={'in' if part > .6 else 'on'} x={x + side / 2:.1f} y={y + side / 2 + 4:.1f} "
                         f"text-anchor=middle>{number}</text></g>")
    down = "".join(f"<text x={margin - 6:.1f} y={margin + (i + .5) * side + 4:.1f} text-anchor=end>{html.escape(name)}</text>"
                   for i, name in enumerate(labels))
    across = "".join(f"<text transform='translate({margin + (i + .5) * side + 4:.1f} {margin - 6:.1f}) rotate(-90)'>"
                     f"{html.escape(name)}</text>" for i, name in enumerate(labels))
    whole = margin + len(shown) * side + 2
    which = "" if len(shown) > len(class_names) else f"; the {MAX_CONFUSED} classes that are confused most"
    return (f"<figure class=card><p class=quiet>True class in rows, found class in columns, at confidence {CONFUSION_CONFIDENCE} "
            f"and IoU {CONFUSION_IOU}{which}. Row background: false; column background: missed. A click on a cell chooses its "
            f"images below.</p><div class=wide><svg class=confusion viewBox='0 0 {whole:.0f} {whole:.0f}' width={whole:.0f} "
            f"role=img><title>confusion matrix</title><rect class=frame x={margin:.1f} y={margin:.1f} "
            f"width={len(shown) * side} height={len(shown) * side} />{''.join(cells)}{down}{across}</svg></div></figure>")


def images_part(gallery: Gallery, class_names: Sequence[str], num_images: int, remark: str = "") -> str:
    """The worst images, what their colours mean, and what to choose them by."""
    total = gallery.counts.total()
    counted = ", ".join(f"{gallery.counts[kind]:,} {kind}" for kind in MISTAKES if gallery.counts[kind]) or "no mistake"
    looked = f"{gallery.num_images:,} of {num_images:,} images" if gallery.num_images < num_images else f"{num_images:,} images"
    text = (f"<p class=quiet>{counted} in {looked} at confidence {gallery.confidence:.2f}{', ' * bool(remark)}{html.escape(remark)}. "
            f"Left: the objects, right: what was found; the worst image first.</p>")
    if not gallery.figures:
        return f"<div class=card>{text}</div>" if total == 0 else ""
    kinds = "".join(f"<option>{kind}</option>" for kind in MISTAKES if gallery.counts[kind])
    labels = "".join(f"<option value={label}>{html.escape(class_names[label])}</option>" for label in gallery.classes)
    legend_ = "<p class=legend>" + "".join(f"<span><i class={name}></i>{text}</span>" for name, text in (
        ("right", "right"), ("missed", "missed, false"), ("confused", "wrong class"), ("placed", "badly placed"),
        ("duplicate", "duplicate"), ("ignored", "does not count"))) + "</p>"
    return (f"{text}{legend_}<div class=controls><label>mistake <select id=case-kind><option value=''>any</option>{kinds}</select></label>"
            f"<label>class <select id=case-class><option value=''>any</option>{labels}</select></label>"
            f"<button type=button id=case-all hidden>show all</button><span class=quiet id=case-count></span></div>"
            f"<div class=cases>{''.join(gallery.figures)}</div>")


def _cell(value: float | None) -> str:
    known = value is not None and not np.isnan(value)
    return f"<td class=number data-value='{value if known else ''}'>{share(value)}"
