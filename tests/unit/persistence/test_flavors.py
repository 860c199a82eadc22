from __future__ import annotations

import pytest

from virtflow.errors import AlreadyExists, NotFound
from virtflow.persistence.flavors import Flavor, FlavorRepository


def test_a_flavor_is_created_listed_by_size_and_deleted(database):
    flavors = FlavorRepository(database)
    small, big = Flavor("small", 1, 128, 1, {"hw:cpu": "x"}), Flavor("big", 2, 1024, 10)
    flavors.create(big)
    flavors.create(small)
    assert flavors.list() == [small, big]
    assert flavors.get("small") == small
    flavors.delete("small")
    assert flavors.list() == [big]


def test_a_flavor_name_that_is_taken_is_refused_and_the_first_one_stays(database):
    flavors = FlavorRepository(database)
    flavors.create(Flavor("small", 1, 128, 1))
    with pytest.raises(AlreadyExists, match="flavor 'small' exists already"):
        flavors.create(Flavor("small", 9, 9, 9))
    assert flavors.get("small").vcpus == 1


def test_an_unknown_flavor_is_not_found(database):
    flavors = FlavorRepository(database)
    for call in (flavors.get, flavors.delete):
        with pytest.raises(NotFound, match="flavor 'absent' not found"):
            call("absent")
