"""Classes as records name them: by name, or by the number of a name that stands elsewhere."""

from collections.abc import Iterable, Sequence

import numpy as np

from .....errors import JobError
from ...objects import UNUSABLE


class Labels:
    """Every class that occurs gets a provisional label, until all are known."""

    def __init__(self):
        self.values: dict[str | int, int] = {}
        """Name or number -> provisional label."""

    def of(self, value, names: Sequence[str] = ()) -> int:
        """The provisional label of a name, or of a number, which counts `names` where there are any."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and names:
            value = names[value] if 0 <= value < len(names) else f"number {value}"
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            return UNUSABLE
        return self.values.setdefault(value, len(self.values))

    def resolved(self, wanted: Sequence[str] | None, known: Iterable[str], where: str) -> tuple[list[str], np.ndarray]:
        """Class names, and the label of each provisional one: -1 for a class that is not among `wanted` or `known`.

        Without either the classes are the names that occur, sorted. JobError if there are only numbers.
        """
        numbers = [value for value in self.values if isinstance(value, int)]
        if numbers and not wanted:
            raise JobError("source.classes", f"{where} has classes by number ({min(numbers)} to {max(numbers)}), "
                                             "and no names for them", "set it to the class names in order of number")
        classes = list(wanted or known) or sorted(self.values)
        label_of = {name: label for label, name in enumerate(classes)}
        label_of |= {number: number for number in numbers if 0 <= number < len(classes)}
        return classes, np.array([label_of.get(value, UNUSABLE) for value in self.values], np.int32)
