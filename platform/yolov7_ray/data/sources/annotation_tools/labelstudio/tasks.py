"""Label Studio's exports JSON, JSON_MIN and CSV: tasks whose regions are in percent of the image.

Of several annotations of a task, the one marked as ground truth counts, else the first that was not cancelled.
Predictions, keypoints, choices and texts are left aside and counted. A task without annotations is an image without
objects. A row of CSV is a task of JSON_MIN, with JSON in its cells.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..... import storage
from .....errors import JobError
from ....files.listing import Listing
from ....files.resolver import plain_parts
from ....files.split_names import split_within
from ....files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ...item import RawSource
from ...tables.delimited import SUFFIXES as TABLES
from ...tables.delimited import first_cells, rows
from ..entries import Entry, each_file, stem_of
from ..raw_source import source_of
from ..regions import Regions
from .results import ASIDE, add_region, labels_of, value_of

SEVERAL = "several annotations of a task: that of the ground truth, else the first, taken"
CANCELLED = "annotation that was cancelled, left aside"
SKIPPED = "task that was skipped, left aside"
BARE = "task without annotations, taken as an image without objects"
MIN_KEYS = {"annotation_id", "annotator", "lead_time", "completed_at"}
_TASKS = re.compile(r'^\s*\[\s*\{.*("(annotation_id|annotator|[a-z]+labels)"\s*:|"data"\s*:\s*\{)', re.DOTALL)
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio writes before the name of an uploaded file."""


def evidence(listing: Listing) -> list[str]:
    """JSON files that are lists of tasks, and tables of tasks."""
    return [path for path in listing.probes(".json") if _TASKS.match(listing.start(path))] + [
        path for path in listing.probes(*TABLES) if _is_table(first_cells(listing.start(path)))]


def _is_table(cells: list[str]) -> bool:
    return "annotation_id" in cells or {"annotator", "lead_time"} <= set(cells)


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, all labels that occur, sorted."""
    listing = Listing(spec.uri)
    paths = sorted(path for path in listing.files if path.lower().endswith((".json", *TABLES)))
    return source_of(spec, listing, each_file(listing, paths, partial(_entries, listing.uri)))


def _entries(uri: str, path: str, text: str) -> Iterator[Entry]:
    try:
        tasks = json.loads(text) if path.lower().endswith(".json") else list(_rows(text))
    except json.JSONDecodeError as error:
        raise JobError(storage.join(uri, path), f"is not JSON ({error})", "export it from Label Studio again") from None
    if not tasks and not path.lower().endswith(".json"):
        yield Entry(path=path, aside="table of another kind, left aside")
        return
    seen = set()
    tasks = tasks if isinstance(tasks, list) else [tasks]  # storages hold one task a file
    if not all(isinstance(task, dict) and (task.keys() & {"data", *MIN_KEYS} or _regions_in(task)) for task in tasks):
        yield Entry(path=path, aside="JSON file of another kind, left aside")
        return
    for task in tasks:
        is_again = not isinstance(task.get("data"), dict) and "id" in task and str(task["id"]) in seen
        seen.add(str(task.get("id")))
        yield _entry(path, task, SEVERAL if is_again else "")


def _rows(text: str) -> Iterator[dict]:
    """The tasks in a table; none where it is another one."""
    table = rows(text)
    header = next(table, (0, []))[1]
    for _, cells in table if _is_table(header) else ():
        yield {name: json.loads(cell) if cell[:1] in ("[", "{") else cell for name, cell in zip(header, cells)}


def _entry(path: str, task: dict, aside: str) -> Entry:
    regions = Regions()
    results = _results(task, regions.notes)
    names, beside = _names(task)
    common = dict(path=path, names=names, beside=beside, subset=split_within(stem_of(path)) or "")
    if aside or results is None:
        return Entry(aside=aside or SKIPPED, **common)
    sizes = ((result.get("original_height"), result.get("original_width")) for result in results)
    declared_hw = next((size for size in sizes if all(isinstance(side, int) and side > 0 for side in size)), None)
    labelled = {str(result["id"]) for result in results if "id" in result and labels_of(value_of(result))}
    for result in results:
        if labels_of(value_of(result)) or str(result.get("id")) not in labelled:
            add_region(regions, result, declared_hw)
    task_id = task.get("id")
    return Entry(objects=regions.objects, notes=regions.notes, declared_hw=declared_hw, relative=declared_hw is None,
                 image_id=task_id if isinstance(task_id, int) and 0 <= task_id < 1 << 62 else None,
                 mark=storage.digest(json.dumps(results, sort_keys=True).encode())[:16], **common)


def _names(task: dict) -> tuple[list[str], list[str]]:
    """Where the image may lie as the task says, and what it may be called beside the annotations."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    parts = {value: plain_parts(value)[0] for value in texts.values()}
    pictures = [value for value in texts.values()
                if parts[value] and parts[value][-1].lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)]
    name = next(iter([*pictures, *filter(None, [texts.get("image"), texts.get("video")]), *texts.values()]), "")
    if not parts.get(name):
        return [name], []
    base = parts[name][-1]
    is_upload = "/upload/" in name
    return [name, *([base] if is_upload else [])], [base, *([_UPLOADED.sub("", base)] if is_upload else [])]


def _results(task: dict, notes: list[str]) -> list[dict] | None:
    """The regions and other results of the annotation that counts; None if the task was skipped."""
    notes += ["prediction, left aside"] * len(_mappings(task.get("predictions")))
    if not isinstance(task.get("data"), dict):
        return _regions_in(task)
    annotations = _mappings(task.get("annotations") or task.get("completions"))
    kept = [entry for entry in annotations if not entry.get("was_cancelled")]
    if annotations and not kept:
        return None
    notes += [SEVERAL] * (len(kept) > 1) + [BARE] * (not kept) + [CANCELLED] * (len(annotations) - len(kept))
    chosen = max(kept, key=lambda entry: bool(entry.get("ground_truth")), default={})
    return _mappings(chosen.get("result"))


def _mappings(entries: Any) -> list[dict]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _regions_in(task: dict) -> list[dict]:
    """The regions of a task of JSON_MIN, which stand beside its data."""
    return [region for value in task.values() for region in _mappings(value)
            if labels_of(region) or region.keys() & {"x", "points", *ASIDE}]
