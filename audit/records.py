"""Typed audit records in canonical JSON: what happened, who did it, where, to what, under which policy.

One record describes one event. Its bytes are RFC 8785 (JCS); `Record.parse` accepts nothing that `Record.payload`
would not have written. There is no free text and no field that a prompt, a weight or a key belongs in: every
string has a grammar, and `detail` refuses values that look like key material (`looks_like_key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import to_json

from audit.errors import MalformedError, RecordError
from keystead.binding import AssetRef, BindingError

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of one record; more belongs in a document of its own, named here by its digest."""

MAX_INTEGER: Final = (1 << 53) - 1
"""The largest integer that RFC 8785 (section 3.2.2.3, IEEE 754 doubles) carries exactly."""

MAX_ITEMS: Final = 512
"""Values of one list: a node has some twenty devices, a job some hundred assets."""

MAX_TEXT: Final = 512


class Kind(StrEnum):
    """What happened. The set is closed: a new kind is a change of this module and of `docs/audit-format.md`."""

    BROKER_INITIALISED = "broker.initialised"
    BROKER_STARTED = "broker.started"
    ASSET_REGISTERED = "asset.registered"
    ASSET_VERSION_ADDED = "asset.version-added"
    ASSET_OUTPUT_REGISTERED = "asset.output-registered"
    ASSET_OUTPUT_REFUSED = "asset.output-refused"
    ASSET_PARENTS_DECLARED = "asset.parents-declared"
    ASSET_CONSTRAINED = "asset.constrained"
    ASSET_DECLASSIFICATION_PROPOSED = "asset.declassification-proposed"
    ASSET_DECLASSIFIED = "asset.declassified"
    ASSET_DECLASSIFICATION_REFUSED = "asset.declassification-refused"
    ASSET_REVOKED = "asset.revoked"
    APPROVERS_SET = "approvers.set"
    APPROVERS_REFUSED = "approvers.refused"
    SITE_ENROLLED = "site.enrolled"
    SITE_RENEWED = "site.renewed"
    SITE_SUSPENDED = "site.suspended"
    NODE_ENROLLED = "node.enrolled"
    NODES_IMPORTED = "nodes.imported"
    NODE_STATE_CHANGED = "node.state-changed"
    NODE_CUSTODY_CHANGED = "node.custody-changed"
    NODE_MOVED = "node.moved"
    NODE_DEVICES_CHANGED = "node.devices-changed"
    IDENTITY_CLONED = "identity.cloned"
    JOB_AUTHORIZED = "job.authorized"
    JOB_REFUSED = "job.refused"
    JOB_EXTENDED = "job.extended"
    JOB_PREEMPTED = "job.preempted"
    JOB_REQUEUED = "job.requeued"
    JOB_ENDED = "job.ended"
    APPRAISAL = "appraisal"
    LEASE_GRANTED = "lease.granted"
    LEASE_REFUSED = "lease.refused"
    LEASE_RENEWED = "lease.renewed"
    LEASE_RENEWAL_REFUSED = "lease.renewal-refused"
    LEASE_RETURNED = "lease.returned"
    LEASE_EXPIRED = "lease.expired"
    LEASE_REVOKED = "lease.revoked"
    USAGE_REPORTED = "usage.reported"
    PLACEMENT_READ = "placement.read"
    REQUESTS_REFUSED = "requests.refused"
    AUDIT_READ = "audit.read"
    AUDIT_ERASED = "audit.erased"


class Result(StrEnum):
    """How a request ended; `RECORDED` marks what was not for anybody to allow or deny."""

    ALLOWED = "allowed"
    DENIED = "denied"
    RECORDED = "recorded"


_KEY_LIKE_RUN: Final = re.compile(r"[A-Za-z0-9+/=_-]{43,}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")
_DIGEST_NAMES: Final = ("_digest", "_hash")


def looks_like_key(text: str) -> bool:
    """Could `text` hold 32 or more bytes of key material in hexadecimal or base64?

    A guard against mistakes, not a proof: digests look the same, so `detail` takes them only under names that end
    in ``_digest`` or ``_hash``.
    """
    for run in _KEY_LIKE_RUN.findall(text):
        if _HEX.fullmatch(run):
            if len(run) >= 64:
                return True
        elif any(c.isupper() for c in run) and any(c.islower() for c in run) and any(c.isdigit() for c in run):
            return True
    return False


@lru_cache(maxsize=4096)
def asset_ref(text: str) -> AssetRef:
    """Parse ``tenant/name@version``; records name the same few versions again and again.

    Raises:
        BindingError: the text has another form.
    """
    return AssetRef.parse(text)


def _asset_ref(text: str) -> str:
    try:
        ref = asset_ref(text)
    except BindingError as error:
        raise ValueError(str(error)) from None
    if "/" not in ref.asset:
        raise ValueError(f"{text!r:.80} is not TENANT/NAME@VERSION")
    return text


def _sorted_set(value: object) -> object:
    """Put a list of texts in canonical order; anything else is left for the field's own check to refuse."""
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value):
        return tuple(sorted(set(value)))
    return value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Identifier: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}$")]
"""The identifier of `keystead.binding.check_id`."""

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]
"""Visible ASCII without spaces: certificate subjects and service accounts are named by more than identifiers."""

Hardware: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}:[A-Za-z0-9._:+/=-]{1,512}$")]
"""``kind:value``, for example ``amd-chip-id:`` and 128 hexadecimal digits."""

