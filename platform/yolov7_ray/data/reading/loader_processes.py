"""Items made one after the other, in this process or ahead of time in loader processes."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from ...errors import JobError

PREFETCHED_BATCHES = 3
"""Batches that each loader process keeps ready."""
PRELOADED = f"{__package__}.dataset"
"""Imported once, by the fork server: all that makes batches."""


def load(items: Dataset, order: Sequence[int], processes: int) -> Iterator:
    """`items[i]` for i in `order`, in that order, made in this process or in `processes` loader processes."""
    if processes == 0:
        return (items[number] for number in order)
    loader = DataLoader(_ErrorsAsItems(items), batch_size=None, sampler=order, num_workers=processes,
                        prefetch_factor=PREFETCHED_BATCHES, pin_memory=torch.cuda.is_available(),
                        worker_init_fn=_start_process, multiprocessing_context=_context())
    return _raise_errors(loader, processes)


def _context() -> multiprocessing.context.BaseContext:
    """A fork server: loader processes start fast, without copying the threads of Ray, CUDA and OpenMP."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _start_process(_: int) -> None:
    """Use one core per loader process, and end it with the process that reads from it."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch watches only the fork server, which lives as long as its children."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@dataclass(eq=False)
class _ErrorsAsItems(Dataset):
    """Returns a JobError as a value: torch would raise it again as another type, with a traceback."""

    items: Dataset

    def __getitem__(self, number: int) -> object:
        try:
            return self.items[number]
        except JobError as error:
            return error


def _raise_errors(loader: DataLoader, processes: int) -> Iterator:
    try:
        for item in loader:
            if isinstance(item, JobError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise JobError("data.loader_processes", f"one of {processes} loader processes died ({error})",
                       "most often memory ran out: use fewer loader processes or a smaller batch_size") from error
