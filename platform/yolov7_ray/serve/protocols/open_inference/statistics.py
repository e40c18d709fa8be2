"""How often a model was asked, and how long it took, as Triton's statistics extension tells it."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....detect.options import Options
from ...served import Detected, ServedInfo

STAGES = {"queue": "wait", "compute_input": "decode", "compute_infer": "model"}
"""Triton's name -> ours; compute_output is the rest of an answer's time."""
EMPTY = {"count": 0, "ns": 0}


@dataclass
class _Figures:
    """Of one version of a model."""

    count: Counter[str] = field(default_factory=Counter)
    ns: Counter[str] = field(default_factory=Counter)
    batches: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Batch size -> images, and ns of each stage shared among the images of a batch."""
    last_ms: int = 0

    def add(self, stage: str, seconds: float) -> None:
        self.count[stage] += 1
        self.ns[stage] += round(seconds * 1e9)


class Statistics:
    """Of the models of one gateway since it started; every image counts as a request."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], _Figures] = defaultdict(_Figures)

    def detected(self, image: bytes | np.ndarray, options: Options, found: Detected, seconds: float) -> None:
        """Count an image that was answered after so long."""
        figures = self._figures[found.info.name, found.info.version]
        figures.last_ms = int(time.time() * 1000)
        figures.add("success", seconds)
        stages = {name: found.stages_ms[stage] / 1e3 for name, stage in STAGES.items()}
        stages["compute_output"] = max(0.0, seconds - sum(stages.values()))
        batch = figures.batches[found.batch_size]
        batch["images"] += 1
        for name, taken in stages.items():
            figures.add(name, taken)
            batch[name] += round(taken * 1e9 / found.batch_size)

    def failed(self, info: ServedInfo, status: int, seconds: float) -> None:
        """Count an image that was not answered."""
        self._figures[info.name, info.version].add("fail", seconds)

    def of(self, info: ServedInfo) -> dict[str, Any]:
        """A `model_stat` of the extension."""
        figures = self._figures.get((info.name, info.version), _Figures())

        def durations(names: tuple[str, ...]) -> dict[str, dict[str, int]]:
            return {name: {"count": figures.count[name], "ns": figures.ns[name]} for name in names}

        executions = {size: round(batch["images"] / size) for size, batch in sorted(figures.batches.items())}
        return {
            "name": info.name, "version": info.version, "last_inference": figures.last_ms,
            "inference_count": figures.count["success"], "execution_count": sum(executions.values()),
            "inference_stats": durations(("success", "fail", *STAGES, "compute_output"))
            | {"cache_hit": EMPTY, "cache_miss": EMPTY},
            "batch_stats": [{"batch_size": size} | {
                name: {"count": executions[size], "ns": batch[name]} for name in (*STAGES, "compute_output")
                if name != "queue"} for size, batch in sorted(figures.batches.items())],
        }
