"""Whatever a person gets wrong: one clear line on stderr, the right exit code, and nothing left.

The commands run in this process, on one host for all tests; after each of them the host is compared with what it was,
and audited.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.nodes import Answer, Node, node_up
from tests.unit.images.test_hostile_images import HOSTILE
from virtflow.cli.main import Virtflow
from virtflow.engine.audit import audit_of
from virtflow.persistence.flavors import Flavor

if TYPE_CHECKING:
    from tests.lab.postgres import Postgres
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.testing.residue import Residue

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

LONGEST_LINE = 2100
USAGE, NOT_FOUND, FAILED = 2, 3, 4


class Desk:
    """Where mistakes are made."""

    def __init__(self, node: Node, before: Residue) -> None:
        self.node = node
        self.before = before

    def __call__(self, *words: str, **settings: str) -> Answer:
        config = self.node.config
        fixed = {
            "libvirt.uri": config.libvirt.uri,
            "libvirt.virt_type": "qemu",
            "images.catalog": str(config.images.catalog),
            "engine.revert_backoff": "0.01",
        }
        chosen = fixed | {name.replace("__", "."): value for name, value in settings.items()}
        options = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
        out, err = io.StringIO(), io.StringIO()
        with own_log_handlers():
            code = Virtflow(out, err).run(["--state-dir", str(self.node.state), *options, *words])
        return Answer(code, out.getvalue(), err.getvalue())

    def spawn(self, *more: str, name: str = "web1", **settings: str) -> Answer:
        size = [] if "--vcpus" in more or "--flavor" in more else ["--vcpus", "1", "--memory", "32", "--disk", "1"]
        image = [] if any(word.startswith("--image") for word in more) else ["--image", "halt"]
        return self("spawn", *image, *size, *more, *([name] if name else []), **settings)

    def nothing_happened(self) -> None:
        assert self.node.left_since(self.before) == []
        assert audit_of(self.node.runner) == []


@contextmanager
def own_log_handlers() -> Iterator[None]:
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="module")
def furnished(
    embed_root: Path,
    _session_hypervisor: Hypervisor,
    catalog: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    own = tmp_path_factory.mktemp("bad") / "catalog"
    shutil.copytree(catalog, own)
    with node_up(embed_root, own) as node:
        big = own.parent / "big.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", big, "3G"], check=True)
        source = node.runner.services["image_source"]
        source.add(big, "big", "qcow2")
        source.add(big, "choosy", "qcow2", 5, 64)
        node.runner.services["flavors"].create(Flavor(name="m1", vcpus=1, memory_mib=32, disk_gib=1))
        yield node


@pytest.fixture
def desk(furnished: Node) -> Iterator[Desk]:
    desk = Desk(furnished, furnished.residue())
    yield desk
    desk.nothing_happened()


def refused(answer: Answer, code: int, *told: str) -> None:
    """One line of error and nothing else: whatever is wrong with a request is said before anything is done."""
    assert len(answer.err.splitlines()) == 1, answer
    failed(answer, code, *told)


def failed(answer: Answer, code: int, *told: str) -> None:
    """One line of error, after the lines that say how far it got."""
    assert answer.code == code, answer
    *progress, line = answer.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \w+: ", each) for each in progress), answer
    assert line.startswith("virtflow: error: "), answer
    assert line.isprintable()
    assert len(line) < LONGEST_LINE
    assert answer.out == ""
    for text in told:
        assert text in line


# -- what does not exist, or does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--image", "nosuch"), "image 'nosuch' not found"),
        (("--flavor", "nosuch"), "flavor 'nosuch' not found"),
        (("--network", "nosuch"), "network 'nosuch' not found"),
    ],
)
def test_what_does_not_exist_is_named(desk: Desk, options: tuple[str, ...], told: str) -> None:
    refused(desk.spawn(*options), NOT_FOUND, told)
    refused(desk.spawn(*options, "--plan"), NOT_FOUND, told)


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "nobody"),
        ("instance", "show", "nobody"),
        ("instance", "console", "nobody"),
        ("operation", "show", "4711"),
        ("operation", "resume", "4711"),
        ("operation", "cancel", "4711"),
        ("operation", "undo", "4711"),
        ("operation", "retry-revert", "4711"),
        ("image", "show", "nosuch"),
        ("image", "remove", "nosuch"),
        ("flavor", "delete", "nosuch"),
        ("network", "delete", "nosuch"),
    ],
)
def test_every_command_says_what_it_did_not_find(desk: Desk, words: tuple[str, ...]) -> None:
    refused(desk(*words), NOT_FOUND, "not found", words[-1])


def test_a_name_that_is_taken_is_refused_and_its_instance_stays(furnished: Node) -> None:
    spawn = furnished.spawn("taken", networks=[])
    desk = Desk(furnished, furnished.residue())
    try:
        refused(desk.spawn(name="taken"), FAILED, "instance 'taken' exists already")
        refused(desk.spawn("--plan", name="taken"), FAILED, "instance 'taken' exists already")
        desk.nothing_happened()
        assert furnished.state_of("taken") == "running"
    finally:
        furnished.runner.undo(spawn.id)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--image", "big"), "disk: 1 GiB is smaller than image 'big' (3221225472 bytes)"),
        (
            ("--image", "choosy", "--vcpus", "1", "--memory", "64", "--disk", "4"),
            "disk: 4 GiB is less than image 'choosy' needs (5 GiB)",
        ),
        (
            ("--image", "choosy", "--vcpus", "1", "--memory", "32", "--disk", "5"),
            "memory: 32 MiB is less than image 'choosy' needs (64 MiB)",
        ),
        (("--flavor", "m1", "--vcpus", "1"), "flavor: cannot be combined with vcpus"),
        (("--vcpus", "1"), "memory_mib: is required"),
        (("--vcpus", "0", "--memory", "32", "--disk", "1"), "vcpus: "),
        (("--vcpus", "1", "--memory", "32", "--disk", "99999999999999999999"), "disk_gib: "),
        (("--vcpus", "one", "--memory", "32", "--disk", "1"), "--vcpus"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(desk: Desk, options: tuple[str, ...], told: str) -> None:
    refused(desk.spawn(*options), USAGE, told)


@pytest.mark.parametrize(
    ("resource", "limit", "told"),
    [
        ("instances", 0, "quota exceeded for instances: 1 requested, 0 of 0 left"),
        ("vcpus", 1, "quota exceeded for vcpus: 2 requested, 1 of 1 left"),
        ("memory_mib", 33, "quota exceeded for memory_mib: 64 requested, 33 of 33 left"),
        ("disk_gib", 1, "quota exceeded for disk_gib: 2 requested, 1 of 1 left"),
    ],
)
def test_an_exceeded_quota_says_which_how_much_and_what_is_left(
    desk: Desk, resource: str, limit: int, told: str
) -> None:
    size = ("--vcpus", "2", "--memory", "64", "--disk", "2")
    settings = {f"quota__{resource}": str(limit)}
    refused(desk.spawn(*size, **settings), FAILED, told)
    refused(desk.spawn(*size, "--plan", **settings), FAILED, told)


@pytest.mark.parametrize(
    ("network", "code", "told"),
    [
        ("net0,ip=10.94.0.1", USAGE, "10.94.0.1"),
        ("net0,ip=10.93.7.1", USAGE, "10.93.7.1"),
        ("net0,ip=10.93.7.0", USAGE, "10.93.7.0"),
        ("net0,ip=nonsense", USAGE, "must be an IP address"),
        ("net0,mac=00:11:22:33:44:55", USAGE, "must be NETWORK or NETWORK,ip=ADDRESS"),
        ("net0,", USAGE, "must be NETWORK or NETWORK,ip=ADDRESS"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(desk: Desk, network: str, code: int, told: str) -> None:
    refused(desk.spawn("--network", network), code, told)


# -- values that are attacks, or accidents ----------------------------------------------------------------------------

HOSTILE_VALUES = {
    "empty": "",
    "slash": "a/b",
    "climbs": "../../etc/passwd",
    "dots": "..",
    "nul": "a\0b",
    "escape": "a\x1b[2Jb",
    "quotes": """a'b"c`d""",
    "newline": "a\nb",
    "dash": "-rf",
    "xml": "</name><devices>",
    "surrogate": "a\udcffb",
    "bidi": "a\u202eb",
    "line_separator": "a\u2028b",
    "long": "x" * 10_000,
}
NAMES = {
    "spawn": ("spawn", "--image=halt", "--flavor=m1", "--plan", "--", "{}"),
    "image": ("spawn", "--image={}", "--flavor=m1", "--plan", "web1"),
    "flavor": ("spawn", "--image=halt", "--flavor={}", "--plan", "web1"),
    "network": ("spawn", "--image=halt", "--flavor=m1", "--network={}", "--plan", "web1"),
    "address": ("spawn", "--image=halt", "--flavor=m1", "--network=net0,ip={}", "--plan", "web1"),
    "zone": ("spawn", "--image=halt", "--flavor=m1", "--availability-zone={}", "--plan", "web1"),
    "ssh_key": ("spawn", "--image=halt", "--flavor=m1", "--ssh-key={}", "--plan", "web1"),
    "user_data": ("spawn", "--image=halt", "--flavor=m1", "--user-data={}", "--plan", "web1"),
    "file": ("spawn", "--image=halt", "--flavor=m1", "--file=/etc/x={}", "--plan", "web1"),
    "file_path": ("spawn", "--image=halt", "--flavor=m1", "--file={}=/etc/hostname", "--plan", "web1"),
    "password": ("spawn", "--image=halt", "--flavor=m1", "--admin-password-file={}", "--plan", "web1"),
    "request": ("spawn", "--request={}"),
    "delete": ("delete", "--", "{}"),
    "instance_show": ("instance", "show", "--", "{}"),
    "console": ("instance", "console", "--", "{}"),
    "operation_show": ("operation", "show", "--", "{}"),
    "undo": ("operation", "undo", "--", "{}"),
    "image_add": ("image", "add", "--disk-format=raw", "--", "new", "{}"),
    "image_format": ("image", "add", "--disk-format={}", "new", "/etc/hostname"),
    "image_remove": ("image", "remove", "--", "{}"),
    "flavor_create": ("flavor", "create", "--vcpus=1", "--memory=32", "--disk=1", "--", "{}"),
    "network_create": ("network", "create", "--cidr=10.5.0.0/24", "--", "{}"),
    "network_cidr": ("network", "create", "new", "--cidr={}"),
    "network_gateway": ("network", "create", "new", "--cidr=10.5.0.0/24", "--gateway={}"),
    "network_dns": ("network", "create", "new", "--cidr=10.5.0.0/24", "--dns={}"),
    "network_bridge": ("network", "create", "new", "--cidr=10.5.0.0/24", "--bridge={}"),
    "network_pool": ("network", "create", "new", "--cidr=10.5.0.0/24", "--pool={}"),
    "quota_create": ("quota", "create", "--vcpus=1", "--", "{}"),
}
"""Options whose value names something: none of the values above is such a name."""

