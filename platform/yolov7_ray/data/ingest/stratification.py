"""Splits balanced by class: few groups leave the split that their hash says, those nearest to its limits first.

g groups (images that stay together) · e entries, one for each class of each group · k classes · s splits
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.02
"""Most that the share of a class' objects in a split may differ from the wanted one, where counts allow."""
ENOUGH_OBJECTS = 50
"""A class of fewer objects gives way to the others, and one in fewer than `FEW_GROUPS` is split to the group only."""
FEW_GROUPS = 25
MAX_CANDIDATES = 4096
"""Groups that are compared for one move: those nearest to the limit."""
MAX_FIRST_MOVES = 16
"""Moves that are tried as the first of two."""


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Objects of each class in each group, sorted by group."""

    groups: np.ndarray
    """(e,) number of the group."""
    classes: np.ndarray
    """(e,) number of the class."""
    counts: np.ndarray
    """(e,) objects, at least 1."""

    @classmethod
    def of(cls, groups: np.ndarray, classes: np.ndarray, num_classes: int) -> "Entries":
        """Entries of objects with these groups and classes."""
        keys, counts = np.unique(groups * num_classes + classes, return_counts=True)
        return cls(keys // num_classes, keys % num_classes, counts)


def balanced(hashes: np.ndarray, entries: Entries, ratios: np.ndarray) -> np.ndarray:
    """(g,) split of each group: by its hash in [0, 1), but for few moves that bring the classes into tolerance.

    A move is made only if it lessens the sum of all classes' excesses; where none does, counts do not allow better.
    """
    limits = np.cumsum(ratios)[:-1]
    chosen = np.searchsorted(limits, hashes, side="right")
    if not len(entries.groups):
        return chosen
    balance = _Balance(hashes, limits, chosen, entries, ratios)
    stuck: set[int] = set()
    while True:
        excess = balance.excess(balance.table).sum(1) * balance.weights
        excess[list(stuck)] = 0
        worst = int(excess.argmax())
        if excess[worst] <= 0:
            return chosen
        moves = balance.better_moves(worst)
        changed = [balance.make(*move) for move in moves]
        stuck.difference_update(*(classes.tolist() for classes in changed))
        if not moves:
            stuck.add(worst)


class _Balance:
    """Objects of each class in each split, less the wanted ones, and the moves that change them."""

    def __init__(self, hashes: np.ndarray, limits: np.ndarray, chosen: np.ndarray, entries: Entries,
                 ratios: np.ndarray):
        self.hashes, self.chosen, self.entries = hashes, chosen, entries
        self.edges = np.concatenate([[0.0], limits, [1.0]])
        num_classes = int(entries.classes.max()) + 1
        self.starts = np.searchsorted(entries.groups, np.arange(len(hashes) + 1))
        self.by_class = np.argsort(entries.classes, kind="stable")
        num_groups = np.bincount(entries.classes, minlength=num_classes)
        self.class_starts = np.concatenate([[0], np.cumsum(num_groups)])
        placed = np.bincount(entries.classes * len(ratios) + chosen[entries.groups], entries.counts,
                             num_classes * len(ratios)).reshape(num_classes, -1)
        self.totals = np.maximum(placed.sum(1), 1)
        self.table = placed - self.totals[:, None] * ratios * (num_groups > 0)[:, None]
        one_group = self.totals / np.maximum(num_groups, 1) * (1 - 1e-6)
        small = self.totals < ENOUGH_OBJECTS
        self.weights = np.where(small, 0.001 / ENOUGH_OBJECTS, 1 / self.totals)
        few = small & (num_groups < FEW_GROUPS)  # within one group, so that the hash says which split gets a single one
        self.allowed = np.maximum(TOLERANCE * self.totals, np.where(few, one_group, 0)) + 1e-9

    def excess(self, table: np.ndarray) -> np.ndarray:
        """(k, s) objects beyond what is allowed."""
        return np.maximum(np.abs(table) - self.allowed[:, None], 0)

    def better_moves(self, label: int) -> list[tuple[int, int]]:
        """Group and new split of the one or two moves of a class that lessen the excess most; none if there are none.

        Two together can be better where neither is alone, e.g. a large group against a small one.
        """
        moves = self._moves(label)
        if moves and moves[0][0] < 0:
            return [moves[0][1:]]
        for change, group, target in moves:
            source = int(self.chosen[group])
            self.make(group, target)
            second = next(iter(self._moves(label)), None)
            self.make(group, source)
            if second and second[1] != group and change + second[0] < -1e-9:
                return [(group, target), second[1:]]
        return []

    def _moves(self, label: int) -> list[tuple[float, int, int]]:
        """Change of the excess, group and new split of the best moves of a class, best first."""
        members = self.entries.groups[self.by_class[self.class_starts[label]:self.class_starts[label + 1]]]
        row, moves = self.table[label], []
        for source in np.flatnonzero(row > 0).tolist():
            inside = members[self.chosen[members] == source]
            for target in np.flatnonzero(row < 0).tolist():
                first, last = self.edges[target:target + 2]
                distance = np.maximum(np.maximum(first - self.hashes[inside], self.hashes[inside] - last), 0)
                nearest = inside[np.argsort(distance, kind="stable")[:MAX_CANDIDATES]]
                changes = np.round(self._changes(nearest, source, target), 12)
                moves += [(float(changes[position]), int(nearest[position]), target)
                          for position in np.argsort(changes, kind="stable")[:MAX_FIRST_MOVES].tolist()]
        return sorted(moves, key=lambda move: move[0])

    def _changes(self, groups: np.ndarray, source: int, target: int) -> np.ndarray:
        """How each group's move would change the sum of the excesses, in shares of the classes."""
        lengths = self.starts[groups + 1] - self.starts[groups]
        if not len(groups):
            return np.zeros(0)
        first = np.cumsum(lengths) - lengths
        entries = np.repeat(self.starts[groups] - first, lengths) + np.arange(lengths.sum())
        classes, counts = self.entries.classes[entries], self.entries.counts[entries]
        allowed, change = self.allowed[classes], 0
        for split, moved in ((source, -counts), (target, counts)):
            now = self.table[classes, split]
            change = change + (np.maximum(np.abs(now + moved) - allowed, 0) - np.maximum(np.abs(now) - allowed, 0))
        return np.add.reduceat(change * self.weights[classes], first)

    def make(self, group: int, target: int) -> np.ndarray:
        """Move a group; the classes that it has."""
        own = slice(self.starts[group], self.starts[group + 1])
        classes, counts = self.entries.classes[own], self.entries.counts[own]
        self.table[classes, self.chosen[group]] -= counts
        self.table[classes, target] += counts
        self.chosen[group] = target
        return classes
