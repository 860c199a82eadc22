"""Server groups: whether a host suits a member, given where the others are.

Asked after the claim, not before: two members that look for a host at the same time do not see each other until both
have claimed one. Of two that claimed the same host, the one whose claim was committed later yields, so exactly one of
them stays; claims on different hosts have no order, and there both yield.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

AFFINITY = "affinity"
ANTI_AFFINITY = "anti-affinity"
POLICIES = (AFFINITY, ANTI_AFFINITY)


@dataclass(frozen=True)
class Placed:
    """A member with its claim. ``generation`` orders the claims on one host: a lower one was committed earlier."""

    instance: str
    host: str
    generation: int


def objection(policy: str, candidate: Placed, others: Iterable[Placed]) -> str | None:
    """Why the candidate's host does not suit it, or None. ``others`` may contain the candidate itself.

    Raises ValueError for a policy that does not exist: a stored one always does.
    """
    if policy not in POLICIES:
        raise ValueError(f"{policy!r} is none of {', '.join(POLICIES)}")
    rest = sorted(
        (each for each in others if each.instance != candidate.instance), key=lambda each: (each.host, each.generation)
    )
    if policy == AFFINITY:
        elsewhere = [each for each in rest if each.host != candidate.host]
        return f"instance {elsewhere[0].instance} is on {elsewhere[0].host}" if elsewhere else None
    earlier = [each for each in rest if each.host == candidate.host and each.generation < candidate.generation]
    return f"instance {earlier[0].instance} is on it" if earlier else None
