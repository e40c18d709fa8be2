"""One trial: a complete train job in the directory of its search, and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass

from ray import tune as ray_tune
from ray.actor import ActorHandle

from .. import storage
from ..data.manifest import load_manifest
from ..errors import NotFound
from ..train.starting_point import record_start
from ..train.trainer import build_trainer
from .judge import EarlyStop
from .spec import TuneSpec


@dataclass(frozen=True)
class Trial:
    """One trial: its values and its results.json (None: not written)."""

    trial_id: str
    values: dict[str, object]
    run: str
    results: dict | None
    error: str | None
    stopped: str | None = None
    """Why it ended early."""

    @property
    def ap(self) -> float | None:
        """Best AP over its epochs, that of its best checkpoint."""
        return None if self.results is None else self.results["best"].get("ap")

    def row(self) -> dict:
        """Its row of trials.json."""
        results = self.results or {}
        epochs = results.get("epochs", [])
        evaluated_rows = [epoch for epoch in epochs if epoch.get("ap") is not None]
        best = results.get("best_checkpoint")
        figures = {key: value for key, value in (evaluated_rows or [{}])[-1].items() if key.startswith("ap")}
        figures |= {key: results.get(key) for key in ("gflops", "parameters")}
        status = "failed" if self.error else "stopped" if self.stopped else "trained"
        return {"trial": self.trial_id, "values": self.values, "status": status, "reason": self.stopped,
                "epoch": len(epochs), "rung": len(epochs), "figures": figures, "cost": results.get("gflops"),
                "spent": (results.get("gflops") or 0.0) * len(epochs), "ap": self.ap,
                "last_ap": figures.get("ap"), "run": self.run, "error": self.error, "stopped": self.stopped,
                "checkpoint": storage.join(self.run, best) if best else None,
                "ap50": results.get("best", {}).get("ap50"), "gflops": results.get("gflops"),
                "parameters": results.get("parameters"), "epochs": len(epochs)}


def trial_driver(spec: TuneSpec, run: str, progress_actor: ActorHandle, judge: ActorHandle) -> Callable[[dict], None]:
    """The function of one trial: its own train job under ``<run>/trials/<trial id>``, found again after a restart.

    It reports to Tune once, at its end, what its results.json holds: best AP, and cost.
    """
    document = spec.model_dump(mode="json")

    def drive(values: dict) -> None:
        spec = TuneSpec.model_validate(document)
        trial = ray_tune.get_context().get_trial_id()
        label = f"trial {trial}  "
        job = spec.trial(values).model_copy(update={"storage": storage.join(run, "trials")})
        record_start(job, storage.join(run, "trials", trial), load_manifest(job.dataset))
        try:
            build_trainer(job, trial, progress_actor, label, EarlyStop(judge, trial)).fit()
        finally:
            progress_actor.replaced.remote(label)
        outcome = read_trial(run, trial, values)
        ray_tune.report({"score": outcome.ap or 0.0, "gflops": outcome.results["gflops"]})

    return drive


def read_trial(run: str, trial: str, values: dict, error: str | None = None, stopped: str | None = None) -> Trial:
    """The outcome of a trial, from its results.json."""
    uri = storage.join(run, "trials", trial)
    try:
        results = storage.read_json(storage.join(uri, "results.json"))
    except NotFound:
        results = None
    return Trial(trial, values, uri, results, error, stopped)
