"""Runs the trials of a search with Ray Tune."""

import os

from ray import tune as ray_tune
from ray.actor import ActorHandle
from ray.tune import ResumeConfig
from ray.tune.experiment import Trial as RayTrial

from .. import storage
from ..train.progress import printed_progress
from ..train.trainer import check_run, run_in_thread
from .concurrency import TRIAL_DRIVER_RESOURCES, TrialSlots
from .follower import Follower
from .judge import start_judge
from .proposals import Proposals, Proposer
from .report.outcome import write_outcome
from .spec import JOB_RECORD, TuneSpec
from .trial import trial_driver

STATE_PREFIX = "experiment_state-"
"""Start of the name of Tune's own record of a search."""


def tune(spec: TuneSpec, run_name: str) -> dict:
    """Search, resuming the unfinished trials of an earlier ``run_name``; write report and best job file.

    A search that had ended goes on if ``budget.trials`` is more than before. At Ctrl-C the trials save their state and end.
    """
    run = storage.join(spec.storage, run_name)
    manifest = check_run(spec.train, storage.join(run, "trials"))
    storage.write_json(storage.join(run, JOB_RECORD),
                       {"job": spec.model_dump(mode="json"), "fingerprint": manifest.fingerprint})
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # a killed driver loses a second of state, not minutes
    follower = Follower(run, spec.budget.trials)
    try:
        with printed_progress() as progress_actor:
            ended = run_in_thread(
                lambda: follower.follow(lambda: run_trials(spec, run_name, progress_actor, follower)))
    except (KeyboardInterrupt, SystemExit):  # the trials have saved their state
        follower.interrupt()
        raise
    return write_outcome(run, spec, [follower.outcome(trial).row() for trial in ended])


def run_trials(spec: TuneSpec, run_name: str, progress_actor: ActorHandle, follower: Follower) -> list[RayTrial]:
    """Run what is left of the search, and return all of its trials."""
    path, filesystem = storage.ray_storage(spec.storage)
    run = storage.join(spec.storage, run_name)
    driver = trial_driver(spec, run, progress_actor, start_judge(spec, run))
    return ray_tune.run(
        ray_tune.with_resources(driver, TRIAL_DRIVER_RESOURCES),
        name=run_name, storage_path=path, storage_filesystem=filesystem, num_samples=spec.budget.trials,
        search_alg=Proposals(Proposer(spec, TrialSlots(spec)), spec.budget.trials), callbacks=[follower],
        resume_config=ResumeConfig(errored=ResumeConfig.ResumeType.RESUME) if has_begun(run) else None,
        raise_on_failed_trial=False, verbose=0).trials


def has_begun(run: str) -> bool:
    """Whether Tune has a record of this search."""
    return any(file.path.startswith(STATE_PREFIX) for file in storage.list_files(run))
