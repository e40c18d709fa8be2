"""The output directory: new results take the place of earlier ones only when all of them are there."""

import os
from pathlib import Path, PurePosixPath
from typing import Any

from .. import storage
from ..errors import Corrupt, NotFound

SUMMARY = "predictions.json"
FOLDER = "predictions"


def replace(output: str, folder: Path, summary: dict[str, Any]) -> None:
    """Write the files of `folder`, then the summary with `files` added, then remove the earlier run's other files.

    Whatever fails before, the earlier results stay; whatever an earlier summary names, nothing outside the
    directory of results is touched.
    """
    files = [{"path": f"{FOLDER}/{path.relative_to(folder).as_posix()}", "num_bytes": path.stat().st_size,
              "sha256": storage.digest(path)} for path in sorted(folder.rglob("*")) if path.is_file()]
    earlier = earlier_files(output)
    storage.upload_directory(folder, storage.join(output, FOLDER))
    storage.write_json(storage.join(output, SUMMARY), summary | {"files": files})
    for path in earlier - {file["path"] for file in files}:
        storage.delete(storage.join(output, path))


def earlier_files(output: str) -> set[str]:
    """Paths of an earlier run's files by its summary; only those that lie in the directory of results itself."""
    try:
        summary = storage.read_json(storage.join(output, SUMMARY))
        named = {file["path"] for file in summary["files"]}
    except (NotFound, Corrupt, KeyError, TypeError):  # nothing there, or not written by a predict job
        return set()
    return {path for path in named if isinstance(path, str) and _is_own(output, path)}


def _is_own(output: str, path: str) -> bool:
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] != FOLDER or ".." in parts or "\\" in path or path != "/".join(parts):
        return False
    folders = parts[:-1]
    return storage.is_remote(output) or os.path.realpath(os.path.join(output, *folders)) == os.path.join(
        os.path.realpath(output), *folders)
