"""A runner that reaches the workers: what a worker itself, and whoever submits to workers, begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from virtflow.engine.runner import Runner
from virtflow.flows.registry import Registry
from virtflow.persistence.job_statements import JobStatements
from virtflow.worker.boards.board import Board
from virtflow.worker.boards.opening import open_board
from virtflow.worker.dispatch import BoardDispatch, JoinedDispatch

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.dispatch import Dispatch


def connect(
    config: Config,
    *,
    on_event: Callable[[Any], None] | None = None,
    registry: Registry | None = None,
    services: Mapping[str, Any] | None = None,
) -> tuple[Runner, Board]:
    """The runner, and the board that its jobs go to, which is closed with it.

    ``services`` replaces what is built from the configuration.
    """

    def dispatch(board: Board, runner: Runner) -> Dispatch:
        if config.jobboard.backend == "sql":
            return JoinedDispatch(JobStatements(runner.core.writer))
        return BoardDispatch(board)

    runner = Runner(config, on_event=on_event, registry=registry, services=services)
    try:
        board = open_board(config, runner.database)
    except BaseException:
        runner.close()
        raise
    runner.core.dispatch = dispatch(board, runner)
    runner.core.closers.append(board.close)
    return runner, board
