"""Data parallelism: gradients are summed over ranks, bucket by bucket, while the backward pass goes on."""

import time
import warnings
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

GradientFormat = Literal["fp32", "bf16"]


class DataParallel(DistributedDataParallel):
    """A model whose gradients are sums over all ranks, not means.

    Batch statistics are not broadcast before each forward pass: in training mode no output depends on them. Gradients
    are views of the buckets that are exchanged. `exchange` bf16 sends half the bytes, and rounds every rank's
    gradient, and the sum, to 8 bits.
    """

    def __init__(self, model: nn.Module, exchange: GradientFormat = "fp32") -> None:
        device = next(model.parameters()).device
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a newer name of broadcast_buffers
            super().__init__(model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False,
                             gradient_as_bucket_view=True)
        self._dtype = torch.bfloat16 if exchange == "bf16" else torch.float32
        self._last_bucket_at = 0.0
        self.register_comm_hook(self, DataParallel._sum)

    def waited_s(self) -> float:
        """Seconds since the last gradient was ready: after a backward pass, what its other work did not hide."""
        return time.perf_counter() - self._last_bucket_at

    def _sum(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        gradients = bucket.buffer()
        sent = gradients.to(self._dtype)
        if bucket.is_last():
            self._last_bucket_at = time.perf_counter()
        future = dist.all_reduce(sent, async_op=True).get_future()
        return future.then(lambda done: gradients.copy_(done.value()[0]) if sent is not gradients else done.value()[0])
