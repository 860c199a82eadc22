"""Live migration, on the host where the guest runs: it goes.

1. UntilJudged      whatever breaks without a word about where the guest is, is tried again: that looks first
2. Migrate
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_source import Migrate, UntilJudged


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.leave").add(linear_flow.Flow("go", retry=UntilJudged()).add(Migrate()))


KIND = FlowKind("live-migrate.leave", 1, build, outputs=("migrated",))
