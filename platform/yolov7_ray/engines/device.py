"""Kinds of devices: what was measured on one holds for another of the same kind."""

import os
from contextlib import suppress
from functools import cache

import torch

FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8",
            "asimd", "bf16", "i8mm")
"""Instructions of a CPU that decide which engine is the fastest."""


def device_kind(device: torch.device) -> str:
    """Model of a GPU; of a CPU the model and those of FEATURES that it has."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    has = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return ", ".join([processor(), *(feature for feature in FEATURES if feature in has)])


def processor() -> str:
    """Model of this machine's CPU."""
    return _cpuinfo("model name") or os.uname().machine


@cache
def _cpuinfo(key: str) -> str:
    """What the system says of its first CPU, empty if nothing."""
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""
