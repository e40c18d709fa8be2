"""Several models that belong together, under names by size: the front of a search."""

from dataclasses import dataclass
from typing import Any

from .. import storage
from ..errors import Corrupt, NotFound
from .registry import REF
from .spec import PublishSpec

FRONT_FILE = "front.json"


@dataclass(frozen=True)
class Member:
    """One model of a front."""

    name: str
    model: str
    """A checkpoint's URI."""
    job: str
    """The file of the train job that made it."""
    trial: str
    figures: dict[str, Any]


def front_of(spec: PublishSpec) -> list[Member] | None:
    """The members of the front that a publish job names; None if it names a single model."""
    return None if REF.fullmatch(spec.model) or spec.model.endswith(".safetensors") else load_front(spec.model)


def load_front(uri: str) -> list[Member] | None:
    """The members of the front in a directory; None if it is no front."""
    where = storage.join(uri, FRONT_FILE)
    try:
        return [Member(**member) for member in storage.read_json(where)]
    except NotFound:
        return None
    except (TypeError, ValueError) as error:
        raise Corrupt(where, f"is no front of a search ({error})", "run the search again with --resume") from error
