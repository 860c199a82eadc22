"""The tutorial, the how-to pages and the README do what they say: their commands and programs are run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from virtflow.testing import known_qemus

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SURROUNDINGS = re.compile(r"make |\. |export |cd |pip |sudo |rm |virtflow doctor|virtflow db |.* \| jq")
"""What a reader types to get there; here the fixture does it."""
PARTICULAR = re.compile(r".* 12\b")
"""Of an operation that only the reader has."""

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Shown:
    """A command as a page shows it: the exit code and the table that it says follow, where it does."""

    command: str
    code: int | None
    table: tuple[str, ...]


def _blocks(page: str, language: str) -> list[str]:
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [content for kind, content in found if kind == language]


def _shown(page: str) -> Iterator[Shown]:
    lines = [line for block in _blocks(page, "console") for line in block.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ") and line != "$ echo $?"]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command, answer = lines[start].removeprefix("$ "), lines[start + 1 : end]
        code = int(answer[answer.index("$ echo $?") + 1]) if "$ echo $?" in answer else None
        yield Shown(command, code, tuple(line for line in answer if line.startswith(("+", "|"))))


@dataclass(frozen=True)
class Reader:
    """Somebody at a shell, with a state directory of their own."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return os.environ | {
            "PATH": path,
            "VIRTFLOW_STATE_DIR": str(self.state),
            "VIRTFLOW_LIBVIRT__VIRT_TYPE": "qemu",
        }

    def types(self, command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        argv = ["bash", "-c", command]
        return subprocess.run(argv, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False)

    def follows(self, shown: Sequence[Shown]) -> None:
        for each in shown:
            done = self.types(each.command)
            code = 128 - done.returncode if done.returncode < 0 else done.returncode
            told = f"$ {each.command}\n{done.stdout}{done.stderr}"
            if each.code is None and "VIRTFLOW_FAULT" in each.command:
                assert code != 0, told
            else:
                assert code == (each.code or 0), told
            if each.table:
                assert each.table == tuple(done.stdout.splitlines()), told

    def runs(self, program: str, cwd: Path) -> str:
        text = re.sub(r'"/var/tmp/(embedded|notes)"', repr(str(self.state)), program)
        argv = [sys.executable, "-c", text]
        done = subprocess.run(argv, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leaves_nothing(self) -> None:
        listed = self.types("virtflow operation list -f csv --quote none -c number -c outcome").stdout.splitlines()[1:]
        for number, outcome in (line.split(",") for line in listed):
            if outcome == "SUCCESS":
                self.types(f"virtflow operation undo {number}")
        audit = self.types("virtflow audit")
        assert audit.returncode == 0, audit.stdout
        shutil.rmtree(self.state, ignore_errors=True)


@pytest.fixture
def reader(short_tmp_path: Path, embed_root: Path) -> Iterator[Reader]:
    state = short_tmp_path / "s"
    known_qemus.tell(state / "libvirt" / "cache")
    reader = Reader(state)
    yield reader
    reader.leaves_nothing()


@pytest.fixture
def furnished(reader: Reader) -> Reader:
    for command in (
        'virtflow image add tiny "$(python -m virtflow.testing.guest | awk \'$1 == "disk" { print $2 }\')"',
        "virtflow network create blue --cidr 10.77.8.0/24 --gateway 10.77.8.1",
    ):
        done = reader.types(command)
        assert done.returncode == 0, done.stderr
    return reader


def test_the_tutorial_works_as_written(reader: Reader) -> None:
    shown = [each for each in _shown("docs/tutorial/first-ten-minutes.md") if not SURROUNDINGS.match(each.command)]
    assert len(shown) > 20
    reader.follows(shown)


def test_the_session_of_the_readme_works_as_written(reader: Reader) -> None:
    shown = [each for each in _shown("README.md") if not SURROUNDINGS.match(each.command)]
    assert sum("spawn" in each.command for each in shown) == 2
    reader.follows(shown)


@pytest.mark.parametrize("page", ["resume-after-a-crash", "pay-a-debt", "purge-the-trash"])
def test_what_a_how_to_page_shows_works(furnished: Reader, page: str) -> None:
    shown = [each for each in _shown(f"docs/how-to/{page}.md") if not PARTICULAR.match(each.command)]
    assert len(shown) >= 2
    furnished.follows(shown)


def test_the_ten_lines_of_the_readme_spawn_and_undo(furnished: Reader, short_tmp_path: Path) -> None:
    (program,) = _blocks("README.md", "python")
    told = furnished.runs(program, short_tmp_path)
    assert "SUCCESS 0" in told
    assert "('domain', 'web1')" in told
    assert told.rstrip().endswith("ValidateRequest REVERTED")


def test_the_programs_of_the_page_on_embedding_work(reader: Reader, short_tmp_path: Path) -> None:
    image = reader.types("python -m virtflow.testing.guest | awk '$1 == \"disk\" { print $2 }'").stdout.strip()
    shutil.copy(image, short_tmp_path / "guest.qcow2")
    told = reader.runs("\n".join(_blocks("docs/how-to/embed.md", "python")), short_tmp_path)
    assert told.startswith("SUCCESS ['ValidateRequest'")


def test_the_flow_that_the_page_on_flows_writes_runs_and_survives_the_sweep(reader: Reader) -> None:
    folder = ROOT / "docs/how-to/own_flow"
    example, program = _blocks("docs/how-to/write-a-flow.md", "python")
    assert example == (folder / "notes.py").read_text(encoding="utf-8")
    assert reader.runs(program, folder).split() == ["SUCCESS", "UNDONE"]
    done = reader.types("PYTHONPATH=. python -m virtflow.testing.sweep notes:SCENARIO", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = next(block for block in _blocks("docs/how-to/write-a-flow.md", "console") if "sweep" in block)
    assert shown.splitlines()[-1] == done.stdout.splitlines()[-1] == "22 cases, 0 with problems"
