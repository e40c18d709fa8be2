"""Search distributions of a job file -> Ray Tune's."""

from ray import tune

from .spec import Choice, Distribution, Integer, LogUniform, Quantized, Uniform


def search_space(search: dict[str, Distribution]) -> dict[str, object]:
    """Dotted path -> Tune distribution."""
    return {path: to_tune(distribution) for path, distribution in search.items()}


def to_tune(distribution: Distribution) -> object:
    """One distribution; Tune's integers exclude the upper end, ours include it."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return tune.uniform(low, high)
        case LogUniform(loguniform=(low, high)):
            return tune.loguniform(low, high)
        case Integer(integer=(low, high)):
            return tune.randint(low, high + 1)
        case Quantized(quantized=(low, high, step)):
            return tune.quniform(low, high, step)
        case Choice(choice=values):
            return tune.choice(values)
