"""What an operator asks of an endpoint, on the cluster that it is on: ``python -m … '{"action": "status"}'``."""

import json
import logging
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...cluster.jobs_api import CONTROLLER, ENDPOINT
from ...errors import JobError
from ...program import command
from .decision import Thresholds
from .record import RollOut
from .request import Request

if TYPE_CHECKING:  # importing Ray Serve takes seconds
    from .canary import Comparison

ANSWER_TIMEOUT_S = 60.0


def words(action: str, request: Request | None = None, name: str | None = None) -> str:
    """The argument of `main`."""
    return json.dumps({"action": action, "request": request and asdict(request), "name": name})


def main(text: str, address: str = "auto") -> int:
    """Do what `words` say on the Ray of this address, by default that of this process; the exit status."""
    import ray

    asked = json.loads(text)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
        print(answer(asked["action"], asked["request"], asked["name"]))
        return 0
    except JobError as error:
        print(f"error: {error}")
        return error.exit_status
    finally:
        ray.shutdown()


def answer(action: str, request: dict[str, Any] | None, name: str | None) -> str:
    """What is said to an operator; JobError where it cannot be done."""
    from ray import serve
    from ray.serve.context import _get_global_client

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # only now: importing it sets its own level
    if _get_global_client(raise_if_no_controller_running=False) is None:
        raise _nothing()
    application = serve.status().applications.get(ENDPOINT)
    if application is None:
        raise _nothing()
    if CONTROLLER not in application.deployments:
        if action in ("roll-out", "roll-back"):
            raise JobError("roll-out", "is not possible: the endpoint has no registry to keep its state in",
                           "deploy it with `registry:`")
        return _table(application, [])
    if action == "roll-out":
        weights, limits = tuple(request.pop("weights")), Thresholds(**request.pop("thresholds"))
        return _asked("start", Request(**request, weights=weights, thresholds=limits)) + (
            f"\n{command('endpoint status')} follows it")
    if action == "roll-back":
        return _asked("roll_back", name)
    states = _asked("status")
    return _table(application, states) if action == "list" else "\n\n".join(map(described, states))


def _nothing() -> JobError:
    return JobError("endpoint", "none is deployed on this Ray", "submit a serve job")


def _asked(method: str, *arguments: Any) -> Any:
    """The answer of the controller."""
    from ray import serve
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    try:
        handle = serve.get_deployment_handle(CONTROLLER, ENDPOINT)
        return getattr(handle, method).remote(*arguments).result(timeout_s=ANSWER_TIMEOUT_S)
    except RayTaskError as error:
        if isinstance(error.cause, JobError):
            raise error.cause from None
        raise
    except (RayError, RayServeException, TimeoutError) as error:
        problem = str(error).partition("\n")[0] or type(error).__name__
        raise JobError("endpoint", f"its controller does not answer ({problem})", "try again") from error


def _table(application: Any, states: list[dict[str, Any]]) -> str:
    """A line for each model."""
    known = {state["model"]: state for state in states}
    rows = [("MODEL", "VERSION", "STATUS", "REPLICAS", "ROLL-OUT")]
    for name, deployment in application.deployments.items():
        model = name.removeprefix("detector-")
        if model != name:
            state = known.get(model)
            running = deployment.replica_states.get("RUNNING", 0)
            rows.append((model, state["stable"] if state else "–", deployment.status.value, str(running),
                         _in_short(state["roll_out"]) if state else "–"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join([f"endpoint {application.status.value}", *(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)])


def _in_short(state: RollOut | None) -> str:
    if state is None:
        return "–"
    if not state.is_active:
        return f"{state.candidate} {state.status}"
    return f"{state.candidate} {'shadows' if state.shadow else 'answers'} {state.weight:.4g} of the requests"


def described(state: dict[str, Any]) -> str:
    """All that is known of a model's roll-out."""
    roll_out, counts = state["roll_out"], state["counts"]
    if roll_out is None:
        return f"{state['model']}: {state['stable']}, no roll-out"
    lines = [f"{state['model']}: {state['stable']}, {_in_short(roll_out)}"]
    if roll_out.is_active:
        lines[0] += f" (step {roll_out.step + 1} of {len(roll_out.weights)})"
        lines += [f"  {state['judged']}"] if state["judged"] else []
        lines += _counts(state["stable"], roll_out.candidate, counts) if counts else []
    elif roll_out.reason:
        lines.append(f"  {roll_out.reason}")
    return "\n".join([*lines, *(f"  {event}" for event in roll_out.events)])


def _counts(stable: str, candidate: str, counts: "Comparison") -> list[str]:
    width = max(len(stable), len(candidate), 7)
    lines = [f"  {'version':{width}}  requests  errors  p99 ms   empty"]
    for ref, window in ((stable, counts.stable), (candidate, counts.candidate)):
        lines.append(f"  {ref:{width}}  {window.requests:8d}  {window.errors:6d}  {window.p99_ms:6.0f}  "
                     f"{window.empty_share:6.1%}")
    if counts.candidate.pairs:
        lines.append(f"  agreement on {counts.candidate.pairs} images: {counts.candidate.agreement:.1%} of the objects")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
