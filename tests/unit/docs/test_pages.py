"""What the pages say is so: commands parse, links lead somewhere, examples are code, tables are complete."""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow import faults
from virtflow.cli.main import Virtflow
from virtflow.errors import VirtflowError
from virtflow.persistence import ledger, operations
from virtflow.persistence.decisions import DecisionRecord
from virtflow.persistence.models import metadata
from virtflow.persistence.segments import Segment
from virtflow.persistence.timeline import TaskRecord

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
APP = Virtflow(io.StringIO(), io.StringIO())


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield content


def _commands(page: Path) -> Iterator[str]:
    for block in _blocks(page, "console"):
        yield from (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
    for block in _blocks(page, "sh"):
        yield from block.splitlines()


def _virtflow_words(command: str) -> list[str] | None:
    """The arguments of the virtflow command in a line, if there is one."""
    text = re.sub(r'"\$\(.*?\)"', "FILE", command).partition(" | ")[0].partition(" > ")[0]
    words = shlex.split(text, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words[1:] if words[:1] == ["virtflow"] else None


ALL_COMMANDS = [(_name(page), command) for page in PAGES for command in _commands(page)]


def test_the_pages_show_commands() -> None:
    assert sum(_virtflow_words(command) is not None for _page, command in ALL_COMMANDS) > 100


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS)
def test_every_command_that_is_shown_is_one(page: str, command: str) -> None:
    words = _virtflow_words(command)
    if not words:
        return
    cls, name, arguments = APP.command_manager.find_command(words)
    cls(APP, argparse.Namespace(), cmd_name=name).get_parser(f"virtflow {name}").parse_args(arguments)


@pytest.mark.parametrize(("page", "command"), [pair for pair in ALL_COMMANDS if "VIRTFLOW_FAULT=" in pair[1]])
def test_every_fault_that_is_shown_is_understood_and_names_a_task(page: str, command: str) -> None:
    words = shlex.split(command)
    points = faults.parse(next(word for word in words if word.startswith("VIRTFLOW_FAULT=")).partition("=")[2])
    assert points is not None
    tasks = re.findall(r"^### (\w+)$", (ROOT / "docs/reference/tasks.md").read_text(), re.MULTILINE)
    assert {fault.point.partition(".")[0].partition(" ")[0] for fault in points.faults} <= {*tasks, "write"}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_page_can_be_found_from_the_readme(page: Path) -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        current = ahead.pop()
        if current in seen or current.suffix != ".md":
            continue
        seen.add(current)
        links = (link.partition("#")[0] for link in LINK.findall(current.read_text(encoding="utf-8")))
        ahead += [(current.parent / link).resolve() for link in links if link and not link.startswith("http")]
    assert page in seen


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_page_shows_a_path_of_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert "/root/" not in text


@pytest.mark.parametrize("page", [page for page in PAGES if any(_blocks(page, "python"))], ids=_name)
def test_python_examples_import_what_exists(page: Path) -> None:
    for block in _blocks(page, "python"):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        code = ast.unparse(ast.Module(body=imports, type_ignores=[]))
        command = [sys.executable, "-c", code]
        path = os.pathsep.join(str(ROOT / f"docs/how-to/{own}") for own in ("own_flow", "own_filter"))
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr


def test_the_readme_embeds_in_ten_lines() -> None:
    (block,) = _blocks(ROOT / "README.md", "python")
    assert len([line for line in block.splitlines() if line]) <= 10


def _first_column(page: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]+`) \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_field_of_an_operation_is_described_and_no_other() -> None:
    plain = operations.new_operation("spawn", 1, "instance:web1", {}, "default").to_dict()
    task = TaskRecord("Accept", "spawn", None, "PENDING", 0, None, None, None, None).to_dict()
    decision = DecisionRecord(1, "", 1, 0, None, {}).to_dict()
    segment = Segment("", "", "", "", "RUN", "DONE", {}, None, None, True, 0, 0, 0).to_dict()
    known = {*plain, *task, "decisions", *decision, "segments", *segment, "waits_for"}
    assert _first_column("docs/reference/operation-json.md") == known


def test_every_state_and_outcome_is_described() -> None:
    known = {operations.ACCEPTED, operations.RUNNING, operations.UNDOING, operations.FINISHED, operations.SUCCESS}
    known |= {operations.REVERTED, operations.REVERTED_WITH_DEBT, operations.FAILED_FORWARD, operations.CANCELLED}
    known |= {operations.UNDONE, ledger.INTENDED, ledger.PRESENT, ledger.CLEARED, ledger.DEBT}
    assert known <= _first_column("docs/reference/states.md")


def test_every_table_of_the_database_is_described_and_no_other() -> None:
    text = (ROOT / "docs/reference/database.md").read_text(encoding="utf-8").partition("Beside the database")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} == set(metadata.tables)


def _all_errors(cls: type[VirtflowError] = VirtflowError) -> Iterator[type[VirtflowError]]:
    for error in cls.__subclasses__():
        yield error
        yield from _all_errors(error)


def test_every_exit_code_is_explained() -> None:
    text = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    explained = set(map(int, re.findall(r"^\| (\d+) \| [^`]", text, re.MULTILINE)))
    assert {error.exit_code for error in _all_errors() if error.__module__.startswith("virtflow.")} <= explained
    assert {0, 130, 141} <= explained
