"""All images through the workers, in order: many at once with Ray Data, and one by one where a worker was lost.

A lost worker may have been reclaimed, or one of its images may have killed it, as a decoder that crashes does. Nobody
can tell from outside, so the images that it had are given to a worker one at a time: the one with which it ends again
is listed and left out. The rest then goes on at once.
"""

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray.data
import ray.exceptions
from ray.util.annotations import RayDeprecationWarning

from ..errors import JobError
from ..registry.model_source import ModelSource
from .images import Images
from .predictor import RESULT, Predictor, problem_row
from .spec import PredictSpec

BATCHES_PER_BLOCK = 8
"""Batches that an actor gets at once, so that it can read ahead."""
BLOCKS_IN_FLIGHT = 2
"""Blocks that an actor has at once: one that it processes, and the next."""
ALONE_TIMEOUT_S = 600.0
"""How long one image alone may take, the start of its worker included."""
ENDED = "ended the worker that processed it, also alone"


def results(images: Images, source: ModelSource, spec: PredictSpec) -> Iterator[pa.Table]:
    """Tables of RESULT in the order of the images, each image once. JobError after too many lost workers."""
    lone, done = _LoneWorker(images, source, spec), 0
    while done < len(images):
        suspects_end = min(len(images), done + _block_rows(spec, len(images) - done) * _blocks_in_flight(spec))
        try:
            for table in _at_once(images, source, spec, done):
                first = table["index"][0].as_py()
                if first != done:  # a block failed, and what follows it is here already
                    suspects_end = first
                    break
                done += table.num_rows
                suspects_end = min(len(images), suspects_end + table.num_rows)
                yield table
        except ray.exceptions.RayError as error:
            _raise_cause(error)
            if spec.resources.max_failures == 0:
                raise _too_many(0) from error
        if done < len(images):
            print(f"predict: a worker was lost; images {done + 1} to {suspects_end} go one by one", flush=True)
            for index in range(done, suspects_end):
                yield lone.answer(index)
            lone.release()
            done = suspects_end


def _num_workers(spec: PredictSpec, num_images: int) -> int:
    return min(spec.resources.workers, -(-num_images // spec.batch_size))


def _block_rows(spec: PredictSpec, num_images: int) -> int:
    """Images of a block: some batches, but every worker gets some."""
    return min(spec.batch_size * BATCHES_PER_BLOCK, -(-num_images // _num_workers(spec, num_images)))


def _blocks_in_flight(spec: PredictSpec) -> int:
    return spec.resources.workers * BLOCKS_IN_FLIGHT


def _at_once(images: Images, source: ModelSource, spec: PredictSpec, first: int) -> Iterator[pa.Table]:
    """Tables of RESULT from image `first` on, in order; those of up to `max_failures` failed blocks are missing.

    RayError after more, or if a worker cannot start.
    """
    num_images, total = len(images) - first, len(images)
    rows, failures = _block_rows(spec, num_images), spec.resources.max_failures
    # Blocks in memory: reading them needs no task, hence no CPU, since the actors may hold all CPUs.
    blocks = [pa.table({"index": np.arange(start, min(start + rows, total))}) for start in range(first, total, rows)]
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # progress and losses are printed here, in one line
    dataset = ray.data.from_arrow(blocks)
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    dataset.context.max_errored_blocks = failures
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of the two options without a name of their own
        dataset = dataset.map_batches(
            Predictor, batch_size=None, batch_format="pyarrow", fn_constructor_args=(images, source, spec),
            compute=ray.data.ActorPoolStrategy(size=_num_workers(spec, num_images),
                                               max_tasks_in_flight_per_actor=BLOCKS_IN_FLIGHT),
            num_cpus=spec.resources.cpus_per_worker, num_gpus=spec.resources.gpus_per_worker or None,
            max_restarts=failures, max_task_retries=0)  # Ray Data's own default is to retry without end
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if table.num_rows:
            yield table


class _LoneWorker:
    """A worker that has one image at a time, started when it is needed and replaced when it ends."""

    def __init__(self, images: Images, source: ModelSource, spec: PredictSpec):
        self.images, self.spec = images, spec
        self._new = lambda: ray.remote(Predictor).options(
            num_cpus=spec.resources.cpus_per_worker, num_gpus=spec.resources.gpus_per_worker, max_restarts=0,
        ).remote(images, source, spec)
        self._actor: ray.actor.ActorHandle | None = None
        self._ended_in_a_row = 0

    def answer(self, index: int) -> pa.Table:
        """RESULT of one image; that it ended its worker is an answer, too.

        JobError after more than `max_failures` of these in a row: then it is not the images.
        """
        self._actor = self._actor or self._new()
        try:
            table = ray.get(self._actor.alone.remote(index), timeout=ALONE_TIMEOUT_S)
            self._ended_in_a_row = 0
            return table
        except (ray.exceptions.RayError, TimeoutError) as error:
            _raise_cause(error)
            if isinstance(error, ray.exceptions.RayTaskError):
                raise  # a fault of this code, not of the worker
            self.release()
            self._ended_in_a_row += 1
            if 0 <= self.spec.resources.max_failures < self._ended_in_a_row:
                raise _too_many(self.spec.resources.max_failures) from error
        row = problem_row(index, f"{self.images.file_name(index)}: {ENDED}")
        return pa.Table.from_pylist([row], schema=RESULT)

    def release(self) -> None:
        """End the worker, so that its CPUs and GPUs are free."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None


def _raise_cause(error: Exception) -> None:
    """Raise the JobError that a worker met, if that is what happened."""
    cause = getattr(error, "cause", None)
    while cause is not None and not isinstance(cause, JobError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    if cause is not None:
        raise cause from None


def _too_many(max_failures: int) -> JobError:
    return JobError("resources.max_failures", f"more than {max_failures} images or workers failed in a row",
                    "see the workers' logs; memory that runs out is the usual reason (fewer workers or a smaller "
                    "batch_size), or raise max_failures")
