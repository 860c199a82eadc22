"""Exported recordings: nothing secret leaves, and nothing that comes in is trusted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from taskflow.patterns import linear_flow

from virtflow import redaction
from virtflow.errors import AlreadyExists, BadRecording
from virtflow.replay.consistency import problems
from virtflow.replay.files import export, load
from virtflow.replay.recording import Recording, to_plain
from virtflow.replay.redacting import redact, secrets_of
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest

CANARY = "c4nary-Zx\"9'&<ü>-swordfish"


def two_steps() -> Any:
    return linear_flow.Flow("toy").add(Step("Disk", result="/disk", provides="disk"), Step("Domain", needs=["disk"]))


def packed(body: bytes, operation: str) -> bytes:
    """A file with a right checksum around whatever is wrong."""
    header = {"virtflow_recording": 1, "virtflow_version": "0", "operation": operation}
    header |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(header).encode() + b"\n" + body + b"\n"


def write(path: Path, recording: Recording, **changes: Any) -> Path:
    """The recording as a file, with something else in it."""
    path.write_bytes(packed(json.dumps(to_plain(recording) | changes).encode(), recording.operation.id))
    return path


def test_what_was_exported_is_read_again(studio: RecordingStudio, tmp_path: Path) -> None:
    recording = redact(studio.record(two_steps))
    header = export(recording, tmp_path / "a.vfrec")
    assert load(tmp_path / "a.vfrec") == recording
    assert header.operation == recording.operation.id
    assert (tmp_path / "a.vfrec").stat().st_mode & 0o777 == 0o600
    assert problems(recording) == []


def test_the_same_recording_gives_the_same_file_and_none_is_overwritten(
    studio: RecordingStudio, tmp_path: Path
) -> None:
    recording = studio.record(two_steps)
    export(recording, tmp_path / "a")
    export(recording, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(AlreadyExists):
        export(recording, tmp_path / "a")
    export(recording, tmp_path / "a", replace_existing=True)


def test_a_file_that_somebody_has_unpacked_is_read_too(studio: RecordingStudio, tmp_path: Path) -> None:
    recording = studio.record(two_steps)
    export(recording, tmp_path / "a")
    (tmp_path / "plain").write_bytes(gzip.decompress((tmp_path / "a").read_bytes()))
    assert load(tmp_path / "plain") == recording


class Killed(BaseException):
    """The process dies."""


def die() -> None:
    raise Killed


def forms(secret: str) -> list[bytes]:
    encoded = base64.b64encode(secret.encode())
    quoted = (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe=""))
    return [secret.encode(), encoded.rstrip(b"="), *(text.encode() for text in quoted)]


def test_a_known_secret_is_nowhere_in_an_export_however_it_got_there(
    studio: RecordingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        CANARY,
        json.dumps(CANARY),
        quote(CANARY, safe=""),
        base64.b64encode(CANARY.encode()).decode(),
        repr(CANARY),
    ]
    result = {"deep": [{"list": texts}], CANARY: "as a key"}
    flow = linear_flow.Flow("toy").add(Step("Disk", result=result), Step("Domain", does=die))
    with pytest.raises(Killed):  # while it is not over, its secrets are there
        studio.record(lambda: flow, hidden=CANARY, note=f"by {CANARY} itself")
    recording = studio.read()
    assert "swordfish" in str(recording), "a canary that is not there proves nothing"
    secrets = secrets_of(recording, studio.database, tmp_path / "key")
    assert secrets == [CANARY.encode()]
    monkeypatch.setattr(redaction, "_known", {})  # another process than the one that ran it may export it
    export(redact(recording, secrets), tmp_path / "a.vfrec")
    content = gzip.decompress((tmp_path / "a.vfrec").read_bytes())
    for form in [*forms(CANARY), b"swordfish"]:
        assert form not in content
    assert load(tmp_path / "a.vfrec").redacted


@pytest.mark.parametrize(
    "leak",
    [
        {"password": "s3same"},
        {"auth": {"admin_pass": "s3same"}},
        {"connection_info": {"auth_password": "s3same"}},
        {"user_data": "s3same"},
        {"note": "postgresql://virtflow:s3same@db/virtflow"},
        {"note": "login failed (password=s3same, user=x)"},
        {"note": "{'token': 's3same'}"},
        {"note": '{"api_key":"s3same"}'},
        {"note": "Authorization: Bearer s3same"},
        {"note": "<graphics type='vnc' passwd='s3same'/>"},
        {"note": "<password>s3same</password>"},
        {"note": "-----BEGIN OPENSSH PRIVATE KEY-----\ns3same\n-----END OPENSSH PRIVATE KEY-----"},
        {"note": "-----BEGIN PRIVATE KEY-----\ns3same and then it was cut"},
    ],
)
def test_what_looks_like_a_secret_is_masked(studio: RecordingStudio, leak: dict[str, Any]) -> None:
    recording = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk", result=leak)))
    assert "s3same" in str(recording)
    assert "s3same" not in str(redact(recording))


def test_masking_leaves_the_graph_and_references_to_secrets_alone(studio: RecordingStudio) -> None:
    result = {"admin_password": "secret:12345678-1234-1234-1234-123456789abc", "user_data": {"secret": "user_data"}}
    steps = Step("Stash", result=result, provides="secrets"), Step("Domain", needs=["secrets"])
    recording = studio.record(lambda: linear_flow.Flow("toy").add(*steps))
    redacted = redact(recording)
    assert redacted.flows == recording.flows


def damage(how: str, content: bytes) -> bytes:
    plain = gzip.decompress(content)
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "appended": content + b"x",
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
        "another byte": gzip.compress(plain.replace(b"Domain", b"Domaim", 1)),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "another gzip": gzip.compress(b"hello"),
        "other JSON": b'{"a": 1}\n{}\n',
        "a pickle": b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
        "newer": gzip.compress(plain.replace(b'"virtflow_recording": 1', b'"virtflow_recording": 2', 1)),
        "no bytes": gzip.compress(b'{"virtflow_recording": 1}\n{}\n'),
        "deep": b"[" * 100_000,
        "long line": b"x" * 100_000,
    }[how]


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("empty", "not a recording"),
        ("truncated", "damaged"),
        ("appended", "damaged"),
        ("flipped", "damaged|not a recording"),
        ("another byte", "damaged: its checksum is wrong"),
        ("a picture", "not a recording"),
        ("another gzip", "not a recording"),
        ("other JSON", "not a recording"),
        ("a pickle", "not a recording"),
        ("newer", "format 2 .* is newer than this virtflow"),
        ("no bytes", "its first line is incomplete"),
        ("deep", "not a recording"),
        ("long line", "not a recording"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(
    studio: RecordingStudio, tmp_path: Path, how: str, complaint: str
) -> None:
    export(studio.record(two_steps), tmp_path / "a")
    (tmp_path / "bad").write_bytes(damage(how, (tmp_path / "a").read_bytes()))
    with pytest.raises(BadRecording, match=complaint) as caught:
        load(tmp_path / "bad")
    assert "\n" not in str(caught.value)


def test_a_bomb_a_pipe_a_directory_and_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.replay.files.LARGEST_CONTENT", 1 << 20)
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(2 << 20)))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 65 << 20)
    for name, complaint in [
        ("bomb", "unpacked it is larger"),
        ("pipe", "not a regular file"),
        ("large", "larger than 64 MiB"),
        (".", "not a regular file|is a directory"),
        ("nothing", "no such file"),
    ]:
        with pytest.raises(BadRecording, match=complaint):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda flow: replace(flow, events=flow.events[1:]), "event 0 is missing"),
        (lambda flow: replace(flow, atoms=flow.atoms[1:]), "task that is not in it: Disk"),
        (lambda flow: replace(flow, uuid="other"), "of another flow"),
        (lambda flow: replace(flow, graph=replace(flow.graph, nodes=flow.graph.nodes[:1])), "not in its graph: Domain"),
        (
            lambda flow: replace(flow, graph=replace(flow.graph, edges=(("Disk", "Domain"), ("Domain", "Disk")))),
            "circle",
        ),
        (
            lambda flow: replace(flow, graph=replace(flow.graph, edges=(("Disk", "Tap"),))),
            "arrows to what is not in it",
        ),
        (
            lambda flow: replace(flow, atoms=(replace(flow.atoms[0], state="REVERTED"), flow.atoms[1])),
            "Disk is REVERTED",
        ),
        (lambda flow: replace(flow, events=tuple(replace(e, event="DONE") for e in flow.events)), "'DONE' is no state"),
        (
            lambda flow: replace(flow, events=(replace(flow.events[0], epoch=9), *flow.events[1:])),
            "an owner of before",
        ),
    ],
)
def test_a_recording_that_does_not_fit_together_is_noticed(
    studio: RecordingStudio, change: Callable[[Any], Any], complaint: str
) -> None:
    recording = studio.record(two_steps)
    assert problems(recording) == []
    forged = replace(recording, flows=(change(recording.flows[0]),))
    assert any(complaint in text for text in problems(forged)), problems(forged)


def test_times_that_no_clock_shows_and_a_first_line_of_another_are_refused(
    studio: RecordingStudio, tmp_path: Path
) -> None:
    recording = studio.record(two_steps)
    with pytest.raises(BadRecording, match="times that no clock shows"):
        load(write(tmp_path / "a", recording, exported_at=10**30))
    other = to_plain(replace(recording.operation, id="other"))
    with pytest.raises(BadRecording, match="about another recording"):
        load(write(tmp_path / "b", recording, operation=other))


def test_the_operation_of_the_studio_takes_its_request(studio: RecordingStudio) -> None:
    studio.runner(two_steps).run(ToyRequest(name="x"))
    assert studio.read().operation.target == "toy:x"
