"""What auditors ask of a large log, with values that are common, rare and absent in `bench.synthetic_log`.

Each is asked for one page as a broker asks: where much fits one condition and hardly anything all of them, a page ends
with what was found in `keybroker.reads.PATIENCE` seconds. `in_vain` asks such questions to their end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine

from audit.query import MAX_PAGE, Filter, cursor_after, newest, query
from audit.records import Kind, Result
from bench.synthetic_log import BEGINS, POLICIES
from keybroker.reads import PATIENCE

PAGE = 100
REPEATS = 12

Ask = Callable[[Connection, int], object]
"""Asks one question for the n-th time."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How long a question took.

    Attributes:
        question: in words.
        found: entries on the page that took longest.
        p50, p99: seconds; with few repeats the latter is the slowest.
    """

    question: str
    found: int
    p50: float
    p99: float


def questions(size: int) -> dict[str, Ask]:
    """Every question about a log of `size` entries, by name."""
    asked: dict[str, Ask] = {}

    def page(
        name: str,
        *,
        after: Callable[[int], int] | None = None,
        backwards: bool = False,
        **fields: Callable[[int], Any],
    ) -> None:
        def ask(connection: Connection, turn: int) -> object:
            wanted = Filter(**{field: value(turn) for field, value in fields.items()})
            if backwards:
                return newest(connection, wanted, limit=PAGE).entries
            cursor = cursor_after(wanted, after(turn)) if after is not None else ""
            return query(connection, wanted, limit=PAGE, cursor=cursor, patience=PATIENCE).entries

        asked[name] = ask

    def is_(value: Any) -> Callable[[int], Any]:
        return lambda _: value

    def spread(turn: int) -> int:
        """An index somewhere in the log, another one each time."""
        return size * (turn * 7 % 12 * 2 + 1) // 24

    def at(turn: int) -> int:
        return BEGINS + spread(turn)

    late, denied = BEGINS + size - size // 200, Result.DENIED
    page("first page")
    page("a page anywhere", after=spread)
    for common in ("acme", "initech"):
        page(f"tenant {common}", tenant=is_(common))
        page(f"tenant {common}, a page anywhere", after=spread, tenant=is_(common))
    page("asset, named often", asset=is_("acme/corpus-0"))
    page("asset, a page anywhere", after=spread, asset=is_("acme/corpus-0"))
    page("asset, named rarely", asset=lambda turn: f"acme/model-{300 + turn}")
    page("asset, and refused", asset=is_("acme/corpus-0"), result=is_(Result.DENIED))
    page(
        "asset, and expired, in a late week",
        asset=is_("acme/corpus-0"),
        kind=is_(Kind.LEASE_EXPIRED),
        start_time=is_(late),
    )
    page("job", job=lambda turn: f"slurm:{spread(turn) // 16}")
    page("node", node=lambda turn: f"n{turn * 131 % 5000:05d}")
    page("node, and expired", node=lambda turn: f"n{turn * 131 % 5000:05d}", kind=is_(Kind.LEASE_EXPIRED))
    page("hardware", hardware=lambda turn: f"nvidia-gpu:{turn * 131 % 5000:012x}0001")
    page("hardware, unknown", hardware=is_("nvidia-gpu:none"))
    page("actor", actor=lambda turn: f"n{turn * 137 % 5000:05d}")
    page("actor, an auditor", actor=is_("auditor-3"))
    page("user", user=lambda turn: f"user-{turn}")
    page("lease", lease=lambda turn: f"lease-{spread(turn) // 8:08d}")
    page("site", site=is_("hall-4"))
    page("site, a page anywhere", after=spread, site=is_("hall-4"))
    page("site, unknown", site=is_("nowhere"))
    page("jurisdiction", jurisdiction=is_("CH"))
    page("jurisdiction, unknown", jurisdiction=is_("XX"))
    page("jurisdiction and tenant, refused", jurisdiction=is_("CH"), tenant=is_("initech"), result=is_(Result.DENIED))
    page("policy, common", policy_digest=is_(POLICIES[0]))
    page("policy, rare", policy_digest=lambda turn: POLICIES[15 + turn])
    page("policy's refusals, common", policy_digest=is_(POLICIES[0]), result=is_(Result.DENIED))
    page("policy's refusals, a page anywhere", after=spread, policy_digest=is_(POLICIES[0]), result=is_(Result.DENIED))
    page("policy's refusals, rare", policy_digest=lambda turn: POLICIES[15 + turn], result=is_(Result.DENIED))
    page(
        "policy's refusals, for a reason",
        policy_digest=is_(POLICIES[9]),
        result=is_(Result.DENIED),
        reason=is_("BUDGET_SPENT"),
    )
    page("policy unknown", policy_digest=is_("ff" * 32))
    page("kind, common", kind=is_(Kind.LEASE_RENEWED))
    page("kind, rare", kind=is_(Kind.LEASE_REVOKED))
    page("kind, absent", kind=is_(Kind.ASSET_REVOKED))
    page("kind absent, of a tenant", kind=is_(Kind.ASSET_REVOKED), tenant=is_("acme"))
    page("kind rare, of a tenant, anywhere", after=spread, kind=is_(Kind.LEASE_REVOKED), tenant=is_("initech"))
    page("refusals", result=is_(Result.DENIED))
    page("refusals of a tenant and site", result=is_(Result.DENIED), tenant=is_("initech"), site=is_("hall-5"))
    page("reason", reason=is_("BUDGET_SPENT"))
    page("reason, a page anywhere", after=spread, reason=is_("BUDGET_SPENT"))
    page("reason, of a tenant", reason=is_("BUDGET_SPENT"), tenant=is_("initech"))
    page("reason, unknown", reason=is_("NO_SUCH_REASON"))
    page("an hour", start_time=at, end_time=lambda turn: at(turn) + 3600)
    page("since long ago", start_time=is_(BEGINS + size // 10))
    page("since lately", start_time=is_(late))
    page("a span without records", start_time=is_(BEGINS + 2 * size))
    page("a tenant since lately", tenant=is_("acme"), start_time=is_(late))
    page("a tenant in the second half", tenant=is_("acme"), start_time=is_(BEGINS + size // 2))
    page("a policy in an hour", policy_digest=is_(POLICIES[1]), start_time=at, end_time=lambda turn: at(turn) + 3600)
    page("a kind in the second half", kind=is_(Kind.LEASE_GRANTED), start_time=is_(BEGINS + size // 2))
    page("a node in the second half", node=lambda turn: f"n{turn * 131 % 5000:05d}", start_time=is_(BEGINS + size // 2))
    page("refusals in an hour", result=is_(Result.DENIED), start_time=at, end_time=lambda turn: at(turn) + 3600)
    page("an asset since lately", asset=is_("acme/corpus-0"), start_time=is_(late))
    page(
        "hardware in the second half",
        hardware=lambda turn: f"nvidia-gpu:{turn * 131 % 5000:012x}0001",
        start_time=is_(BEGINS + size // 2),
    )
    page("job of a tenant", job=lambda turn: f"slurm:{spread(turn) // 16}", tenant=is_("acme"), site=is_("hall-1"))
    page("asset and job", asset=is_("acme/corpus-0"), job=lambda turn: f"slurm:{spread(turn) // 16}")
    page("asset and node", asset=is_("acme/corpus-0"), node=lambda turn: f"n{turn * 131 % 5000:05d}")
    page("asset and user", asset=is_("acme/corpus-0"), user=lambda turn: f"user-{turn}")
    page("asset and policy, refused", asset=is_("acme/corpus-0"), policy_digest=is_(POLICIES[9]), result=is_(denied))
    page("asset and reason", asset=is_("acme/corpus-0"), reason=is_("BUDGET_SPENT"))
    page("asset and reason, newest first", backwards=True, asset=is_("acme/corpus-0"), reason=is_("BUDGET_SPENT"))
    page("asset and kind, absent", asset=is_("acme/corpus-0"), kind=is_(Kind.ASSET_REVOKED))
    page("assets that never meet a tenant", asset=is_("acme/corpus-0"), tenant=is_("initech"))
    page("hardware of a tenant", hardware=lambda turn: f"nvidia-gpu:{turn * 131 % 5000:012x}0001", tenant=is_("acme"))
    page("user of a tenant, at a site", user=lambda turn: f"user-{turn}", tenant=is_("initech"), site=is_("hall-4"))
    page("tenant at a site", tenant=is_("initech"), site=is_("hall-4"))
    page("site and jurisdiction that never meet", site=is_("hall-4"), jurisdiction=is_("DE"))
    page("policy and site", policy_digest=is_(POLICIES[20]), site=is_("hall-5"), tenant=is_("acme"))
    page("reason, since lately", reason=is_("BUDGET_SPENT"), start_time=is_(late))
    page("until early", end_time=is_(BEGINS + size // 200))
    page("a kind until early, newest first", backwards=True, kind=is_(Kind.LEASE_REVOKED), end_time=at)
    page("leases alive", alive_at=at)
    page("leases alive, the last page", alive_at=at, after=lambda turn: spread(turn) - 100)
    page("leases alive at the end", alive_at=is_(BEGINS + size))
    page("leases alive before the log", alive_at=is_(BEGINS - 1))
    page("leases alive, of a tenant", alive_at=at, tenant=is_("initech"))
    page("leases alive, at a site", alive_at=at, site=is_("hall-4"))
    page("leases alive, on a node", alive_at=at, node=lambda turn: f"n{turn * 131 % 5000:05d}")
    page("leases alive, with an asset", alive_at=at, asset=is_("acme/corpus-0"))
    page("leases alive, of a policy", alive_at=at, policy_digest=is_(POLICIES[2]))
    asked["the newest"] = lambda connection, _: newest(connection, Filter(), limit=PAGE).entries
    asked["a tenant's newest"] = lambda connection, _: newest(connection, Filter(tenant="initech"), limit=PAGE).entries
    asked["an asset's newest"] = lambda connection, _: (
        newest(connection, Filter(asset="acme/corpus-0"), limit=PAGE).entries
    )
    asked["a large page"] = lambda connection, _: query(connection, Filter(tenant="acme"), limit=MAX_PAGE).entries
    return asked


IN_VAIN: Final = {
    "an asset with another tenant": Filter(asset="acme/corpus-0", tenant="initech"),
    "a site with another jurisdiction": Filter(site="hall-4", jurisdiction="DE"),
    "a user with a site never used": Filter(user="user-0", site="hall-4"),
}
"""Questions that nothing fits, though each condition has very many entries."""


def in_vain(engine: Engine) -> dict[str, dict[str, float]]:
    """How many pages and seconds it takes to learn that nothing fits, and the slowest of the pages."""
    found: dict[str, dict[str, float]] = {}
    for name, wanted in IN_VAIN.items():
        cursor = ""
        taken: list[float] = []
        while cursor or not taken:
            with engine.connect() as connection:
                started = time.perf_counter()
                page = query(connection, wanted, limit=PAGE, cursor=cursor, patience=PATIENCE)
                taken.append(time.perf_counter() - started)
            if page.entries:
                raise RuntimeError(f"something fits: {name}")
            cursor = page.next_cursor
        found[name] = {
            "pages": len(taken),
            "seconds": round(sum(taken), 2),
            "slowest_page_ms": round(max(taken) * 1e3, 1),
        }
    return found


def answer(engine: Engine, size: int, *, repeats: int = REPEATS, only: str = "") -> list[Answered]:
    """Ask everything of the log of `size` entries in `engine`, slowest first."""
    found: list[Answered] = []
    for name, ask in questions(size).items():
        if only not in name:
            continue
        taken: list[float] = []
        most = 0
        for turn in range(repeats):
            with engine.connect() as connection:
                started = time.perf_counter()
                entries = ask(connection, turn)
                taken.append(time.perf_counter() - started)
            most = max(most, len(entries) if isinstance(entries, tuple) else 0)
        taken.sort()
        found.append(Answered(name, most, statistics.median(taken), taken[min(len(taken) - 1, len(taken) * 99 // 100)]))
    return sorted(found, key=lambda each: -each.p99)
