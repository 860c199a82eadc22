"""With CI=true, tests that have failed are run once more when all others have ended: alone, in a session of their own.

What fails only beside others, on a machine that is short of time, does not stop a change that way. It is not passed
over, either: how it failed stands in the output, and the last line counts it as rerun. It is a mistake to be looked
for, in the test or in the product: see CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MOST = 5
"""With more failures than these, it is not chance."""
_SECONDS = 600
"""They may take; CI has a limit, too."""
_AGAIN = "VIRTFLOW_TESTS_AGAIN"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    here = os.environ.get("CI") == "true" and _AGAIN not in os.environ and not hasattr(config, "workerinput")
    if not here or reporter is None or exitstatus != pytest.ExitCode.TESTS_FAILED:
        return
    failed = [report for kind in ("failed", "error") for report in reporter.stats.get(kind, [])]
    tests = list(dict.fromkeys(report.nodeid for report in failed))
    if not 0 < len(tests) <= MOST:
        return
    reporter.section("what has failed is run once more", "=")
    for report in failed:
        reporter.section(report.nodeid, "_")
        report.toterminal(reporter._tw)
    if _pass(tests, config):
        for kind in ("failed", "error"):
            reporter.stats.pop(kind, None)
        reporter.stats["rerun"] = failed
        session.exitstatus = pytest.ExitCode.OK


def _pass(tests: list[str], config: pytest.Config) -> bool:
    """Run them in a session of their own."""
    plugins = [f"-p{name}" for name in config.option.plugins]
    command = [sys.executable, "-m", "pytest", "--color=no", *plugins, *tests]
    environment = {**os.environ, _AGAIN: "1"}
    sys.stdout.flush()
    try:
        done = subprocess.run(command, cwd=config.rootpath, env=environment, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
