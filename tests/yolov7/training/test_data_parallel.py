"""Two ranks: gradients and totals are sums over both, in either format, and waiting is a stage of its own."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn

from yolov7.criterion.loss import LossTerms
from yolov7.images.batch import Batch
from yolov7.training.data_parallel import DataParallel
from yolov7.training.engine import add_gradients

NUM_IMAGES = (3, 1)
"""Of each rank."""
GRADIENTS = torch.tensor([[1.0, 2.0, 3.0], [0.25, -2.0, 1e-3]])
"""Of the one weight of each rank, for each of its images' sum."""


def measured(rank: int, network: nn.Module, exchanged: bool) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Gradient, totals and seconds waited of one backward pass on this rank's batch."""

    def criterion(outputs: torch.Tensor, _: torch.Tensor) -> LossTerms:
        terms = [torch.tensor(value) for value in (1.0 + rank, 2.0, 4.0)]
        return LossTerms((outputs * GRADIENTS[rank]).sum(), *terms)

    batch = Batch(torch.full((NUM_IMAGES[rank], 3, 1, 1), 255, dtype=torch.uint8), torch.empty(0, 6),
                  torch.arange(NUM_IMAGES[rank]))
    totals = torch.zeros(4, dtype=torch.float64)
    waited_s = add_gradients(network, [(batch, NUM_IMAGES[rank])], criterion, "fp32", totals, exchanged)
    return network.module.weight.grad.clone(), totals, waited_s


class Weighted(nn.Module):
    """The weight times the first pixel of the first image, which is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight * images[0, 0, 0, 0]


def both(rank: int, rendezvous: str, results) -> None:
    """Body of a rank."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for exchange, exchanged in (("fp32", True), ("fp32", False), ("bf16", True)):
        gradient, totals, waited_s = measured(rank, DataParallel(Weighted(), exchange), exchanged)
        results.put((rank, exchange, exchanged, gradient.tolist(), totals.tolist(), waited_s))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ranks = multiprocessing.spawn(both, (str(tmp_path_factory.mktemp("ranks") / "rendezvous"), queue), nprocs=2, join=False)
    found = {}
    try:
        while not ranks.join(timeout=60, grace_period=5):
            pass
        while not queue.empty():
            rank, exchange, exchanged, *values = queue.get()
            found[rank, exchange, exchanged] = values
    finally:
        for process in ranks.processes:
            process.kill()
    return found


@pytest.mark.parametrize("rank", (0, 1))
def test_gradients_and_totals_are_sums_over_the_ranks(results, rank):
    gradient, totals, waited_s = results[rank, "fp32", True]
    assert gradient == GRADIENTS.sum(0).tolist()
    assert totals == [3 * 1 + 1 * 2, 4 * 2, 4 * 4, 4]
    assert waited_s > 0


@pytest.mark.parametrize("rank", (0, 1))
def test_before_the_last_pass_of_an_update_nothing_is_exchanged(results, rank):
    gradient, totals, waited_s = results[rank, "fp32", False]
    assert gradient == GRADIENTS[rank].tolist()
    assert totals == [NUM_IMAGES[rank] * (1 + rank), NUM_IMAGES[rank] * 2, NUM_IMAGES[rank] * 4, NUM_IMAGES[rank]]
    assert waited_s == 0


@pytest.mark.parametrize("rank", (0, 1))
def test_bf16_rounds_what_is_sent_and_the_sum(results, rank):
    gradient, totals, _ = results[rank, "bf16", True]
    sent = GRADIENTS.bfloat16()
    assert gradient == (sent[0] + sent[1]).float().tolist() and gradient != GRADIENTS.sum(0).tolist()
    assert totals == [5, 8, 16, 4]  # whole, as float64
