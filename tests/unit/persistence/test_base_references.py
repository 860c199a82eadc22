from __future__ import annotations

from virtflow.persistence.images import BaseReferenceRepository


def test_a_base_is_in_use_until_its_last_reference_is_dropped(database):
    bases = BaseReferenceRepository(database)
    bases.add_reference("/base/a", "image", "h1", "u1", "op1")
    bases.add_reference("/base/a", "image", "h1", "u1", "op1")
    bases.add_reference("/base/a", "image", "h1", "u2", "op2")
    assert [each.consumer for each in bases.references("/base/a")] == ["u1", "u2"]
    assert bases.drop_reference("/base/a", "h1", "u1")
    assert not bases.drop_reference("/base/a", "h1", "u1")
    assert [each.operation for each in bases.references("/base/a")] == ["op2"]


def test_references_are_per_host(database):
    bases = BaseReferenceRepository(database)
    for host in ("h1", "h2"):
        bases.add_reference("/base/a", "image", host, "u1", "op1")
    bases.drop_reference("/base/a", "h2", "u1")
    assert [each.host for each in bases.references()] == ["h1"]
    assert bases.references(host="h2") == []
    assert len(bases.references(consumer="u1")) == 1
