"""Amounts of CPUs and GPUs: demand of a job, and capacity of nodes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

Amounts = Mapping[str, float]
"""Resource name -> amount, as Ray counts: {"CPU": 8, "GPU": 2}."""


@dataclass(frozen=True)
class Demand:
    """Resources of `count` equal processes at the same time."""

    count: int
    cpus_each: float
    gpus_each: float
    what: str
    """Description of the processes, e.g. "2 workers"."""
    count_key: str = ""
    cpus_key: str = ""
    gpus_key: str = ""
    """Keys of the job file that make the demand smaller."""

    @property
    def each(self) -> Amounts:
        """What one process needs, all of it on one node."""
        return {key: amount for key, amount in (("CPU", self.cpus_each), ("GPU", self.gpus_each)) if amount}

    @property
    def total(self) -> dict[str, float]:
        """What all of them need together."""
        return {"CPU": self.count * self.cpus_each, "GPU": self.count * self.gpus_each}


def capacity(each: Amounts, node: Amounts) -> int:
    """Number of processes that need ``each`` and fit onto one node."""
    fitting = [math.floor(node.get(key, 0) / amount + 1e-6) for key, amount in each.items() if amount]
    return min(fitting, default=10**9)


def total(nodes: list[dict[str, float]]) -> dict[str, float]:
    """CPUs and GPUs of some nodes together."""
    return {key: sum(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}


def in_words(amounts: Amounts) -> str:
    """``8 CPU and 2 GPU``."""
    return " and ".join(f"{amounts.get(key, 0):g} {key}" for key in ("CPU", "GPU"))


def plural(count: int, noun: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
