"""A run's checkpoints: each is complete in storage or absent; a run resumes from the newest complete one.

``<run>/checkpoint-epoch-0002-step-000120/`` holds what `yolov7.training.state.Snapshot` wrote, the spec and
``checkpoint.json`` with the digest of every file. That record is written last; without it there is no checkpoint.
Training continues while a snapshot is written and uploaded, one at a time.
"""

import json
import re
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from yolov7.training.state import Snapshot, TrainState

from .. import storage
from ..errors import Corrupt, JobError, NotFound, StorageError

RECORD = "checkpoint.json"
PREFIX = "checkpoint-epoch-"
NAME = re.compile(PREFIX + r"\d+(-step-\d+)?")
KEEP_NEWEST = 2
"""A fallback exists if the newest is damaged."""
UNEVALUATED = -1.0
"""Score of a checkpoint whose epoch was not evaluated."""


def checkpoint_name(epoch: int, step: int = 0) -> str:
    """Directory of the checkpoint after ``epoch`` epochs and ``step`` steps; `place_in_order` sorts them."""
    return f"{PREFIX}{epoch:04d}" + (f"-step-{step:06d}" if step else "")


def place_in_order(name: str) -> tuple[int, int]:
    """Epochs and steps of a checkpoint's name: the order of writing, which that of text is only to epoch 9999."""
    epoch, _, step = name.removeprefix(PREFIX).partition("-step-")
    return int(epoch), int(step or 0)


