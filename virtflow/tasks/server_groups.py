"""Server groups: becoming a member, and whether the claimed host suits the group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.errors import PolicyViolated
from virtflow.scheduler.policies import Placed, objection
from virtflow.tasks.base import Intent, Task


def server_group(request: Mapping[str, Any], project: str, server_groups: Any) -> dict[str, str] | None:
    """The group that a request names, as it stands in the specification. NotFound."""
    if request["server_group"] is None:
        return None
    group = server_groups.get(request["server_group"], project)
    return {"id": group.id, "name": group.name, "policy": group.policy}


class JoinServerGroup(Task):
    """Make the instance a member of its server group. Only live instances count, so a delete needs no leaving.

    Reverts: ends the membership that this operation began. Joining twice is joining once.
    """

    def intents(self, spec: Mapping[str, Any], instance_uuid: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("server_group_member", f"{spec['server_group']['id']}/{instance_uuid}"),)

    def execute(
        self, spec: Mapping[str, Any], instance_uuid: str, operation: str, server_groups: Any, settings: Any
    ) -> None:
        server_groups.join(spec["server_group"]["id"], instance_uuid, operation, limit=settings.server_group_members)

    def revert(self, instance_uuid: str, operation: str, server_groups: Any, **_kwargs: Any) -> None:
        server_groups.leave(instance_uuid, operation)


class CheckGroupPolicy(Task):
    """Check that the claimed host suits the server group, given the claims of its other members.

    After the claim: members that look for hosts at the same time see each other only by what they have claimed.
    It only reads; nothing to revert.
    """

    def execute(self, spec: Mapping[str, Any], instance_uuid: str, host: str, server_groups: Any) -> None:
        _check(spec["server_group"], instance_uuid, host, server_groups)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class CheckDestinationPolicy(Task):
    """CheckGroupPolicy of an instance that goes to another host; one that stays, or is in no group, suits.

    It only reads; nothing to revert.
    """

    def execute(
        self, spec: Mapping[str, Any], instance_uuid: str, source_host: str, destination: str, server_groups: Any
    ) -> None:
        if spec["server_group"] is not None and destination != source_host:
            _check(spec["server_group"], instance_uuid, destination, server_groups)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


def _check(group: Mapping[str, str], instance_uuid: str, host: str, server_groups: Any) -> None:
    """Raise PolicyViolated when the host, which the instance has claimed, does not suit the group."""
    placed = [
        Placed(member.instance, member.host, member.generation)
        for member in server_groups.members(group["id"])
        if member.host is not None
    ]
    (candidate,) = [each for each in placed if (each.instance, each.host) == (instance_uuid, host)]
    reason = objection(group["policy"], candidate, placed)
    if reason is not None:
        raise PolicyViolated(host=host, group=group["name"], policy=group["policy"], reason=reason)
