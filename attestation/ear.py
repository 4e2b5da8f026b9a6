"""The Attestation Result: an EAR, one submodule for each device, as a signed JWT.

Source: draft-ietf-rats-ear ("EAT Attestation Results") in its JSON serialisation with the claim names of revision 00
(``ear.status`` and so on, as deployed relying parties read them; revision 03 renamed them), and
draft-ietf-rats-ar4si, section 2.3, for tiers and the trustworthiness vector. Claims of our own are named
``keystead.*``.

The same result, policy and time give byte-identical claims: no ``jti``, ``iat`` is the appraisal's `now`, findings are
sorted, there are no floats, and the payload is canonical JSON (RFC 8785). Ed25519 signatures are deterministic, so the
token is too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn, cast

import jwt
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attestation.composite import NodeResult
from attestation.errors import ResultError
from attestation.findings import Finding, Severity
from attestation.types import DeviceResult, Json

EAT_PROFILE: Final = "tag:github.com,2023:veraison/ear"
"""EAR's profile identifier under the claim names used here."""

MEDIA_TYPE: Final = "eat+jwt"
"""``typ`` header (RFC 9782)."""

ALGORITHM: Final = "EdDSA"
BUILD: Final = "keystead-attestation-1"
"""``ear.verifier-id.build``: grows when the same evidence may come to other claims."""

MAX_TOKEN_SIZE: Final = 1 << 20

TRUST_CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""AR4SI's trustworthiness claims, in the order of draft-ietf-rats-ar4si, section 2.3.4."""