class Checkpoints:
    """The checkpoints of one run; rank 0 writes them, every rank may read."""

    def __init__(self, run: str, keep_best: int, log: Callable[[str], None] = print,
                 written: Callable[[str, str], None] = lambda run, name: None, kept: str | None = None) -> None:
        """``written(run, name)`` is called, in the writer's thread, after each checkpoint that is complete.

        ``kept``: name of one that stays beside the newest and the best.
        """
        self.run, self.keep_best, self.log, self.written, self.kept = run, keep_best, log, written, kept
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self._scores: dict[str, float] | None = None

    # --- reading ------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the complete checkpoints, oldest first."""
        paths = (info.path for info in storage.list_files(self.run))
        found = (path.split("/")[0] for path in paths if path.endswith("/" + RECORD))
        return sorted((name for name in found if NAME.fullmatch(name)), key=place_in_order)

    def newest(self) -> str | None:
        """Name of the newest complete checkpoint."""
        return max(self.names(), key=place_in_order, default=None)

    def restore(self, state: TrainState, name: str | None = None) -> str | None:
        """Load checkpoint ``name``, by default the newest undamaged one; return its name, None if there is none.

        JobError if all are damaged: a new start would overwrite data that may still be recovered by hand.
        """
        damaged = []
        for candidate in [name] if name else reversed(self.names()):
            with tempfile.TemporaryDirectory(prefix="yolov7-checkpoint-") as temporary:
                try:
                    directory = self._fetch(candidate, temporary)
                except (Corrupt, NotFound) as error:
                    damaged.append(candidate)
                    self.log(f"{candidate} is damaged ({error.problem}); taking the one before")
                    continue
                state.load(directory)
                return candidate
        if damaged:
            raise JobError(f"run {self.run}", f"every checkpoint is damaged: {', '.join(damaged)}",
                           "restore one from a backup, or start a new run")
        return None

    def restore_good(self, state: TrainState, last_good: int) -> str | None:
        """Load the newest checkpoint that was written outside of a row of skipped updates; its name, None: none.

        Preferred is one before the update at position ``last_good``, the last that was finite: its weights gave finite
        losses, those after it perhaps never.
        """
        fallback = None
        for name in reversed(self.names()):
            try:
                self.restore(state, name)
            except StorageError:
                raise
            except JobError:  # damaged
                continue
            if not state.skipped_in_a_row:
                if state.position < last_good:
                    return name
                fallback = fallback or name
        return self.restore(state, fallback) if fallback else None

    def discard_after(self, name: str) -> None:
        """Remove the checkpoints after ``name``: a run that went back to it must not be resumed from them."""
        for known in self.names():
            if place_in_order(known) > place_in_order(name):
                self.remove(known)
                (self._scores or {}).pop(known, None)

    def keep(self, names: Collection[str | None]) -> None:
        """Remove all but these."""
        for name in set(self.names()) - set(names):
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove one checkpoint."""
        storage.delete(storage.join(self.run, name, RECORD))  # first: without its record it no longer counts
        storage.delete(storage.join(self.run, name))

    def _fetch(self, name: str, temporary: str) -> str:
        """Directory with the files of checkpoint ``name``, every one verified: its own, or ``temporary`` from S3."""
        uri = storage.join(self.run, name)
        for file, known in storage.read_json(storage.join(uri, RECORD))["files"].items():
            if storage.is_remote(uri):
                storage.download(storage.join(uri, file), Path(temporary, file), known["sha256"], known["num_bytes"])
            else:
                storage.verify(storage.join(uri, file), known["sha256"])
        return temporary if storage.is_remote(uri) else storage.absolute(uri)

    # --- writing ------------------------------------------------------------------------------------

    @property
    def complete(self) -> set[str]:
        """Names of the complete checkpoints that this process found or wrote and has not pruned."""
        return set(self._complete_scores())

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._pending is not None and not self._pending.done()

    def save(self, snapshot: Snapshot, spec: dict, metrics: dict, score: float = UNEVALUATED) -> None:
        """Write a checkpoint in the background, after any pending one is finished."""
        self.wait(fatal=False)
        name = checkpoint_name(snapshot.epoch, snapshot.step)
        self._pending = self._writer.submit(self._write, name, snapshot, spec, metrics, score)

    def rehearse(self, snapshot: Snapshot, spec: dict) -> None:
        """Write a checkpoint and throw it away; JobError if there is no space for it: training would be for nothing."""
        try:
            with storage.staging(self.run) as directory:
                write_files(directory, snapshot, spec, {})
        except StorageError as error:
            raise JobError(f"run {self.run}", f"a checkpoint cannot be saved ({error})",
                           "training has not started") from error

    def wait(self, fatal: bool = True) -> None:
        """Wait for the pending checkpoint; if it could not be written, raise the error or, unless ``fatal``, log it."""
        if self._pending is None:
            return
        try:
            self._pending.result()
        except (StorageError, OSError) as error:
            if fatal:
                raise
            self.log(f"a checkpoint could not be saved ({error}); training goes on")
        finally:
            self._pending = None

    def _write(self, name: str, snapshot: Snapshot, spec: dict, metrics: dict, score: float) -> None:
        uri = storage.join(self.run, name)
        with storage.staging(self.run) as directory:
            write_files(directory, snapshot, spec, metrics)
            files = {path.name: {"sha256": storage.digest(path), "num_bytes": path.stat().st_size}
                     for path in sorted(Path(directory).iterdir())}
            storage.delete(storage.join(uri, RECORD))  # of an earlier writer of this name: incomplete until rewritten
            storage.publish(directory, uri)
        storage.write_json(storage.join(uri, RECORD), {"score": score, "files": files})
        self.written(self.run, name)
        self._prune(name, score)

    def _prune(self, name: str, score: float) -> None:
        """Remove all but the newest and the best; ties go to the later one."""
        scores = self._complete_scores()
        scores[name] = score
        newest = sorted(scores, key=place_in_order)[-KEEP_NEWEST:]
        epoch_ends = [known for known in scores if "-step-" not in known]
        best = sorted(epoch_ends, key=lambda known: (scores[known], place_in_order(known)))[-self.keep_best:]
        for known in set(scores) - {*newest, *best, self.kept}:
            self.remove(known)
            del scores[known]

    def _complete_scores(self) -> dict[str, float]:
        """Score of every complete checkpoint, read from storage once."""
        if self._scores is None:
            self._scores = {}
            for name in self.names():
                with suppress(Corrupt):  # restore skips it, and the resumed run writes it again
                    self._scores[name] = storage.read_json(storage.join(self.run, name, RECORD))["score"]
        return self._scores


def write_files(directory: str, snapshot: Snapshot, spec: dict, metrics: dict) -> None:
    """Write the files of a checkpoint; StorageError if they cannot be written, whichever library says so."""
    try:
        snapshot.save(directory)
        Path(directory, "spec.json").write_text(json.dumps(spec, indent=1))
        Path(directory, "metrics.json").write_text(json.dumps(metrics, indent=1))
    except (OSError, SafetensorError, RuntimeError) as error:  # safetensors and torch have exceptions of their own
        raise storage.write_failure(error, directory, snapshot.num_bytes) from error
