"""Obligations: the duties that a policy attaches to a lease. The broker keeps what it knows and refuses the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import rfc8785

from keybroker.broker import Broker
from keybroker.denial import Reason
from policy.decision import Obligation

LEASE_CEILING: Final = "lease_ceiling"
RE_ATTEST: Final = "re_attest"
ZEROISE_ON_END: Final = "zeroise_on_end"
_SECONDS: Final = frozenset({LEASE_CEILING, RE_ATTEST})
_KNOWN: Final = _SECONDS | {ZEROISE_ON_END}


def merge_obligations(obligations: Sequence[Obligation]) -> tuple[tuple[Obligation, ...], list[Reason]]:
    """The union of all assets' obligations, the strictest of each; and a reason for each that cannot be kept."""
    seconds: dict[str, int] = {}
    others: dict[str, Obligation] = {}
    reasons: list[Reason] = []
    for obligation in obligations:
        value = obligation.params.get("seconds")
        if obligation.code in _SECONDS and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            seconds[obligation.code] = min(value, seconds.get(obligation.code, value))
        elif obligation.code in _KNOWN - _SECONDS:
            others[obligation.code] = obligation
        else:
            reasons.append(
                Reason(
                    "UNKNOWN_OBLIGATION",
                    "obligations",
                    ", ".join(sorted(_KNOWN)),
                    obligation.code,
                    "An obligation that the broker cannot keep is a refusal",
                    "mend the release policy, or update the broker",
                )
            )
    merged = [Obligation(code, {"seconds": value}) for code, value in seconds.items()]
    return tuple(sorted([*merged, *others.values()], key=lambda item: item.code)), reasons


def lifetime(broker: Broker, obligations: Sequence[Obligation]) -> int:
    """Seconds until the holder must attest again: renewal and re-attestation are one."""
    ceilings = [value for item in obligations if isinstance(value := item.params.get("seconds"), int)]
    return min([broker.config.limits.lease_seconds, *ceilings])


def obligations_text(obligations: Sequence[Obligation]) -> str:
    """Obligations as a lease stores them: canonical JSON."""
    return rfc8785.dumps([item.to_json() for item in obligations]).decode("utf-8")


def parse_obligations(text: str) -> tuple[Obligation, ...]:
    """Read back what a lease stores."""
    return tuple(Obligation(item["code"], item["params"]) for item in json.loads(text))
