from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import virtflow
from virtflow.errors import ConfigurationError
from virtflow.scheduler import Amounts, HostState, RequestSpec
from virtflow.scheduler.plugins import _SHIPPED, FILTERS, WEIGHERS, load_scheduler

ROOT = Path(virtflow.__file__).parent.parent

MODULE = """
class NotOnFriday:
    def for_request(self, spec):
        return lambda host: "it is Friday" if host.name.startswith("f") else None


class Broken:
    def __init__(self):
        raise RuntimeError("no licence")
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed, with entry points of its own."""
    (tmp_path / "fridays.py").write_text(MODULE)
    info = tmp_path / "fridays-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fridays\nVersion: 1.0\n")
    points = f"[{FILTERS}]\nnot-on-friday = fridays:NotOnFriday\nbroken = fridays:Broken\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from stevedore import ExtensionManager, _cache

    monkeypatch.setattr(_cache, "_c", _cache.Cache())
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})


@pytest.mark.usefixtures("other_package")
def test_a_filter_of_another_package_is_used_by_its_name() -> None:
    scheduler = load_scheduler(("capacity", "not-on-friday"), (), {})
    hosts = [HostState("friday", Amounts(1, 1, 1)), HostState("monday", Amounts(1, 1, 1))]
    decision = scheduler.select(RequestSpec(Amounts(1, 1, 1)), hosts)
    assert decision.chosen == "monday"
    assert decision.refused == {"friday": "it is Friday"}


@pytest.mark.usefixtures("other_package")
def test_a_filter_that_cannot_be_made_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"\[scheduler\] filters: 'broken' cannot be loaded: .*no licence"):
        load_scheduler(("broken",), (), {})


def test_a_plugin_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"\[scheduler\] weighers: 'gravity' is none of capacity, allocated"):
        load_scheduler((), ("gravity",), {})


def test_the_filter_of_the_how_to_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/write-a-filter.md").read_text(encoding="utf-8")
    package, trial = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    points = re.findall(r'^(maintenance|rack) = "maintenance:(\w+)"$', page, re.MULTILINE)
    assert package == (ROOT / "docs/how-to/own_filter/maintenance.py").read_text(encoding="utf-8")
    (tmp_path / "maintenance.py").write_text(package)
    rack = "from maintenance import RackWeigher\nprint(RackWeigher().weigh(RequestSpec(Amounts(1, 1, 1)), hosts[:1]))"
    command = [sys.executable, "-W", "error", "-c", f"{trial}{rack}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"6 of 7 hosts; (\w+): in maintenance on \1\n\[-0.0\]", done.stdout)
    assert points == [("maintenance", "MaintenanceFilter"), ("rack", "RackWeigher")]


def test_every_shipped_plugin_is_an_entry_point_too() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for namespace in (FILTERS, WEIGHERS):
        declared = dict(re.findall(r"(\S+) = (\S+)", setup["options.entry_points"][namespace]))
        shipped = {name: f"{cls.__module__}:{cls.__name__}" for name, cls in _SHIPPED[namespace].items()}
        assert declared == shipped
