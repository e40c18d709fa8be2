"""Summary of a finished job."""

from typing import Any

from .kinds import kind_of
from .spec import Job


def summary(job: Job, run_name: str, outputs: dict[str, Any], seconds: float) -> str:
    """The outputs of a finished job, and the usual next command."""
    lines = [f"{run_name}: done in {seconds:.0f} s"]
    for key, value in outputs.items():
        lines.append(f"  {key:<12}{headline(value) if isinstance(value, dict) else value}")
    command = kind_of(job).next_command(job, outputs)
    return "\n".join(lines + ([f"next: {command}"] if command else []))


def headline(outputs: dict[str, Any]) -> str:
    """Outputs in one line."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in outputs.items()
             if isinstance(value, str | int | float)}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
