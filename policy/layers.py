"""Policies in layers: the factory's floor, and on it what one tenant adds for itself. No layer can loosen another.

Source: DESIGN, "Policy evaluation and the decision document". Every layer is asked the same question, always, so that
one answer names every reason. The answer allows only where all of them allow; it denies whatever any of them denies;
it owes whatever any of them demands. A tenant's layer that cannot decide denies, to that tenant only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from policy.decision import Decision, Denial, Obligation
from policy.errors import PolicyError

DIGEST_LABEL: Final = b"keystead policy layers v1\x00"
"""What the digest of a tenant's layers begins with."""

ABSENT: Final = bytes(32)
"""Stands in a digest of layers where the tenant adds no pack."""

UNUSABLE: Final = hashlib.sha256(b"").digest()
"""Stands in a digest of layers where the tenant's pack cannot be used, and denies everything."""

UNDECIDED: Final = "TENANT_POLICY_UNDECIDED"
"""The code under which a tenant's layer that cannot decide denies."""

REFERENCE: Final = "the tenant's own policy"
"""Whose word a denial of a tenant's layer is."""


class Pack(Protocol):
    """One policy that decides; `policy.engine.PolicyEngine` is one."""

    @property
    def digest(self) -> str:
        """What identifies it: SHA-256, hex."""

    def evaluate_bytes(self, document: bytes) -> Decision:
        """Decide about a canonical input.

        Raises:
            PolicyError: it cannot decide.
        """


@dataclass(frozen=True, slots=True)
class LayeredDecision:
    """What all layers decided together.

    Attributes:
        allow: every layer allows.
        deny: every reason of every layer, sorted, each once.
        obligations: those of every layer; a code may be there once for each, and the strictest of each is to be kept.
    """

    allow: bool
    deny: tuple[Denial, ...]
    obligations: tuple[Obligation, ...]


@dataclass(frozen=True, slots=True)
class TenantLayer:
    """One pack of a tenant; it can only deny and demand.

    Attributes:
        pack: the pack; None where it could not be loaded.
        problem: the code of what was wrong with it, where `pack` is None.
    """

    pack: Pack | None
    problem: str = ""

    @property
    def digest(self) -> bytes:
        """What identifies it within `layers_digest`."""
        return UNUSABLE if self.pack is None else bytes.fromhex(self.pack.digest)

    def decide(self, document: bytes) -> LayeredDecision:
        """What this layer alone says; never raises what a pack can cause."""
        if self.pack is None:
            return _undecided(self.problem)
        try:
            decision = self.pack.evaluate_bytes(document)
        except PolicyError as error:
            return _undecided(error.code)
        deny = tuple(sorted(_marked(denial) for denial in decision.deny))
        return LayeredDecision(decision.allow, deny, decision.obligations)


@dataclass(frozen=True, slots=True)
class LayeredPolicy:
    """The floor, and on it a tenant's layer where there is one.

    Attributes:
        floor: what holds for everybody.
        tenant: what holds for one tenant besides.
    """

    floor: Pack
    tenant: TenantLayer | None = None

    def evaluate_bytes(self, document: bytes) -> LayeredDecision:
        """Decide about a canonical input.

        Raises:
            PolicyError: the floor cannot decide. A tenant's layer that cannot is a denial.
        """
        floor = self.floor.evaluate_bytes(document)
        if self.tenant is None:
            return LayeredDecision(floor.allow, floor.deny, floor.obligations)
        tenant = self.tenant.decide(document)
        # A pack that began as a copy of the floor repeats its reasons; they are said once.
        said = {_marked(denial) for denial in floor.deny}
        return LayeredDecision(
            allow=floor.allow and tenant.allow,
            deny=tuple(sorted({*floor.deny, *(denial for denial in tenant.deny if denial not in said)})),
            obligations=(*floor.obligations, *tenant.obligations),
        )


def layers_digest(*, floor: str, release: TenantLayer | None, appraisal: TenantLayer | None) -> str:
    """What identifies the floor's release pack with a tenant's layers in leases and records; hex.

    Without any layer of the tenant's it is `floor`. Else it is SHA-256 of
    ``DIGEST_LABEL ‖ floor ‖ tenant's release ‖ tenant's appraisal``, 32 bytes each.
    """
    if release is None and appraisal is None:
        return floor
    parts = (ABSENT if layer is None else layer.digest for layer in (release, appraisal))
    return hashlib.sha256(b"".join((DIGEST_LABEL, bytes.fromhex(floor), *parts))).hexdigest()


def _marked(denial: Denial) -> Denial:
    """A denial of a tenant's layer, saying whose rule it is where it does not say so itself."""
    if denial.reference:
        return denial
    return Denial(
        code=denial.code,
        field=denial.field,
        expected=denial.expected,
        actual=denial.actual,
        message=denial.message,
        remedy=denial.remedy,
        reference=REFERENCE,
    )


def _undecided(problem: str) -> LayeredDecision:
    denial = Denial(
        code=UNDECIDED,
        field="policy",
        expected="a decision of the tenant's own policy",
        actual=problem,
        message="A policy of the tenant's that cannot decide denies",
        remedy="Mend the tenant's policy pack; the broker's log says at its start what it could not load.",
        reference=REFERENCE,
    )
    return LayeredDecision(allow=False, deny=(denial,), obligations=())
