"""The decision document: what a policy's one entrypoint returns, and nothing else.

Source: DESIGN, "Policy evaluation and the decision document". A document is
``{allow, deny: [{code, message, field, expected, actual, remedy}], obligations: [{code, params}], policy_version}``,
where a denial may also have a ``reference``, and with an optional ``trust_vectors: {slot: {name: integer}}`` (AR4SI,
draft-ietf-rats-ar4si, section 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self, TypeGuard

from policy.documents import Json
from policy.errors import PolicyUndecidedError

AR4SI_NAMES: Final = frozenset(
    {
        "instance-identity",
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "runtime-opaque",
        "storage-opaque",
        "sourced-data",
    }
)
"""The trustworthiness claims of draft-ietf-rats-ar4si, section 2.3.4."""

_REQUIRED: Final = frozenset({"allow", "deny", "obligations", "policy_version"})
_OPTIONAL: Final = frozenset({"trust_vectors"})


@dataclass(frozen=True, slots=True, order=True)
class Denial:
    """One reason why not: rule `code` found `actual` in `field` where it asked for `expected`.

    `reference` says whose word `expected` is where it is not the policy's own: a verifier's finding brings it along.
    """

    code: str
    field: str
    expected: str
    actual: str
    message: str
    remedy: str
    reference: str = ""

    def to_json(self) -> dict[str, Json]:
        """The denial as it stands in answers, audit records and ``--json`` output."""
        return {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "expected": self.expected,
            "actual": self.actual,
            "remedy": self.remedy,
            **({"reference": self.reference} if self.reference else {}),
        }


@dataclass(frozen=True, slots=True)
class Obligation:
    """What the broker must do when it allows, such as ``lease_ceiling {seconds}``; an unknown code is refused there."""

    code: str
    params: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """The obligation as it stands in answers, audit records and ``--json`` output."""
        return {"code": self.code, "params": dict(self.params)}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decided.

    Attributes:
        allow: True only where `deny` is empty.
        deny: every reason at once, sorted.
        obligations: sorted by code; at most one of each.
        policy_version: the pack's own version, for people; what identifies a policy is the engine's digest.
        trust_vectors: AR4SI claims by device slot; empty where the pack appraises nothing.
    """

    allow: bool
    deny: tuple[Denial, ...]
    obligations: tuple[Obligation, ...]
    policy_version: str
    trust_vectors: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Read a decision document strictly.

        Raises:
            PolicyUndecidedError: a member is missing, unknown or of another type, an allowing document carries
                denials, a denying one carries none, or an obligation stands there twice.
        """
        top = _object(document, "decision")
        _members(top, _REQUIRED, _OPTIONAL, "decision")
        allow = top["allow"]
        if not isinstance(allow, bool):
            raise _malformed("allow", "is not a boolean")
        deny = tuple(sorted({_denial(item, f"deny[{n}]") for n, item in enumerate(_array(top["deny"], "deny"))}))
        if allow and deny:
            raise _malformed("allow", f"is true beside {len(deny)} denials")
        if not allow and not deny:
            raise _malformed("deny", "is empty although allow is false: a denial must say why")
        obligations = tuple(
            sorted(
                (
                    _obligation(item, f"obligations[{n}]")
                    for n, item in enumerate(_array(top["obligations"], "obligations"))
                ),
                key=lambda obligation: obligation.code,
            )
        )
        if len({obligation.code for obligation in obligations}) != len(obligations):
            raise _malformed("obligations", "hold one code twice")
        return cls(
            allow=allow,
            deny=deny,
            obligations=obligations,
            policy_version=_text(top["policy_version"], "policy_version"),
            trust_vectors=_vectors(top.get("trust_vectors", {})),
        )

    def to_json(self) -> dict[str, Json]:
        """The decision as the document that `from_document` reads."""
        document: dict[str, Json] = {
            "allow": self.allow,
            "deny": [denial.to_json() for denial in self.deny],
            "obligations": [obligation.to_json() for obligation in self.obligations],
            "policy_version": self.policy_version,
        }
        if self.trust_vectors:
            document["trust_vectors"] = {slot: dict(vector) for slot, vector in self.trust_vectors.items()}
        return document


def _malformed(where: str, problem: str) -> PolicyUndecidedError:
    return PolicyUndecidedError(f"decision document: {where} {problem}; mend the pack's `decision` rule")


def _object(value: object, where: str) -> dict[str, object]:
    if not _is_object(value):
        raise _malformed(where, "is not an object")
    return value


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _array(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _malformed(where, "is not an array")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _malformed(where, "is not a string, or is empty")
    return value


def _members(value: Mapping[str, object], required: frozenset[str], optional: frozenset[str], where: str) -> None:
    missing, unknown = required - value.keys(), value.keys() - required - optional
    if missing:
        raise _malformed(where, f"lacks {', '.join(sorted(missing))}")
    if unknown:
        raise _malformed(where, f"has unknown members {', '.join(sorted(unknown))}")


_DENIAL_MEMBERS: Final = frozenset({"code", "message", "field", "expected", "actual", "remedy"})
_DENIAL_OPTIONAL: Final = frozenset({"reference"})
_OBLIGATION_MEMBERS: Final = frozenset({"code", "params"})


def _denial(value: object, where: str) -> Denial:
    item = _object(value, where)
    _members(item, _DENIAL_MEMBERS, _DENIAL_OPTIONAL, where)
    for name in ("expected", "actual"):
        if not isinstance(item[name], str):
            raise _malformed(f"{where}.{name}", "is not a string")
    return Denial(
        code=_text(item["code"], f"{where}.code"),
        message=_text(item["message"], f"{where}.message"),
        field=_text(item["field"], f"{where}.field"),
        expected=str(item["expected"]),
        actual=str(item["actual"]),
        remedy=_text(item["remedy"], f"{where}.remedy"),
        reference=_text(item["reference"], f"{where}.reference") if "reference" in item else "",
    )


def _obligation(value: object, where: str) -> Obligation:
    item = _object(value, where)
    _members(item, _OBLIGATION_MEMBERS, frozenset(), where)
    params = _object(item["params"], f"{where}.params")
    return Obligation(code=_text(item["code"], f"{where}.code"), params=MappingProxyType(_json_object(params, where)))


def _json_object(value: Mapping[str, object], where: str) -> dict[str, Json]:
    return {key: _json(item, f"{where}.{key}") for key, item in value.items()}


def _json(value: object, where: str) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list):
        return [_json(item, where) for item in value]
    if _is_object(value):
        return _json_object(value, where)
    raise _malformed(where, "holds a number that is not an integer")


def _vectors(value: object) -> Mapping[str, Mapping[str, int]]:
    vectors: dict[str, Mapping[str, int]] = {}
    for slot, raw in sorted(_object(value, "trust_vectors").items()):
        vector: dict[str, int] = {}
        for name, number in sorted(_object(raw, f"trust_vectors.{slot}").items()):
            where = f"trust_vectors.{slot}.{name}"
            if name not in AR4SI_NAMES:
                raise _malformed(where, "is not a claim of AR4SI")
            if not isinstance(number, int) or isinstance(number, bool) or not -128 <= number <= 127:
                raise _malformed(where, "is not an 8-bit signed integer")
            vector[name] = number
        vectors[slot] = MappingProxyType(vector)
    return MappingProxyType(vectors)
