"""The tune job."""

from collections.abc import Iterator, Sequence
from typing import Any

from .. import storage
from ..cluster.resources import Demand, plural
from ..errors import JobError, NotFound
from ..jobs.kind import JobKind, Line, Upcoming
from ..jobs.resumption import changes, refuse, resolved
from ..jobs.spec import Job, UriPath, uris_in
from ..program import command
from .objectives import CLASS_PREFIX
from .spec import DEFAULT_STORAGE, DEFAULTS, JOB_RECORD, MAY_CHANGE, TuneSpec


class Tune(JobKind[TuneSpec]):
    """A train job x search space -> trials, the front of what they reach, and the best configuration."""

    spec = TuneSpec
    plans_unreachable = True
    outputs = {"run": "search", "best_job": "job", "front": "front", "checkpoint": "model", "model": "model"}
    example = {"train": {"kind": "train", "dataset": "datasets/coco", "epochs": 10},
               "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]},
                          "loss.box_gain": {"uniform": [0.02, 0.2]}}}

    def run(self, spec: TuneSpec, run_name: str) -> dict[str, Any]:
        from .tuner import tune

        return tune(spec, run_name)

    def demand(self, spec: TuneSpec) -> Demand:
        trials = min(spec.budget.trials, spec.max_concurrent_trials or 1)
        workers = spec.train.resources.demand("train.resources")
        return Demand(trials * workers.count, workers.cpus_each, workers.gpus_each,
                      f"{plural(trials, 'trial')} of {workers.what}",
                      "max_concurrent_trials" if trials > 1 else workers.count_key, workers.cpus_key, workers.gpus_key)

    def check_inputs(self, spec: TuneSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import load_manifest, require_dataset

        require_dataset(spec.train.dataset, upcoming)
        known = [uri for uri in spec.start_with if "${" not in uri and not upcoming.makes(uri)]
        if known not in ([], [DEFAULTS]):
            from .search.starts import starts

            starts(spec.model_copy(update={"start_with": known}), None)
        if "${" not in spec.train.dataset and not upcoming.makes(spec.train.dataset):
            check_classes(spec, load_manifest(spec.train.dataset).classes)

    def check_resume(self, spec: TuneSpec, run_name: str) -> list[str]:
        from ..data.manifest import dataset_root, load_manifest

        run = self.run_directory(spec, run_name)
        try:
            earlier = storage.read_json(storage.join(run, JOB_RECORD))
        except NotFound:
            return []
        found = changes(resolved(TuneSpec, earlier["job"]), spec.model_dump(mode="json"))
        kept = [change for change in found if not change.within(MAY_CHANGE)]
        refuse(f"run {run}", "searches with", kept, "give that, or start a new search")
        if load_manifest(spec.train.dataset).fingerprint != earlier["fingerprint"]:
            kept = f"{dataset_root(spec.train.dataset)}@{earlier['fingerprint'][:12]}"
            raise JobError(f"run {run}", f"searches on other data than {spec.train.dataset} holds now",
                           "give the dataset of that run (where it has grown and its earlier content is kept: --set "
                           f"train.dataset={kept}), or start a new search")
        return [str(change) for change in found]

    def dry_run(self, spec: TuneSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import search_lines

        return search_lines(spec, upcoming)

    def next_command(self, spec: TuneSpec, outputs: dict[str, Any]) -> str:
        return command(outputs["best_job"])

    def uris(self, spec: TuneSpec) -> Iterator[tuple[UriPath, str]]:
        unused = (("train", "storage"), DEFAULT_STORAGE)  # trials are stored in the directory of the search
        yield from (found for found in uris_in(spec) if found != unused)
        yield from ((("start_with", index), uri) for index, uri in enumerate(spec.start_with)
                    if uri != DEFAULTS and "${" not in uri)

    def jobs_made(self, spec: TuneSpec) -> dict[str, Job]:
        return {"best_job": spec.alone({})}


def check_classes(spec: TuneSpec, classes: Sequence[str]) -> None:
    """JobError if an objective is the AP of a class that the dataset does not have."""
    for figure in spec.objectives:
        name = figure.removeprefix(CLASS_PREFIX)
        if name != figure and name not in classes:
            raise JobError(f"objectives.{figure}", f"is no class of {spec.train.dataset}",
                           f"choose {', '.join(f'{CLASS_PREFIX}{known}' for known in classes[:10])}")


KIND = Tune()
