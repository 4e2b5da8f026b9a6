"""Obligations: the duties that a policy attaches to a lease. The broker keeps what it knows and refuses the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import rfc8785

from keybroker.broker import Broker
from keybroker.constraints import LEASE_CEILING, OBLIGATIONS, RE_ATTEST, REPORT_USAGE
from keybroker.denial import Reason
from policy.decision import Obligation

_SECONDS: Final = frozenset({LEASE_CEILING, RE_ATTEST})


def merge_obligations(obligations: Sequence[Obligation]) -> tuple[tuple[Obligation, ...], list[Reason]]:
    """The union of all assets' obligations, the strictest of each; and a reason for each that cannot be kept."""
    merged: dict[str, dict[str, int]] = {}
    reasons: list[Reason] = []
    for obligation in obligations:
        params = _params(obligation)
        if params is None:
            reasons.append(
                Reason(
                    "UNKNOWN_OBLIGATION",
                    "obligations",
                    ", ".join(sorted(OBLIGATIONS)),
                    obligation.code,
                    "An obligation that the broker cannot keep is a refusal",
                    "mend the release policy, or update the broker",
                )
            )
            continue
        strictest = merged.setdefault(obligation.code, {})
        for name, value in params.items():
            strictest[name] = min(value, strictest.get(name, value))
    return tuple(Obligation(code, merged[code]) for code in sorted(merged)), reasons


def _params(obligation: Obligation) -> dict[str, int] | None:
    """The parameters of an obligation that the broker knows, each a ceiling of 1 or more; None where it does not."""
    known = OBLIGATIONS.get(obligation.code)
    if known is None or not obligation.params.keys() <= known or (known and not obligation.params):
        return None
    params = {
        name: value
        for name, value in obligation.params.items()
        if isinstance(value, int) and not isinstance(value, bool) and value > 0
    }
    return params if params.keys() == obligation.params.keys() else None


def lifetime(broker: Broker, obligations: Sequence[Obligation]) -> int:
    """Seconds until the holder must attest again: renewal and re-attestation are one."""
    ceilings = [
        value for item in obligations if item.code in _SECONDS and isinstance(value := item.params.get("seconds"), int)
    ]
    return min([broker.config.limits.lease_seconds, *ceilings])


def report_seconds(obligations: Sequence[Obligation]) -> int | None:
    """Seconds between reports of what the lease uses; None where none are asked for."""
    asked = [
        value
        for item in obligations
        if item.code == REPORT_USAGE and isinstance(value := item.params.get("every"), int)
    ]
    return min(asked, default=None)


def obligations_text(obligations: Sequence[Obligation]) -> str:
    """Obligations as a lease stores them: canonical JSON."""
    return rfc8785.dumps([item.to_json() for item in obligations]).decode("utf-8")


def parse_obligations(text: str) -> tuple[Obligation, ...]:
    """Read back what a lease stores."""
    return tuple(Obligation(item["code"], item["params"]) for item in json.loads(text))
