"""OpenImages CSV: a row for each box, with fractions of the image; class-descriptions*.csv names the classes.

IsGroupOf is a crowd. The other flags, and Source, are not used: a depiction or an object seen from the inside is an
object. Rows of Confidence 0 say that the class was verified to be absent, and are counted; every other row is used.
Classes are sorted by their names; labels without a description keep their id.
"""

from ....errors import JobError
from ...files.listing import Listing
from ..item import RawSource
from ..objects import Problem
from .boxes import Boxes, Folder, joined
from .delimited import OPEN_IMAGES, SUFFIXES, first_cells, is_open_images, numbers, plain, read_table, rows
from .splits import by_split


def evidence(listing: Listing) -> list[str]:
    """Tables of boxes."""
    return [path for path in listing.probes(*SUFFIXES) if is_open_images(first_cells(listing.start(path)))]


def read(spec) -> RawSource:
    """Read all tables; JobError where there is none."""
    folder, listing = Folder(spec.uri), Listing(spec.uri)
    splits = spec.splits or by_split(evidence(listing))
    if not splits:
        raise JobError("source.uri", f"no table of OpenImages' boxes is at {spec.uri}",
                       f"its header names {', '.join(OPEN_IMAGES)}, and IsGroupOf or Confidence")
    texts = {split: read_table(spec.uri, path) for split, path in splits.items()}
    described, digests = _descriptions(spec.uri, listing)
    occurring = {row["labelname"] for split, (text, _) in texts.items() for _, row in _rows(text, splits[split])}
    names = spec.classes or sorted({described.get(label, label) for label in occurring if label})
    label_of = {name: index for index, name in enumerate(names)}
    tables = {split: (splits[split], _boxes(text, splits[split], described, label_of))
              for split, (text, _) in texts.items()}
    return joined(folder, names, tables, [*(digest for _, digest in texts.values()), *digests], names_have_suffix=False)


def _rows(text: str, path: str):
    table = rows(text)
    _, header = next(table, (0, []))
    if not is_open_images(header):
        raise JobError(path, f"is no table of OpenImages' boxes: {', '.join(header)}", "check source.splits")
    names = [plain(name) for name in header]
    for line, cells in table:
        yield line, dict(zip(names, cells + [""] * (len(names) - len(cells))))


def _boxes(text: str, path: str, described: dict[str, str], label_of: dict[str, int]) -> Boxes:
    boxes = Boxes(relative=True)
    for line, row in _rows(text, path):
        where = f"{path} line {line}"
        if not row["imageid"]:
            boxes.tell("row without an image name", where)
            continue
        image, box = boxes.image(row["imageid"]), numbers([row[name] for name in OPEN_IMAGES[2:]])
        name = described.get(row["labelname"], row["labelname"])
        if box is None:
            continue
        if box is False:
            boxes.add_problem(image, Problem("box is no four numbers", where))
        elif row.get("confidence") in ("0", "0.0"):
            boxes.tell("row of a class that is absent (Confidence 0)", where)
        elif max(map(abs, box)) > 2:
            boxes.add_problem(image, Problem("box is no fraction of the image", where))
        elif name not in label_of:
            boxes.add_problem(image, Problem("unknown class", f"'{name}' in {where}"))
        else:
            boxes.add(image, label_of[name], box, row.get("isgroupof", "").lower() in ("1", "true"), where)
    return boxes


def _descriptions(uri: str, listing: Listing) -> tuple[dict[str, str], list[str]]:
    """Label -> name, of class-descriptions*.csv, and the digest of each."""
    named: dict[str, str] = {}
    digests = []
    for path in listing.files:
        if "class-descriptions" in path.rpartition("/")[2] and path.lower().endswith(".csv"):
            text, digest = read_table(uri, path)
            digests.append(digest)
            for _, cells in rows(text):
                if len(cells) == 2 and plain(cells[0]) != "labelname":
                    named[cells[0]] = cells[1]
    return named, digests
