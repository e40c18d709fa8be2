"""Search distributions of a job file -> Optuna's."""

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from .distributions import Choice, Distribution, Integer, LogUniform, Quantized, Uniform


def search_space(search: dict[str, Distribution]) -> dict[str, BaseDistribution]:
    """Dotted path -> Optuna distribution."""
    return {path: to_optuna(distribution) for path, distribution in search.items()}


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """One distribution; both ends are included."""
    match distribution:
        case Uniform(uniform=(low, high)):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
        case Integer(integer=(low, high)):
            return IntDistribution(low, high)
        case Quantized(quantized=(low, high, step)):
            return FloatDistribution(low, high, step=step)
        case Choice(choice=values):
            return CategoricalDistribution(values)
