from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["hypervisor", "hypervisor.domain_xml", "hypervisor.disk_mapping"])
def test_pure_modules_do_not_load_libvirt(module: str) -> None:
    code = f"import sys, virtflow.{module}; sys.exit('libvirt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
