"""Live migration, on the host where the guest runs, before anything is done: what is it, and what are its disks?

1. CheckSource              it runs; as what, and on which storage
2. DescribeRunningDisks
3. DescribeVifs             of which nothing is left here in the end
"""

from __future__ import annotations

from collections.abc import Hashable

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.flows.kind import FlowKind
from virtflow.tasks.live_migrate_source import CheckSource, DescribeRunningDisks
from virtflow.tasks.network import DescribeVifs


def build(_shape: Hashable) -> Flow:
    """The segment."""
    return linear_flow.Flow("live-migrate.inspect").add(
        CheckSource(), DescribeRunningDisks(), DescribeVifs(provides="source_vifs")
    )


KIND = FlowKind("live-migrate.inspect", 1, build, outputs=("source", "disks", "source_vifs"))
"""What the parent flow knows of the source from then on."""
