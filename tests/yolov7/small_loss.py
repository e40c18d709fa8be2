"""A criterion's inputs that are small: two levels of two anchors, 64 x 96 pixels, three classes."""

import torch

SMALL = {"anchors_px": [[[10, 14], [23, 27]], [[37, 58], [81, 82]]], "strides": (8, 16)}


def small_outputs(num_images=2, num_classes=3, heads=1, dtype=torch.float32, scale=1.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = [(num_images, 2, 64 // s, 96 // s, 5 + num_classes) for s in SMALL["strides"] * heads]
    return [
        (scale * torch.randn(shape, generator=rng, dtype=dtype)).requires_grad_()
        for shape in shapes
    ]


def small_targets(num_targets, num_images=2, num_classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.rand(num_targets, 6, generator=rng)
    targets[:, 0] = (targets[:, 0] * num_images).floor()
    targets[:, 1] = (targets[:, 1] * num_classes).floor()
    targets[:, 4:] = 0.1 + 0.5 * targets[:, 4:]
    return targets
