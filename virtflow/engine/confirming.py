"""Confirming what nobody has reverted for as long as ``[resize] confirm_after`` says."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from virtflow.errors import Refusal
from virtflow.persistence.models.base import now
from virtflow.persistence.operations import Operation

if TYPE_CHECKING:
    from virtflow.engine.runner import Runner

LOG = logging.getLogger(__name__)


def confirm_due(runner: Runner) -> list[Operation]:
    """Submit the confirmation of every resize and migration that is due, of this runner's project.

    Each is asked for once, whoever asks: its idempotency key follows from the operation that it confirms. One that
    cannot be confirmed now, because something else holds the instance, is confirmed another time.
    """
    from virtflow.requests import ConfirmRequest

    after = runner.config.resize.confirm_after
    if not after:
        return []
    submitted = []
    for each in runner.services["instance_specs"].unconfirmed():
        instance = runner.services["instances"].get(each.instance)
        resize = runner.operations.get(each.operation, tasks=False)
        finished = resize.finished_at if resize.outcome == "SUCCESS" else None
        due = finished is not None and finished + after * 1_000_000 <= now()
        if not due or instance.project != runner.config.project_name or runner.operations.holder(resize.target):
            continue
        try:
            submitted.append(runner.submit(ConfirmRequest(name=instance.name), key=f"confirm {resize.id}"))
        except Refusal as error:
            LOG.warning("cannot confirm the resize of instance %s: %s", instance.name, error)
    return submitted
