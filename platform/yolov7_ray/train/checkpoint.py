"""yolov7's TrainState <-> ray.train.Checkpoint: a checkpoint is either whole in storage or absent."""

import json
import tempfile
from pathlib import Path

import ray.train

from yolov7.state import TrainState

from ..spec import TrainSpec


def checkpoint_name(epoch: int) -> str:
    """Directory of the checkpoint written after ``epoch`` epochs."""
    return f"checkpoint-epoch-{epoch:04d}"


def restore(state: TrainState) -> None:
    """Take up the run's last checkpoint, if it has one."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            state.load(directory)


def save(state: TrainState, spec: TrainSpec, metrics: dict) -> None:
    """Every rank calls this; rank 0's state is written, uploaded and registered before it returns.

    ``score`` (AP; -1 where this epoch was not evaluated) decides which checkpoints are kept beside the last.
    """
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory(prefix="yolov7-checkpoint-") as directory:
        state.save(directory)
        Path(directory, "spec.json").write_text(spec.model_dump_json(indent=1))
        Path(directory, "metrics.json").write_text(json.dumps(metrics, indent=1))
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(directory),
            checkpoint_dir_name=checkpoint_name(state.epoch),
        )
