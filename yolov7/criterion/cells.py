"""Reading a detector's outputs for the loss: the objectness of all cells, and the full predictions of a few.

B images · A anchors · H W cells · C classes · K candidates · S cells of all outputs
"""

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor


class ReadCells(torch.autograd.Function):
    """The objectness of all cells and the predictions of some, with one dense gradient for both.

    Indexing an output twice would make autograd fill two dense gradients and add them, which takes
    nearly all of the backward pass. Any memory layout is read, and returned, without a copy.
    """

    @staticmethod
    def forward(
        ctx, indices: Sequence[tuple[Tensor, ...]], *outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs (B, A, H, W, 5+C) and as many indices 4 x (k,) -> objectness (S,) of one output
        after the other, and cells (K, 5+C), both float32 or better."""
        ctx.save_for_backward(*(index for group in indices for index in group))
        ctx.layouts = [torch.empty_like(output, device="meta") for output in outputs]
        ctx.device = outputs[0].device
        sizes = [output[..., 4].numel() for output in outputs]
        dtype = torch.promote_types(outputs[0].dtype, torch.float32)
        objectness = torch.empty(sum(sizes), dtype=dtype, device=ctx.device)
        for part, output in zip(objectness.split(sizes), outputs, strict=True):
            part.view(output.shape[:4]).copy_(output[..., 4])
        cells = [output[index] for output, index in zip(outputs, indices, strict=True)]
        return objectness, torch.cat(cells).to(dtype)

    @staticmethod
    def backward(ctx, objectness_grad: Tensor, cells_grad: Tensor):
        saved, grads = ctx.saved_tensors, []
        indices = [saved[i : i + 4] for i in range(0, len(saved), 4)]
        maps_grad = objectness_grad.split([layout[..., 4].numel() for layout in ctx.layouts])
        cells_grad = cells_grad.split([len(group[0]) for group in indices])
        for layout, group, map_grad, grad_of_cells in zip(
            ctx.layouts, indices, maps_grad, cells_grad, strict=True
        ):
            grad = zeros_like(layout, ctx.device)
            grad[..., 4] = map_grad.view(layout.shape[:4])
            grad.index_put_(group, grad_of_cells.to(grad.dtype), accumulate=True)
            grads.append(grad)
        return None, *grads


def zeros_like(layout: Tensor, device: torch.device) -> Tensor:
    """Zeros with the shape, strides and dtype of `layout` (on "meta").

    On the CPU by NumPy's calloc, which requests huge pages: filling newly allocated memory takes three
    times as long, almost all of it page faults.
    """
    if device.type != "cpu":
        return torch.zeros_like(layout, device=device)
    memory = numpy.zeros(layout.numel() * layout.element_size(), numpy.uint8)
    return torch.from_numpy(memory).view(layout.dtype).as_strided(layout.shape, layout.stride())
