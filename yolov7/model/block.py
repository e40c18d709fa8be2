"""Builds the module of a block description."""

from __future__ import annotations

from torch import nn

from ..architectures.blocks import Activation, Block, ConvSet, Csp, Dark, Elan
from .csp import CspBlock
from .darknet import ConvSetBlock, DarkBlocks
from .elan import ElanBlock, ExtendedElanBlock


def build_block(
    block: Block, in_channels: int, hidden_channels: int, out_channels: int, activation: Activation
) -> nn.Module:
    """Return the module of `block`: (B, in_channels, H, W) to (B, out_channels, H, W).

    ValueError where a residual stack would have to change its number of channels.
    """
    match block:
        case Elan():
            elan = ExtendedElanBlock if block.extended else ElanBlock
            return elan(in_channels, hidden_channels, out_channels, block, activation)
        case Csp():
            return CspBlock(in_channels, hidden_channels, out_channels, block, activation)
        case Dark():
            if in_channels != out_channels:
                raise ValueError(f"dark blocks from {in_channels} to {out_channels} channels: make both equal")
            return DarkBlocks(in_channels, hidden_channels, block, activation)
        case ConvSet():
            return ConvSetBlock(in_channels, hidden_channels, out_channels, block.num_steps, activation)
