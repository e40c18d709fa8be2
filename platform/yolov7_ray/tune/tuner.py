"""Runs a search: Ray Tune starts and reuses the actors, places them and notices when one is lost; `Scheduler` decides.

To Tune each leg of a trial, from one rung to the next, is a trial of its own: a pause ends it and frees its slot, a
promotion is another one, which the next free actor takes.
"""

import tempfile
from dataclasses import asdict

from ray import tune as ray_tune
from ray.actor import ActorHandle
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search import SearchAlgorithm

from .. import storage
from ..data.manifest import Manifest
from ..train.progress import printed_progress
from ..train.trainer import check_run, environment_variables, run_in_thread
from .concurrency import TrialSlots, placement
from .follower import Follower, LegTrial
from .latency import model_costs, needs_latency
from .report.live import live_table
from .report.outcome import write_outcome
from .scheduler import Scheduler
from .search.proposals import Proposer
from .search.starts import Starts, starts
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
"""Of Tune: it prints, logs and keeps nothing, for all of that is ours; as many actors are asked for as may run; one
that does not end is killed soon."""


def tune(spec: TuneSpec, run_name: str) -> dict:
    """Search, or go on with the search ``run_name``; write what it leaves behind.

    A search that had ended goes on if its budget is more than before. At Ctrl-C the trials save their state and end.
    """
    run = storage.join(spec.storage, run_name)
    manifest = check_run(spec.train, storage.join(run, "trials"))
    storage.write_json(storage.join(run, JOB_RECORD),
                       {"job": spec.model_dump(mode="json"), "fingerprint": manifest.fingerprint})
    scheduler = Scheduler(spec, run, lambda state: proposer(spec, manifest, state),
                          manifest.split(spec.train.data.train_split).num_rows, needs_latency(spec))
    with printed_progress() as progress_actor, live_table() as show:
        follower = Follower(scheduler, progress_actor, show)
        try:
            run_in_thread(lambda: follower.follow(
                lambda: run_trials(scheduler, manifest, progress_actor, follower)))
        except (KeyboardInterrupt, SystemExit):
            follower.interrupt()
            raise
    return write_outcome(follower.outcome())


def run_trials(scheduler: Scheduler, manifest: Manifest, progress_actor: ActorHandle, follower: Follower) -> None:
    """Train what the scheduler says, until it has nothing left."""
    trainable = ray_tune.with_parameters(TrialActor, progress_actor=progress_actor)
    trainable.__qualname__ = TrialActor.__qualname__  # the name of its process
    with tempfile.TemporaryDirectory() as scratch, TrialSlots(scheduler) as slots, environment_variables(**ENVIRONMENT):
        experiment = Experiment("search", trainable, storage_path=scratch)
        ray_tune.run(experiment, search_alg=Legs(scheduler, slots, experiment, manifest),
                     callbacks=[follower], reuse_actors=True, raise_on_failed_trial=False, verbose=0)


def proposer(spec: TuneSpec, manifest: Manifest, state: dict | None) -> Proposer:
    """Who proposes the trials of a search, from its ``state`` if it has begun."""
    begin = starts(spec, manifest.fingerprint) if state is None else Starts()
    return Proposer(spec, lambda job: model_costs(job, len(manifest.classes)), first=begin.first,
                    earlier=begin.earlier, state=state)


class Legs(SearchAlgorithm):
    """The legs that the scheduler wants, as trials of Tune."""

    def __init__(self, scheduler: Scheduler, slots: TrialSlots, experiment: Experiment, manifest: Manifest) -> None:
        self._scheduler, self._slots, self._experiment = scheduler, slots, experiment
        self._manifest, self._number = manifest, 0

    def add_configurations(self, experiments: list[Experiment]) -> None:
        """Nothing: they come one by one."""

    def is_finished(self) -> bool:
        return self._scheduler.is_finished

    def next_trial(self) -> RayTrial | None:
        start = self._scheduler.next() if self._slots.has_room() else None
        if start is None:
            return None
        trial, self._number = start.trial, self._number + 1
        classes = len(self._manifest.classes) if start.measures else None
        leg = Leg(trial.trial_id, start.job.model_dump(mode="json"), trial.run, trial.to_epoch,
                  self._manifest.fingerprint, start.keep_all, classes, self._scheduler.run, trial.origin, start.keep)
        return LegTrial(self._experiment.run_identifier, config={"leg": asdict(leg)},
                        trial_id=f"{trial.trial_id}-{self._number}", storage=self._experiment.storage,
                        placement_group_factory=placement(self._scheduler.spec))
