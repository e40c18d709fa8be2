"""Runs a search: Ray Tune starts and reuses the actors, places them and notices when one is lost; `Scheduler` decides.

To Tune each leg of a trial, from one rung to the next, is a trial of its own: a pause ends it and frees its slot, a
promotion is another one, which the next free actor takes.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict

from ray import tune as ray_tune
from ray.actor import ActorHandle
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search import SearchAlgorithm

from .. import storage
from ..data.manifest import Manifest
from ..train.progress import printed_progress
from ..train.trainer import check_run, environment_variables, run_in_thread
from .concurrency import TrialSlots
from .finals import Finals
from .follower import Follower
from .proposals import proposer
from .report.live import live_table
from .report.outcome import write_outcome
from .report.view import SearchView
from .scheduler import Scheduler
from .spec import JOB_RECORD, TuneSpec
from .trainable import Leg, TrialActor

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""Of Tune: it prints, logs and keeps nothing, for all of that is ours; as many actors are asked for as may run; one that
does not end is killed soon."""


def tune(spec: TuneSpec, run_name: str) -> dict:
    """Search, or go on with the search ``run_name``; write what it leaves behind.

    A search that had ended goes on if its budget is more than before. At Ctrl-C the trials save their state and end.
    """
    run = storage.join(spec.storage, run_name)
    manifest = check_run(spec.train, storage.join(run, "trials"))
    storage.write_json(storage.join(run, JOB_RECORD),
                       {"job": spec.model_dump(mode="json"), "fingerprint": manifest.fingerprint})
    scheduler = Scheduler(spec, run, lambda state: proposer(spec, manifest, state),
                          manifest.split(spec.train.data.train_split).num_rows)
    with printed_progress() as progress_actor, live_table() as show:
        outcome = follow(scheduler, manifest, progress_actor, show)
        if spec.finalists and outcome.best is not None:
            outcome = follow(Finals(scheduler), manifest, progress_actor, show)
    return write_outcome(outcome)


def follow(scheduler: Scheduler | Finals, manifest: Manifest, progress_actor: ActorHandle,
           show: Callable[[SearchView], None]) -> SearchView:
    """Train what the scheduler says, tell it, and return what came of it."""
    follower = Follower(scheduler, progress_actor, show)
    try:
        run_in_thread(lambda: follower.follow(lambda: run_trials(scheduler, manifest, progress_actor, follower)))
    except (KeyboardInterrupt, SystemExit):
        follower.interrupt()
        raise
    return follower.outcome()


def run_trials(scheduler: Scheduler | Finals, manifest: Manifest, progress_actor: ActorHandle,
               follower: Follower) -> None:
    """Train what the scheduler says, until it has nothing left."""
    spec = scheduler.spec
    trainable = ray_tune.with_parameters(TrialActor, progress_actor=progress_actor)
    trainable.__qualname__ = TrialActor.__qualname__  # the name of its process
    with tempfile.TemporaryDirectory() as scratch, TrialSlots(spec) as slots, environment_variables(**ENVIRONMENT):
        experiment = Experiment("search", trainable, storage_path=scratch)
        ray_tune.run(experiment, search_alg=Legs(scheduler, slots, experiment, manifest.fingerprint),
                     callbacks=[follower], reuse_actors=True, raise_on_failed_trial=False, verbose=0)


def placement(spec: TuneSpec) -> PlacementGroupFactory:
    """What the workers of a trial need, each on one node; who waits for them needs nothing."""
    workers = spec.train.resources.demand()
    return PlacementGroupFactory([dict(workers.each)] * workers.count)


class Legs(SearchAlgorithm):
    """The legs that the scheduler wants, as trials of Tune."""

    def __init__(self, scheduler: Scheduler | Finals, slots: TrialSlots, experiment: Experiment, fingerprint: str) -> None:
        self._scheduler, self._slots, self._experiment = scheduler, slots, experiment
        self._fingerprint, self._number = fingerprint, 0

    def add_configurations(self, experiments: list[Experiment]) -> None:
        """Nothing: they come one by one."""

    def is_finished(self) -> bool:
        return self._scheduler.is_finished

    def next_trial(self) -> RayTrial | None:
        if self._scheduler.num_started >= self._slots():
            return None
        start = self._scheduler.next()
        if start is None:
            return None
        trial, self._number = start.trial, self._number + 1
        leg = Leg(trial.trial_id, start.job.model_dump(mode="json"), trial.run, trial.to_epoch, self._fingerprint,
                  start.keep_all)
        return RayTrial(self._experiment.run_identifier, config={"leg": asdict(leg)},
                        trial_id=f"{trial.trial_id}-{self._number}", storage=self._experiment.storage,
                        placement_group_factory=placement(self._scheduler.spec))
