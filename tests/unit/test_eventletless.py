"""eventlet, which other libraries bring along, has no part in virtflow."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = [
    "virtflow.engine.runner",
    "virtflow.flows.registry",
    "virtflow.tasks.base",
    "virtflow.notifications.messaging",
]


@pytest.mark.parametrize("module", MODULES)
def test_taskflow_is_imported_without_eventlet_and_without_a_word(module: str) -> None:
    program = f"import sys, {module}; sys.exit('eventlet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_uses_eventlet_itself_can_still_import_it() -> None:
    program = "import sys, virtflow.engine.runner; sys.exit(sys.modules.get('eventlet', 1) is None)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
