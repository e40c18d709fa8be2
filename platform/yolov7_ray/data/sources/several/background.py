"""Images without objects: every picture of a folder is a negative, there is nothing to label."""

from .... import storage
from ....errors import JobError
from ...files.split_names import in_order
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..annotation_tools.splits import split_of
from ..item import FileItem, RawSource, left_aside, problem_record, unreadable
from ..objects import Objects

NOTHING = Objects.of([])


def read(spec) -> RawSource:
    """One listing; `spec.split`, else directories called train, val or test, else train; JobError without images."""
    items, problems, others = {}, {}, []
    for info in sorted(storage.list_files(spec.uri), key=lambda info: info.path):
        split = spec.split or split_of([info.path], "", None)
        if info.path.lower().endswith(IMAGE_SUFFIXES):
            of_split = items.setdefault(split, [])
            of_split.append(FileItem(image_id=len(of_split), file_name=info.path, num_bytes=info.num_bytes,
                                     mark=info.mark, uri=storage.join(spec.uri, info.path), objects=NOTHING))
        elif info.path.lower().endswith(OTHER_PICTURES):
            problems.setdefault(split, []).append(problem_record(split, unreadable(info.path), info.path))
        else:
            others.append(info.path)
    if not items:
        raise JobError("source.uri", f"there are no images at {spec.uri}", "set it to a folder of images")
    problems.setdefault(next(iter(items)), []).extend(left_aside(others))
    return RawSource((), (), {split: items[split] for split in in_order(sorted(items))}, problems)