Digest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, lower-case hexadecimal."""

ReasonCode: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
"""A stable UPPER_SNAKE code of a finding, denial or error."""

Jurisdiction: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
"""ISO 3166-1 alpha-2, or ISO 3166-2."""

Asset: TypeAlias = Annotated[str, AfterValidator(_asset_ref)]
"""``tenant/name@version``."""

Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,512}$")]
"""One line of printable ASCII."""

DetailKey: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Integer: TypeAlias = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
DetailValue: TypeAlias = Annotated[
    bool | Integer | Text | Annotated[tuple[Text, ...], Field(max_length=MAX_ITEMS)], BeforeValidator(_as_tuple)
]

_T = TypeVar("_T", bound=str)
SortedSet: TypeAlias = Annotated[tuple[_T, ...], Field(max_length=MAX_ITEMS), BeforeValidator(_sorted_set)]
"""Texts in canonical order, none twice."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """Build one from `fields`, this class's attributes as plain Python values.

        Raises:
            RecordError: a field is missing, unknown or has another form. The text names each, but not its value.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise RecordError(f"audit {cls.__name__.lower()}: {_summary(error)}") from None


class Actor(_Strict):
    """Who acted, as the broker authenticated them.

    Attributes:
        role: the role they acted in: ``owner``, ``scheduler``, ``node``, ``operator``, ``auditor``, ``broker``.
        name: their authenticated name.
        tenant: the tenant they act for; None for operators and the broker itself.
    """

    role: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
    name: Name
    tenant: Identifier | None = None


class Record(_Strict):
    """One event.

    Attributes:
        version: version of this structure.
        kind: what happened.
        time: when, integer seconds since the Unix epoch.
        actor: who.
        tenant: whose assets or job it was.
        job: the scheduler's id of the job.
        node: the enrolled node.
        hardware: the hardware identities proven, ``kind:value``.
        site, jurisdiction: where the node is enrolled.
        assets: the asset versions concerned.
        policy_digest: digest of the policy bundle that decided.
        input_digest: digest of the decision's input document, which is stored once elsewhere.
        result: allowed, denied or recorded.
        reasons: codes; a denial names at least one, an allowance none.
        lease: the lease concerned.
        detail: a few more facts, by names in lower_snake. Never prompts, responses, weights, keys or customer data.
    """

    version: Literal[1] = 1
    kind: Kind
    time: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    actor: Actor
    tenant: Identifier | None = None
    job: Identifier | None = None
    node: Identifier | None = None
    hardware: SortedSet[Hardware] = ()
    site: Identifier | None = None
    jurisdiction: Jurisdiction | None = None
    assets: SortedSet[Asset] = ()
    policy_digest: Digest | None = None
    input_digest: Digest | None = None
    result: Result
    reasons: SortedSet[ReasonCode] = ()
    lease: Identifier | None = None
    detail: Annotated[Mapping[DetailKey, DetailValue], Field(max_length=64, default_factory=dict)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.result is Result.DENIED and not self.reasons:
            raise ValueError("a denial names at least one reason code")
        if self.result is Result.ALLOWED and self.reasons:
            raise ValueError("an allowance has no reason codes")
        for name, value in self.detail.items():
            texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
            if not name.endswith(_DIGEST_NAMES) and any(looks_like_key(text) for text in texts):
                raise ValueError(f"detail.{name} looks like key material; name a digest ..._digest or ..._hash")
        object.__setattr__(self, "detail", MappingProxyType(dict(self.detail)))
        return self

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values: every field is present, and names stand in the order of RFC 8785."""
        return {
            "actor": {"name": self.actor.name, "role": self.actor.role, "tenant": self.actor.tenant},
            "assets": list(self.assets),
            "detail": {
                name: list(value) if isinstance(value, tuple) else value for name, value in sorted(self.detail.items())
            },
            "hardware": list(self.hardware),
            "input_digest": self.input_digest,
            "job": self.job,
            "jurisdiction": self.jurisdiction,
            "kind": self.kind.value,
            "lease": self.lease,
            "node": self.node,
            "policy_digest": self.policy_digest,
            "reasons": list(self.reasons),
            "result": self.result.value,
            "site": self.site,
            "tenant": self.tenant,
            "time": self.time,
            "version": self.version,
        }

    def payload(self) -> bytes:
        """The canonical bytes (RFC 8785) that the leaf commits to.

        Raises:
            RecordError: they are longer than `MAX_PAYLOAD`.
        """
        # RFC 8785 asks for sorted names, no white space, and its own forms of floats, non-ASCII names and control
        # characters. A record has none of the last three and `to_json` sorts, so pydantic's encoder writes the same
        # bytes twenty times faster than the rfc8785 package; a property test compares the two.
        data = to_json(self.to_json())
        if len(data) > MAX_PAYLOAD:
            raise RecordError(
                f"audit record: {len(data)} bytes, at most {MAX_PAYLOAD} are allowed; name large data by digest"
            )
        return data

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse `payload`'s bytes.

        Raises:
            MalformedError: they are not the canonical encoding of a record of this version.
        """
        if len(payload) > MAX_PAYLOAD:
            raise MalformedError("audit record", f"{len(payload)} bytes, at most {MAX_PAYLOAD} are allowed")
        try:
            record = cls.model_validate_json(payload)
        except ValidationError as error:
            raise MalformedError("audit record", _summary(error)) from None
        if record.payload() != payload:
            raise MalformedError("audit record", "not canonical (RFC 8785)")
        return record


def _summary(error: ValidationError) -> str:
    """Name each field and rule, never a value: a refused value may be the secret that was refused."""
    items = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg']}" for item in items[:8])
