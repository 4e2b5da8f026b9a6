"""Raising the alarm where one hardware identity is in two places.

Identities are unique and stay with one node. So an identity that is enrolled a second time, or proven beside hardware
that it is not enrolled with, was moved without a record, or copied. It is refused where it is found; here it is raised:
a record in the log, a line in the broker's own log, a counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Connection

from audit.log import append
from audit.records import Kind, Record, Result
from keybroker.broker import Broker, actor
from keybroker.principals import Principal
from keybroker.standing import Standing

CLONED: Final = "IDENTITY_CLONED"

_LOG: Final = structlog.get_logger("keystead.estate")
_RAISED: Final = Counter(
    "keystead_identity_cloned_total", "Hardware identities found in two places, by where that was noticed", ("seen",)
)


def raise_cloned(broker: Broker, *, standing: Standing, present: bool, caller: Principal, now: int) -> None:
    """Raise identities that were proven beside hardware that they are not enrolled with.

    Args:
        broker: the running broker.
        standing: what the proven identities resolved to.
        present: an enrolled node made the proof for this session; past a limit, what anybody may send is counted only.
        caller: whose certificate made the call.
        now: integer seconds since the Unix epoch.
    """
    if not standing.cloned:
        return
    if not present and not broker.refusals.admit(Kind.IDENTITY_CLONED, caller=caller, codes=[CLONED], now=now):
        return
    node, site = standing.node, standing.site
    record = Record.build(
        kind=Kind.IDENTITY_CLONED,
        time=now,
        actor=actor(caller),
        node=None if node is None else node.node_id,
        site=None if site is None else site.site_id,
        jurisdiction=None if site is None else site.jurisdiction,
        hardware=standing.cloned,
        result=Result.DENIED,
        reasons=(CLONED,),
        detail={"seen": "evidence"},
    )
    _raise(broker, record, identities=standing.cloned, seen="evidence")


def raise_enrolled_twice(
    broker: Broker, *, identities: Sequence[str], node_id: str, caller: Principal, now: int
) -> None:
    """Raise identities that somebody tried to enrol a second time.

    Args:
        broker: the running broker.
        identities: ``kind:value``; a record's worth at most.
        node_id: the node that has them; empty where they are several nodes'.
        caller: who tried.
        now: integer seconds since the Unix epoch.
    """
    if not identities:
        return
    record = Record.build(
        kind=Kind.IDENTITY_CLONED,
        time=now,
        actor=actor(caller),
        node=node_id or None,
        hardware=tuple(identities),
        result=Result.DENIED,
        reasons=(CLONED,),
        detail={"seen": "enrolment"},
    )
    _raise(broker, record, identities=identities, seen="enrolment")


def _raise(broker: Broker, record: Record, *, identities: Sequence[str], seen: str) -> None:
    def unit(connection: Connection) -> None:
        append(connection, record)

    broker.commit(unit)
    _RAISED.labels(seen).inc(len(identities))
    _LOG.warning(CLONED, identities=list(identities), node=record.node, seen=seen, caller=record.actor.name)