class Tier(IntEnum):
    """AR4SI trustworthiness tiers; a greater number is worse (draft-ietf-rats-ar4si, section 2.3.2)."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96

    @property
    def text(self) -> str:
        """As ``ear.status`` has it in JSON."""
        return self.name.lower()


_TIERS: Final[Mapping[str, Tier]] = {tier.text: tier for tier in Tier}


def tier_of(value: int) -> Tier:
    """The tier of one trustworthiness claim's value, -128 to 127.

    Raises:
        ResultError: outside that range.
    """
    if not -128 <= value <= 127:
        raise ResultError(f"trustworthiness claim {value}: must be from -128 to 127")
    if -1 <= value <= 1:
        return Tier.NONE
    if -32 <= value <= 31:
        return Tier.AFFIRMING
    if -96 <= value <= 95:
        return Tier.WARNING
    return Tier.CONTRAINDICATED


@dataclass(frozen=True, slots=True)
class EarClaims:
    """The claims of a verified token.

    Attributes:
        document: every claim, as signed.
        issuer: the verifier that appraised.
        issued_at, expires_at: seconds since the epoch.
        nonce: the session's nonce.
        signing_key: the node's Ed25519 public key (32 bytes), which the CPU TEE vouched for.
        policy_id: appraisal policy.
        status: the worst tier of any device.
        binding_level: see `attestation.composite`.
        identities: proven hardware identities (``kind:value``) by slot.
        codes: codes of all failing findings, sorted.
        simulated: some device's chain ends in a simulator's root.
    """

    document: Mapping[str, Json]
    issuer: str
    issued_at: int
    expires_at: int
    nonce: bytes
    signing_key: bytes
    policy_id: str
    status: Tier
    binding_level: str
    identities: Mapping[str, str]
    codes: tuple[str, ...]
    simulated: bool


def build_claims(
    result: NodeResult,
    *,
    trust_vectors: Mapping[str, Mapping[str, int]],
    policy_id: str,
    verifier: str,
    nonce: bytes,
    signing_key: Ed25519PublicKey,
    now: int,
    lifetime: int,
) -> dict[str, Json]:
    """The claims of the Attestation Result.

    A device's status is the worst tier of its vector, and contraindicated where any finding of the device or of the
    node fails, whatever the policy says. A device that the policy gave no vector has the status ``none``.

    Args:
        result: what verification established.
        trust_vectors: AR4SI claims by slot, as the appraisal policy decided.
        policy_id: identifies the appraisal policy; its digest.
        verifier: name of the logical verifier; ``iss``.
        nonce: the session's nonce.
        signing_key: the node's key, which becomes ``cnf``.
        now: the appraisal's time; ``iat``.
        lifetime: seconds until the result expires.

    Raises:
        ResultError: a vector names an unknown slot or claim, or a value out of range.
    """
    slots = {device.slot for device in result.devices}
    unknown = sorted(trust_vectors.keys() - slots)
    if unknown:
        raise ResultError(f"trust vector for {unknown[0]!r:.40}: the node has no such device")
    node_failed = any(finding.severity is Severity.FAIL for finding in result.findings)
    return {
        "eat_profile": EAT_PROFILE,
        "iss": verifier,
        "iat": now,
        "exp": now + lifetime,
        "ear.verifier-id": {"developer": verifier, "build": BUILD},
        "eat_nonce": _encode(nonce),
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": _encode(signing_key.public_bytes_raw())}},
        "keystead.binding-level": result.binding_level,
        "keystead.findings": _findings(result.findings),
        "keystead.simulated": result.simulated,
        "submods": {
            device.slot: _submodule(
                device, vector=trust_vectors.get(device.slot), policy_id=policy_id, node_failed=node_failed
            )
            for device in sorted(result.devices, key=lambda each: each.slot)
        },
    }


def _submodule(
    device: DeviceResult, *, vector: Mapping[str, int] | None, policy_id: str, node_failed: bool
) -> dict[str, Json]:
    unknown = sorted((vector or {}).keys() - set(TRUST_CLAIMS))
    if unknown:
        raise ResultError(f"trust vector of {device.slot}: {unknown[0]!r:.40} is not an AR4SI claim")
    status = max((tier_of(value) for value in (vector or {}).values()), default=Tier.NONE)
    if node_failed or not device.ok:
        status = Tier.CONTRAINDICATED
    submodule: dict[str, Json] = {
        "ear.status": status.text,
        "ear.appraisal-policy-id": policy_id,
        "keystead.scheme": device.scheme,
        "keystead.identity": None if device.identity is None else str(device.identity),
        "keystead.findings": _findings(device.findings),
        "keystead.collateral-age": dict(sorted(device.collateral_age.items())),
        "keystead.simulated": device.simulated,
    }
    if device.appraised_by:
        submodule["keystead.appraised-by"] = dict(sorted(device.appraised_by.items()))
    if vector is not None:
        submodule["ear.trustworthiness-vector"] = {name: vector[name] for name in TRUST_CLAIMS if name in vector}
    return submodule


def _findings(findings: tuple[Finding, ...]) -> list[Json]:
    return [finding.to_json() for finding in sorted(findings)]


def worst_status(claims: Mapping[str, Json]) -> Tier:
    """The worst tier of any submodule; contraindicated where there is none.

    Raises:
        ResultError: ``submods`` or a status is not what it should be.
    """
    submodules = _mapping(claims, "submods")
    tiers = []
    for slot in submodules:
        status = _text(_mapping(submodules, slot), "ear.status")
        if status not in _TIERS:
            raise ResultError(f"submods.{slot}: ear.status {status!r:.40} is not a tier")
        tiers.append(_TIERS[status])
    return max(tiers, default=Tier.CONTRAINDICATED)


def canonical(claims: Mapping[str, Json]) -> bytes:
    """`claims` as canonical JSON (RFC 8785).

    Raises:
        ResultError: a float, or an integer outside ±(2^53 - 1).
    """
    _refuse_floats(claims, "claims")
    try:
        return rfc8785.dumps(cast("Any", claims))
    except rfc8785.CanonicalizationError as error:
        raise ResultError(f"claims: {error}") from None


def _refuse_floats(value: object, where: str) -> None:
    if isinstance(value, float):
        raise ResultError(f"{where}: floats are not allowed")
    if isinstance(value, Mapping):
        for name, each in value.items():
            _refuse_floats(each, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for each in value:
            _refuse_floats(each, where)


def sign(claims: Mapping[str, Json], key: Ed25519PrivateKey, *, key_id: str) -> str:
    """Sign `claims` with `key`, which relying parties know as `key_id`.

    Raises:
        ResultError: the claims have no canonical encoding.
    """
    return jwt.PyJWS().encode(
        canonical(claims), key, algorithm=ALGORITHM, headers={"typ": MEDIA_TYPE, "kid": key_id}, sort_headers=True
    )


def verify(token: str, *, keys: Mapping[str, Ed25519PublicKey], issuer: str, now: int) -> EarClaims:
    """Check a token's signature, issuer and times, and read its claims.

    Args:
        token: compact JWS.
        keys: the verifier's public keys by key id; no other key is ever considered.
        issuer: the verifier that must have made it.
        now: seconds since the epoch.

    Raises:
        ResultError: not a token of this issuer and these keys, altered, not current, or not well formed.
    """
    if len(token) > MAX_TOKEN_SIZE:
        raise ResultError(f"token of {len(token)} characters, at most {MAX_TOKEN_SIZE} are allowed")
    document = _open(token, keys)
    if document.get("eat_profile") != EAT_PROFILE:
        raise ResultError(f"eat_profile is {document.get('eat_profile')!r:.80}, expected {EAT_PROFILE!r}")
    if document.get("iss") != issuer:
        raise ResultError(f"iss is {document.get('iss')!r:.80}, expected {issuer!r:.80}")
    issued_at, expires_at = _integer(document, "iat"), _integer(document, "exp")
    if not issued_at <= now < expires_at:
        raise ResultError(f"valid from {issued_at} to {expires_at}, it is {now}: ask for a new Attestation Result")
    submodules = _mapping(document, "submods")
    identities: dict[str, str] = {}
    policies: set[str] = set()
    codes = set(_failing_codes(document, "keystead.findings"))
    for slot in submodules:
        submodule = _mapping(submodules, slot)
        policies.add(_text(submodule, "ear.appraisal-policy-id"))
        codes.update(_failing_codes(submodule, "keystead.findings"))
        if submodule.get("keystead.identity") is not None:
            identities[slot] = _text(submodule, "keystead.identity")
    if len(policies) != 1:
        raise ResultError(f"submods: {len(policies)} appraisal policies, expected one")
    jwk = _mapping(_mapping(document, "cnf"), "jwk")
    if (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519"):
        raise ResultError("cnf.jwk: not an Ed25519 key")
    signing_key = _decode(_text(jwk, "x"), "cnf.jwk.x")
    if len(signing_key) != 32:
        raise ResultError(f"cnf.jwk.x: {len(signing_key)} bytes, expected 32")
    simulated = document.get("keystead.simulated")
    if not isinstance(simulated, bool):
        raise ResultError("keystead.simulated: not a boolean")
    return EarClaims(
        document=document,
        issuer=issuer,
        issued_at=issued_at,
        expires_at=expires_at,
        nonce=_decode(_text(document, "eat_nonce"), "eat_nonce"),
        signing_key=signing_key,
        policy_id=policies.pop(),
        status=worst_status(document),
        binding_level=_text(document, "keystead.binding-level"),
        identities=identities,
        codes=tuple(sorted(codes)),
        simulated=simulated,
    )


def _open(token: str, keys: Mapping[str, Ed25519PublicKey]) -> dict[str, Json]:
    """The token's claims, once header, signature and canonical encoding are right."""
    jws = jwt.PyJWS()
    try:
        header = jws.get_unverified_header(token)
        key_id = header.get("kid")
        key = keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise ResultError(f"kid {key_id!r:.80} is not a known key of the verifier")
        if header.get("typ") != MEDIA_TYPE or set(header) != {"alg", "kid", "typ"}:
            raise ResultError(f"header must be alg, kid and typ {MEDIA_TYPE!r}")
        payload = jws.decode(token, key, algorithms=[ALGORITHM])
        document = json.loads(payload, parse_float=_refuse_number, parse_constant=_refuse_number)
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise ResultError(f"not an Attestation Result: {error}") from None
    if not isinstance(document, dict) or canonical(document) != payload:
        raise ResultError("payload is not canonical JSON")
    return document


def _refuse_number(text: str) -> NoReturn:
    raise ResultError(f"number {text:.40} is not an integer")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise ResultError(f"{where}: not base64url: {error}") from None
    if _encode(data) != text:
        raise ResultError(f"{where}: not canonical base64url")
    return data


def _mapping(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise ResultError(f"{name}: not an object")
    return value


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise ResultError(f"{name}: not a string")
    return value


def _integer(document: Mapping[str, Json], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ResultError(f"{name}: not an integer")
    return value


def _failing_codes(document: Mapping[str, Json], name: str) -> list[str]:
    findings = document.get(name)
    if not isinstance(findings, list):
        raise ResultError(f"{name}: not a list")
    codes = []
    for finding in findings:
        if not isinstance(finding, Mapping):
            raise ResultError(f"{name}: not a list of findings")
        if _text(finding, "severity") == Severity.FAIL:
            codes.append(_text(finding, "code"))
    return codes
