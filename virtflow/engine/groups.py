"""A request for several instances: as many operations as the quota allows, each on its own, known by their group.

They are accepted together or not at all; from then on each succeeds or fails for itself.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from virtflow.errors import NotFound, OperationFailed, QuotaExceeded, Refusal, RevertIncomplete, VirtflowError
from virtflow.persistence.operations import FINISHED, Operation
from virtflow.persistence.quotas import UNLIMITED, Usage
from virtflow.tasks.disk_request import claimed
from virtflow.tasks.request import ValidateRequest

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner
    from virtflow.requests import SpawnRequest

LOG = logging.getLogger(__name__)
_NEEDED = ("image_source", "flavors", "networks", "server_groups", "settings", "volumes", "volume_backends")


def submit_group(runner: Runner, request: SpawnRequest) -> list[Operation]:
    """Accept as many instances as the quota allows, between ``min_count`` and ``most``; in the order of their numbers.

    QuotaExceeded when that is less than ``min_count``, and whatever refuses one of them, refuses them all: those that
    were accepted before it are taken back.
    """
    project = runner.config.project_name
    services = {name: runner.services[name] for name in _NEEDED}
    spec = ValidateRequest().execute(request.numbered(1)[0].to_plain(), project, **services)
    usage = runner.services["quotas"].usage(project)
    count = affordable(usage, {"instances": 1, **claimed(spec)}, request.min_count, request.most)
    group = str(uuid.uuid4())
    accepted: list[Operation] = []
    for member in request.numbered(count):
        try:
            accepted.append(runner.submit(member, group=group))
        except QuotaExceeded:
            # Others were quicker: what is accepted by now is all there will be, if it is enough.
            if len(accepted) >= request.min_count:
                break
            _withdraw(runner, accepted)
            raise
        except VirtflowError:
            _withdraw(runner, accepted)
            raise
    return accepted


def run_group(runner: Runner, request: SpawnRequest) -> list[Operation]:
    """Accept a group and run its members to their ends, several at once. Their outcomes tell how each one ended."""
    return _finish(runner, submit_group(runner, request))


def resume_group(runner: Runner, group: str) -> list[Operation]:
    """Go on with those members of a group that have not finished; all members. NotFound."""
    members = runner.operations.list(group=group, limit=10_000)[::-1]
    if not members:
        raise NotFound(kind="group", name=group)
    return _finish(runner, members)


def affordable(usage: Mapping[str, Usage], amounts: Mapping[str, int], least: int, most: int) -> int:
    """How many of ``amounts`` fit into what is left, at most ``most``. QuotaExceeded when less than ``least`` do."""
    count = most
    for resource, amount in amounts.items():
        found = usage[resource]
        if found.limit == UNLIMITED or amount == 0:
            continue
        left = max(found.limit - found.used - found.reserved, 0)
        if left < amount * least:
            fields = {"requested": amount * least, "available": left, "limit": found.limit}
            raise QuotaExceeded(resource=resource, **fields)
        count = min(count, left // amount)
    return count


def _withdraw(runner: Runner, accepted: Sequence[Operation]) -> None:
    for operation in reversed(accepted):
        try:
            runner.cancel(operation.id)
        except VirtflowError as error:
            LOG.warning("cannot take back operation %s of a refused group: %s", operation.number, error)


def _finish(runner: Runner, members: Sequence[Operation]) -> list[Operation]:
    def finish(member: Operation) -> Operation:
        try:
            return runner.resume(member.id)
        except (OperationFailed, RevertIncomplete, Refusal):
            return runner.operations.get(member.id)  # its outcome and its error say the same

    with ThreadPoolExecutor(min(len(members), runner.config.engine.threads), "virtflow-group") as pool:
        pending = [pool.submit(finish, member) for member in members if member.state != FINISHED]
    for future in pending:
        future.result()
    return [runner.operations.get(member.id) for member in members]
