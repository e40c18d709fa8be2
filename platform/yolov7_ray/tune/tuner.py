"""Runs the trials of a search with Ray Tune; each is a complete train job in storage."""

import os
from collections.abc import Callable

import ray
from ray import tune as ray_tune
from ray.actor import ActorHandle
from ray.tune.integration.ray_train import TuneReportCallback

from .. import storage
from ..data.manifest import load_manifest
from ..train.progress import printed_progress
from ..train.starting_point import record_start
from ..train.trainer import build_trainer, check_run
from .concurrency import TRIAL_DRIVER_CPUS, trials_at_once
from .report import Trial, write_report
from .scheduler import scheduler, searcher
from .search_space import search_space
from .spec import JOB_RECORD, TuneSpec


def tune(spec: TuneSpec, run_name: str) -> dict:
    """Search, resuming the unfinished trials of an earlier ``run_name``; write report and best job file."""
    run = storage.join(spec.storage, run_name)
    manifest = check_run(spec.train, storage.join(run, "trials"))
    storage.write_json(storage.join(run, JOB_RECORD),
                       {"job": spec.model_dump(mode="json"), "fingerprint": manifest.fingerprint})
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # a killed driver loses a second of state, not minutes
    with printed_progress() as progress_actor:
        results = build_tuner(spec, run_name, progress_actor).fit()
    trials = [read_trial(run, result) for result in results]
    best = write_report(run, spec, trials)
    return {"run": run, "best_job": storage.join(run, "best.yaml"), "best": best}


def build_tuner(spec: TuneSpec, run_name: str, progress_actor: ActorHandle) -> ray_tune.Tuner:
    """A new tuner, or a restored one if the run already exists."""
    path, filesystem = storage.ray_storage(spec.storage)
    trainable = ray_tune.with_resources(trial_driver(spec, storage.join(spec.storage, run_name), progress_actor),
                                        {"CPU": TRIAL_DRIVER_CPUS})
    earlier = f"{path}/{run_name}"
    if ray_tune.Tuner.can_restore(earlier, storage_filesystem=filesystem):
        return ray_tune.Tuner.restore(earlier, trainable, resume_unfinished=True, resume_errored=True,
                                      param_space=search_space(spec.search), storage_filesystem=filesystem)
    return ray_tune.Tuner(
        trainable,
        param_space=search_space(spec.search),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher(spec), scheduler=scheduler(spec), num_samples=spec.trials,
            max_concurrent_trials=trials_at_once(spec, ray.cluster_resources()),
        ),
        run_config=ray_tune.RunConfig(name=run_name, storage_path=path, storage_filesystem=filesystem, verbose=0),
    )


def trial_driver(spec: TuneSpec, run: str, progress_actor: ActorHandle) -> Callable[[dict], None]:
    """The function of one trial: its own train job under ``<run>/trials/<trial id>``, found again after a restart."""
    document = spec.model_dump(mode="json")

    def drive(values: dict) -> None:
        spec = TuneSpec.model_validate(document)
        trial = ray_tune.get_context().get_trial_id()
        job = spec.trial(values).model_copy(update={"storage": storage.join(run, "trials")})
        record_start(job, storage.join(run, "trials", trial), load_manifest(job.dataset))
        build_trainer(job, trial, progress_actor, label=f"trial {trial}  ", callbacks=(TuneReportCallback(),)).fit()

    return drive


def read_trial(run: str, result: ray_tune.Result) -> Trial:
    """The outcome of a trial, from its results.json."""
    trial = result.metrics.get("trial_id") or os.path.basename(result.path).split("_")[1]
    uri = storage.join(run, "trials", trial)
    path = storage.join(uri, "results.json")
    return Trial(trial, result.config, uri, storage.read_json(path) if storage.exists(path) else None,
                 str(result.error) if result.error else None)
