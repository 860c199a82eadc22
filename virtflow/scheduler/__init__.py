"""On which host an instance may be, and on which it should be. Pure logic over plain values."""

from virtflow.scheduler.decision import Considered, Decision
from virtflow.scheduler.hosts import Amounts, HostState
from virtflow.scheduler.request_spec import RequestSpec
from virtflow.scheduler.selection import Scheduler

__all__ = ["Amounts", "Considered", "Decision", "HostState", "RequestSpec", "Scheduler"]
