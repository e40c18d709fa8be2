"""Builds the state, network and criterion of a run; the seed determines every random draw."""

import torch
import torch.distributed as dist
from torch import nn

from yolov7.criterion.loss import Criterion
from yolov7.training.data_parallel import DataParallel
from yolov7.training.schedule import Schedule
from yolov7.training.state import TrainState

from ..data.reading.dataset import ArrowDataset
from .spec import TrainSpec
from .starting_point import check_last_step, starting_architecture, starting_model


def build_state(spec: TrainSpec, train_set: ArrowDataset, device: torch.device) -> TrainState:
    """A fresh state, or one that starts from given weights."""
    check_last_step(spec, len(train_set))
    torch.manual_seed(spec.seed)
    loaded = starting_model(spec)
    schedule = Schedule(spec.optimizer, spec.epochs, -(-len(train_set) // spec.batch_size), spec.batch_size,
                        spec.nominal_batch_size)
    return TrainState.build(starting_architecture(spec, loaded), list(train_set.classes), schedule, spec.ema, device,
                            initial=loaded.model.state_dict() if loaded else None, frozen=spec.model.freeze,
                            image_size_px=spec.data.image_size_px)


def wrap(model: nn.Module, spec: TrainSpec) -> nn.Module:
    """Wrap the model for data parallelism if there is more than one worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return model
    if spec.model.sync_batchnorm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DataParallel(model, spec.resources.gradient_exchange)


def build_criterion(spec: TrainSpec, model: nn.Module, train_set: ArrowDataset) -> Criterion:
    """The loss with its gains scaled to classes, levels and image size."""
    config = spec.loss.scaled_to(model.num_classes, len(model.strides), spec.data.image_size_px)
    return Criterion.for_model(model, config, train_set.objects_per_class)
