"""The proposer as a search algorithm of Ray Tune, which asks for no more trials than the cluster holds."""

import json
from collections.abc import Callable
from pathlib import Path

from ray.tune.search import Searcher, SearchGenerator

from .search.proposals import FINISHED, Proposer
from .search.space import Values


class ProposerSearch(Searcher):
    """Asks `Proposer` for the values of Tune's trials."""

    FINISHED = Searcher.FINISHED

    def __init__(self, proposer: Callable[[dict | None], Proposer], slots: Callable[[], int], epochs: int) -> None:
        """``proposer``: makes one from its state, None: a new one. ``slots``: how many trials may run now. ``epochs``:
        of a whole trial.
        """
        super().__init__()
        self._make, self._slots, self._epochs = proposer, slots, epochs
        self.proposer, self._running = proposer(None), set()

    def suggest(self, trial_id: str) -> Values | str | None:
        """Values of a new trial; None: not now; FINISHED: every point of the space has been proposed."""
        if len(self._running) >= self._slots():
            return None
        values = self.proposer.suggest(trial_id)
        if values == FINISHED:
            return self.FINISHED
        self._running.add(trial_id)
        return values

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)
        if error or not result:
            self.proposer.lost(trial_id)
        elif "score" in result:
            self.proposer.observe(trial_id, self._epochs, {"ap": result["score"]})

    def save(self, checkpoint_path: str) -> None:
        state = {"running": sorted(self._running), "proposer": self.proposer.state()}
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        state = json.loads(Path(checkpoint_path).read_text())
        self._running, self.proposer = set(state["running"]), self._make(state["proposer"])


class Proposals(SearchGenerator):
    """The trials of a search; a resumed one may have more than before."""

    def __init__(self, searcher: ProposerSearch, trials: int) -> None:
        super().__init__(searcher)
        self._trials = trials

    def set_state(self, state: dict) -> None:
        super().set_state(state | {"total_samples": self._trials, "finished": False})
