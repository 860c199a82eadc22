"""Choosing a host: what a request says of it, the choice itself, and what follows when the host will not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from taskflow import retry
from taskflow.exceptions import WrappedFailure
from taskflow.types.failure import Failure

from virtflow import errors
from virtflow.errors import NoValidHost
from virtflow.redaction import scrub
from virtflow.tasks.base import Task

_LONGEST_REASON = 300
"""Characters of a failure that a decision repeats."""


def placement_fields(request: Mapping[str, Any], flavor: Any) -> dict[str, Any]:
    """The fields of the specification that decide about the host.

    ``host`` is the only one that will do, ``zone`` the zone it must be in; None leaves either open. ``host_wanted`` are
    the flavor's properties about hosts.
    """
    properties = {} if flavor is None else flavor.properties
    wanted = {name: value for name, value in properties.items() if name.startswith("capabilities:")}
    return {"host": request.get("host"), "zone": request["availability_zone"], "host_wanted": wanted}


class SelectHost(Task):
    """Choose a host for the instance, and the next best; the decision is kept with its reasons.

    Nothing is claimed yet; nothing to revert. A second execution decides again, and that decision counts.
    """

    default_provides = ("host", "alternates")

    def execute(
        self,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        attempt: Mapping[str, Any],
        host_choice: Any,
        segments: Any,
    ) -> tuple[str, list[str]]:
        decision = host_choice.choose(spec, instance_uuid, operation, attempt, segments.only_host)
        if decision.chosen is None:
            refused = decision.refused
            missing = spec["host"] is not None and not refused
            reason = f"host {spec['host']} is not registered" if missing else decision.in_words()
            raise NoValidHost(target=f"instance {spec['name']}", reason=reason, refused=refused)
        return decision.chosen, list(decision.alternates)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class NextHost(retry.Retry):
    """Try another host when one fails in a way that another might not.

    Everything that was made on the failed host is reverted first. Provides the number of the attempt, the hosts that
    were tried, each with its reason, and the alternates of the last decision.

    The operation fails with what the host failed with when no other host would mend it, when no other host fits, and
    after ``[scheduler] max_attempts`` hosts.
    """

    _ARGUMENTS: tuple[str, ...] = ("spec", "instance_uuid", "operation", "host_choice", "segments")

    def __init__(self, name: str = "NextHost", *, spec: str = "spec") -> None:
        """``spec`` is the name under which the specification is stored."""
        rebind = {argument: argument for argument in self._ARGUMENTS} | {"spec": spec}
        super().__init__(name=name, provides="attempt", rebind=rebind, auto_extract=False)

    def execute(self, history: retry.History, operation: str, host_choice: Any, **_kwargs: Any) -> dict[str, Any]:
        if not len(history):
            return {"attempt": 1, "tried": {}, "alternates": []}
        before = host_choice.chosen_before(operation)
        tried = _tried([failures for _provided, failures in history], [chosen for chosen, _others in before])
        alternates = [name for name in before[-1][1] if name not in tried] if before else []
        return {"attempt": len(history) + 1, "tried": tried, "alternates": alternates}

    def on_failure(
        self,
        history: retry.History,
        spec: Mapping[str, Any],
        instance_uuid: str,
        operation: str,
        host_choice: Any,
        segments: Any,
    ) -> str:
        failures = [found for _provided, found in history]
        if len(failures) >= host_choice.limits.max_attempts or not all(map(mendable, failures[-1].values())):
            return str(retry.REVERT)
        chosen = [chosen for chosen, _others in host_choice.chosen_before(operation)]
        if len(chosen) < len(failures):
            return str(retry.REVERT)  # the choice itself failed: no host is to blame
        tried = _tried(failures, chosen)
        another = host_choice.other_host_fits(spec, instance_uuid, tried, segments.only_host)
        return str(retry.RETRY if another else retry.REVERT)


def mendable(failure: Failure) -> bool:
    """Whether another host might succeed where this failed."""
    inner = failure.exception
    if isinstance(inner, WrappedFailure):
        return all(map(mendable, inner))
    names = (name.rpartition(".") for name in failure)
    ours = (getattr(errors, name, None) for module, _dot, name in names if module == errors.__name__)
    kind = next((found for found in ours if found is not None), None)
    return True if kind is None else bool(getattr(inner, "retry_elsewhere", kind.retry_elsewhere))


def _tried(failures: Iterable[Mapping[str, Failure]], chosen: Iterable[str | None]) -> dict[str, str]:
    """Hosts that failed, with what they failed with.

    A host that only did not suit the server group as it was placed just then is no bad host: others have moved.
    """
    tried = {}
    for found, host in zip(failures, chosen, strict=False):
        if host is not None and not any(failure.check(errors.PolicyViolated) for failure in found.values()):
            tried[host] = "; ".join(_in_words(name, failure) for name, failure in found.items())
    return tried


def _in_words(step: str, failure: Failure) -> str:
    text = scrub(f"{step}: {failure.exception_str}").replace("\n", " ")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."
