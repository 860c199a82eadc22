"""TaskFlow's action engine with our barriers, and without what made it slow.

This package alone leans on private parts of TaskFlow 6.5.0 (the version is pinned in setup.cfg); TaskFlow's own engine
tests run against it. What differs from stock:

- a write is recorded, not sent: the executor commits at its barriers;
- storage is read and written without reader-writer locks and copies: the engine's thread alone changes it, under the
  recorder's lock, so that no commit of another thread sees half a change;
- the next tasks are found without descending behind a task that has not finished (or, reverting, is not reverted);
- the state machine is a loop;
- preparing does not pass through RESUMING and SUSPENDED, and never resets a REVERTED flow (that would run it again);
- what depends on the graph alone is worked out once and shared between runs (a ``Template``): tasks hold no state.
"""

from virtflow.engine.taskflow_engine.engine import FlowEngine
from virtflow.engine.taskflow_engine.template import Template

__all__ = ["FlowEngine", "Template"]