TEXTS = {
    "title": ("spawn", "--image=halt", "--flavor=m1", "--title={}", "--plan", "web1"),
    "meta_value": ("spawn", "--image=halt", "--flavor=m1", "--meta=key={}", "--plan", "web1"),
    "meta_key": ("spawn", "--image=halt", "--flavor=m1", "--meta={}=value", "--plan", "web1"),
}
"""Options whose value is text for people: control characters and endless ones are refused, the others carried."""
HARMLESS_TEXT = {"empty", "slash", "climbs", "dots", "quotes", "dash", "xml", "bidi"}


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("option", NAMES)
def test_a_hostile_name_is_refused_everywhere(
    desk: Desk, option: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where none of these names is a file
    answer = desk(*(word.format(HOSTILE_VALUES[value]) if "{}" in word else word for word in NAMES[option]))
    assert answer.code in (USAGE, NOT_FOUND), answer
    refused(answer, answer.code)


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("option", TEXTS)
def test_hostile_text_is_carried_unharmed_or_refused(desk: Desk, option: str, value: str) -> None:
    text = HOSTILE_VALUES[value]
    answer = desk(*(word.replace("{}", text) for word in TEXTS[option]), "-f", "json")
    if value in HARMLESS_TEXT and (option, value) != ("meta_key", "empty"):
        assert answer.code == 0, answer
        assert json.loads(answer.out)["target"] == "instance:web1"
    else:
        refused(answer, USAGE)


def test_hostile_text_reaches_the_domain_as_text(furnished: Node) -> None:
    title = """</title><devices/> & 'single' "double" ]]> <!-- -->"""
    spawn = furnished.spawn("texts", networks=[], title=title, meta={"k</meta>": """'";$(id)`id`"""})
    try:
        from lxml import etree

        xml = furnished.hypervisor.domain_xml(furnished.instance("texts").uuid)
        assert etree.fromstring(xml).findtext("title") == title
    finally:
        furnished.runner.undo(spawn.id)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"name": "a\\u0000b", "image": "halt", "flavor": "m1"}', "name: "),
        (b'{"name": "web1", "image": "halt", "flavor": "m1", "nonsense": 1}', "nonsense"),
        (b'{"name": "web1", "image": "halt", "flavor": "m1", "vcpus": "1; rm -rf /"}', "vcpus"),
        (b'{"name": ["web1"], "image": "halt", "flavor": "m1"}', "name: "),
        (b'{"name": "web1", "image": "halt", "flavor": "m1", "user_data": "not base64!"}', "user_data: "),
        (b'{"name": "web1", "image": "halt", "flavor": "m1", "meta": {"k": {"deep": 1}}}', "meta"),
        (b"- a\n- list\n", "request: must be a mapping"),
        (b"{" * 5000, "request file"),
        (b"name: [unclosed", "is not YAML or JSON at line"),
        (b"!!python/object/apply:os.system ['id']", "is not YAML or JSON"),
        (b"\xff\xfe\x00bad", "request"),
        (b"", "request: must be a mapping"),
        (b"a: &a [x,x]\nb: &b [*a,*a,*a,*a]\nmeta: {k: *b}\nname: web1\n", "meta.k: must be text"),
        (b" " * (5 << 20), "request file: "),
    ],
)
def test_a_request_file_that_makes_no_sense_is_refused(desk: Desk, tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "request.yaml"
    path.write_bytes(content)
    refused(desk("spawn", "-r", str(path)), USAGE, told)


# -- files ------------------------------------------------------------------------------------------------------------


def test_user_data_may_have_64_kib_and_not_a_byte_more(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_bytes(b"x" * 65537)
    refused(desk.spawn("--user-data", str(path)), USAGE, "user_data: ", "is larger than 65536 bytes")
    path.write_bytes(b"x" * 65536)
    assert desk.spawn("--user-data", str(path), "--plan").code == 0


@pytest.mark.parametrize("option", ["--ssh-key", "--user-data", "--admin-password-file", "--request", "--file=/etc/x"])
@pytest.mark.parametrize("path", ["/nonexistent", "/", "/dev/zero", "/proc/self/mem"])
def test_a_file_that_cannot_be_read_is_named(desk: Desk, option: str, path: str) -> None:
    words = (f"{option}={path}",) if "=" in option else (option, path)
    refused(desk.spawn(*words), USAGE, path)


def test_a_private_key_is_not_taken_for_a_public_one_and_never_repeated(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LXNlY3JldC1zZWNyZXQ=\n-----END PRIVATE KEY-----\n")
    answer = desk.spawn("--ssh-key", str(path))
    refused(answer, USAGE, "ssh_keys")
    assert "c2VjcmV0" not in answer.err


def test_a_password_that_cannot_be_used_is_refused_without_being_repeated(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"Tr0ub4dor\x07secret")
    answer = desk.spawn("--admin-password-file", str(path))
    refused(answer, USAGE, "admin_password")
    assert "Tr0ub4dor" not in answer.err


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        "qcow2_backing_file",
        "qcow2_data_file_bit",
        "qcow2_data_file_name",
        "vmdk_flat_extent_in_allowed_type",
        "vmdk_descriptor_flat",
        "qcow2_luks",
        "qcow2_dirty",
        "qcow2_corrupt",
        "qcow2_size_2_62",
        "qcow2_100_bytes",
        "qcow2_as_raw",
        "vmdk_as_raw",
        "raw_as_qcow2",
        "luks",
    ],
)
def test_a_hostile_image_does_not_enter_the_catalog(desk: Desk, tmp_path: Path, case: str) -> None:
    declared, content, told = HOSTILE[case]
    path = tmp_path / "image"
    path.write_bytes(content)
    catalog = desk.node.config.images.catalog
    before = sorted(catalog.rglob("*"))
    refused(desk("image", "add", "bad", str(path), "--disk-format", declared), FAILED, "image 'bad' refused: ", told)
    assert sorted(catalog.rglob("*")) == before


def test_an_image_that_was_exchanged_in_the_catalog_is_not_spawned(furnished: Node, tmp_path: Path) -> None:
    source = furnished.runner.services["image_source"]
    path = tmp_path / "honest.raw"
    path.write_bytes(b"honest".ljust(1 << 20, b"\0"))
    record = source.add(path, "honest", "raw")
    try:
        desk = Desk(furnished, furnished.residue())
        stored = furnished.config.images.catalog / record.id / "image"
        for content, told in (
            (b"h0nest".ljust(1 << 20, b"\0"), "checksum does not match"),
            (HOSTILE["qcow2_backing_file"][1].ljust(1 << 20, b"\0"), "refused"),
        ):
            stored.write_bytes(content)
            failed(desk.spawn("--image", "honest"), FAILED, "FetchBase", told)
            desk.nothing_happened()
    finally:
        source.remove("honest")


# -- surroundings -----------------------------------------------------------------------------------------------------


def test_libvirt_that_cannot_be_reached_is_named_and_nothing_is_left(desk: Desk) -> None:
    uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    answer = desk.spawn("--network", "net0", libvirt__uri=uri)
    failed(answer, FAILED, "spawn instance:web1 failed: ", f"cannot reach libvirt at {uri}")
    operation = desk.node.last()
    assert (operation.outcome, operation.debts) == ("REVERTED", 0)


def test_a_locked_database_is_one_line(desk: Desk) -> None:
    path = desk.node.state / "virtflow.db"
    with sqlite3.connect(path, isolation_level=None) as locker:
        locker.execute("BEGIN IMMEDIATE")
        answer = desk.spawn(database__busy_timeout="0.2")
        locker.execute("ROLLBACK")
    locker.close()
    refused(answer, 1, "database sqlite:///", "locked")


def test_a_database_of_a_newer_virtflow_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    path = copied_database(desk, tmp_path)
    statement(path, "UPDATE virtflow_schema_version SET version_num = '9999'")
    before = path.read_bytes()
    for words in (("operation", "list"), ("spawn", "web1", "--image", "halt", "--flavor", "m1"), ("db", "upgrade")):
        refused(desk(*words, database__url=f"sqlite:///{path}"), 1, "is of a newer virtflow")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("dear diary\n" * 1000)
    refused(desk("operation", "list", database__url=f"sqlite:///{path}"), 1, "database sqlite:///", "not a database")
    assert path.read_text() == "dear diary\n" * 1000


def test_a_database_that_is_missing_on_a_server_is_one_line_without_a_password(
    desk: Desk, postgres_server: Postgres
) -> None:
    url = postgres_server.url("nosuch").replace("virtflow@", "virtflow:hunter22@")
    answer = desk("operation", "list", database__url=url)
    refused(answer, 1, "nosuch")
    assert "hunter22" not in answer.err
    answer = desk("operation", "list", database__url="postgresql+psycopg://me:hunter22@127.0.0.1:1/x")
    refused(answer, 1, "database postgresql+psycopg://")
    assert "hunter22" not in answer.err


def test_an_empty_database_on_a_server_says_what_to_do(desk: Desk, fresh_postgres_url: str) -> None:
    refused(desk("operation", "list", database__url=fresh_postgres_url), 1, "missing: run `virtflow db upgrade`")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("database__url", "nonsense", "[database] url"),
        ("database__url", "oracle://x/y", "[database] url"),
        ("libvirt__virt_type", "xen", "[libvirt] virt_type"),
        ("instances__path", "a\nb", "[instances] path"),
        ("quota__vcpus", "many", "[quota] vcpus"),
        ("nosuch__option", "1", "no such option"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(desk: Desk, setting: str, value: str, told: str) -> None:
    answer = desk.spawn(**{setting: value})
    refused(answer, USAGE, told)


@pytest.mark.parametrize("option", ["instances__path", "secrets__key_file", "images__catalog"])
def test_a_place_that_cannot_be_used_is_named(desk: Desk, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("in the way")
    place = str(tmp_path / "file" / "below")
    (tmp_path / "data").write_text("x")
    answer = desk.spawn("--user-data", str(tmp_path / "data"), **{option: place})
    failed(answer, FAILED, place, "Not a directory")


def copied_database(desk: Desk, tmp_path: Path) -> Path:
    path = tmp_path / "copy.db"
    with sqlite3.connect(desk.node.state / "virtflow.db") as source, sqlite3.connect(path) as target:
        source.backup(target)
    source.close()
    target.close()
    return path


def statement(path: Path, text: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(text)
    connection.close()
