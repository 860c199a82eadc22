"""Live migration, on the host where the guest was to be: is it there, now that the other one was fenced and is silent?

1. UntilJudged      whatever breaks without a word about where the guest is, is tried again: that looks anew
2. FindArrived
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_destination import FindArrived
from virtflow.tasks.live_migrate_source import UntilJudged


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.find").add(linear_flow.Flow("look", retry=UntilJudged()).add(FindArrived()))


KIND = FlowKind("live-migrate.find", 1, build, outputs=("migrated",))
