"""Another process that has a board open. Run by test_boards.py.

``OPTIONS hold LEASE``: claims a job, says so, and after a line on its input, whether it still has it.
``OPTIONS drain OWNER``: says ``ready``, and after a line on its input claims and finishes what it gets, naming each.
"""

from __future__ import annotations

import json
import sys

from virtflow.config import load
from virtflow.persistence.database import Database
from virtflow.worker.boards.opening import open_board


def main(options: str, verb: str, argument: str) -> None:
    config = load(overrides=json.loads(options), env={})
    board = open_board(config, Database(f"sqlite:///{config.state_dir}/boards.db"))
    if verb == "hold":
        held = board.claim(["operations"], "to be lost", float(argument))
        assert held is not None
        print("claimed", flush=True)
        sys.stdin.readline()
        print("kept" if board.extend(held, float(argument)) else "lost", flush=True)
        return
    board.jobs()
    print("ready", flush=True)
    sys.stdin.readline()
    while job := board.claim(["operations"], argument, 60):
        print(job.name)
        assert board.finish(job)
    board.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
