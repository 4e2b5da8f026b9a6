"""Azure's HCL report: an SNP report that a paravisor asked for, with the runtime data that it binds.

A confidential virtual machine of Azure runs under a paravisor (the Host Compatibility Layer) at VMPL 0, which gives
the guest a vTPM. NV index 0x01400001 holds this report. What a guest writes to NV index 0x01400002, 64 bytes, stands
in the runtime data as ``user-data`` when the report is read after it; until then that member is zeros, and the report
of the boot binds the vTPM's keys and no session.

Layout: a 32-byte header (``HCLA``, version, size), the report, a 20-byte description of the runtime data, and the
data: JSON with the vTPM's keys, the virtual machine's configuration and ``user-data``. REPORT_DATA is their hash,
zero-extended. Source: Microsoft, "Azure Confidential VM guest attestation design detail" (2025-02-06), attestation
report, runtime data, reserved TPM NV indices; published samples.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

from attestation.errors import MalformedError
from attestation.snp.abi import REPORT_DATA_SIZE, REPORT_SIZE
from attestation.types import Json
from attestation.wire import Reader

SIGNATURE: Final = b"HCLA"
"""What every HCL report begins with."""

HASH_SHA256: Final = 1
MAX_RUNTIME_SIZE: Final = 1 << 16
"""Bytes of runtime data; published ones have some 1,200."""

USER_DATA_SIZE: Final = 64
_STRUCTURE: Final = "HCL report"
_REPORT_TYPE_SNP: Final = 2
_HASHES: Final = {HASH_SHA256: hashlib.sha256, 2: hashlib.sha384, 3: hashlib.sha512}
_HEADER: Final = struct.Struct("<4sIIII12s")
_RUNTIME: Final = struct.Struct("<IIIII")
_RUNTIME_DATA: Final = "HCL runtime data"
_MAX_BRACKETS: Final = 64
_MAX_INTEGER: Final = (1 << 53) - 1
"""RFC 8785, section 3.2.2.3: beyond it there is no canonical form."""

_MAX_DIGITS: Final = 17
_AK: Final = "HCLAkPub"
_USER_DATA: Final = re.compile(r"[0-9A-Fa-f]{128}")
_BASE64URL: Final = re.compile(r"[0-9A-Za-z_-]{1,1024}")


@dataclass(frozen=True, slots=True)
class HclReport:
    """An HCL report.

    Attributes:
        report: the SNP report (1,184 bytes), unparsed.
        runtime_data: the JSON that it binds, byte for byte.
        hash_type: 1 SHA-256, 2 SHA-384, 3 SHA-512.
        version: of the envelope; nothing binds it.
    """

    report: bytes
    runtime_data: bytes
    hash_type: int = HASH_SHA256
    version: int = 2

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse an HCL report; zero padding may follow it, as the vTPM's NV index has a fixed size.

        Raises:
            MalformedError: another signature, report type or hash, sizes that contradict, or other trailing bytes.
        """
        reader = Reader(data, _STRUCTURE)
        signature, version, size, _request, _status, _reserved = _HEADER.unpack(reader.take(_HEADER.size, "header"))
        if signature != SIGNATURE:
            raise MalformedError(_STRUCTURE, f"begins with {signature.hex()}, expected {SIGNATURE.hex()}", offset=0)
        report = reader.take(REPORT_SIZE, "SNP report")
        at = reader.offset
        total, _version, kind, hash_type, variable = _RUNTIME.unpack(reader.take(_RUNTIME.size, "runtime data header"))
        if kind != _REPORT_TYPE_SNP or hash_type not in _HASHES:
            raise MalformedError(_STRUCTURE, f"report type {kind} with hash type {hash_type} is not SNP's", offset=at)
        if variable > MAX_RUNTIME_SIZE or total != _RUNTIME.size + variable:
            raise MalformedError(_STRUCTURE, f"runtime data of {variable} bytes in {total}", offset=at)
        runtime_data = reader.take(variable, "runtime data")
        if size != reader.offset:
            raise MalformedError(_STRUCTURE, f"states {size} bytes, has {reader.offset}", offset=8)
        reader.zero(reader.remaining, "padding")
        return cls(report=report, runtime_data=runtime_data, hash_type=hash_type, version=version)

    def to_bytes(self, *, padded_to: int = 0) -> bytes:
        """The report as the vTPM gives it, with zeros up to `padded_to` bytes where it is shorter."""
        size = _HEADER.size + len(self.report) + _RUNTIME.size + len(self.runtime_data)
        header = _HEADER.pack(SIGNATURE, self.version, size, 2, 0, bytes(12))
        variable = len(self.runtime_data)
        runtime = _RUNTIME.pack(_RUNTIME.size + variable, 1, _REPORT_TYPE_SNP, self.hash_type, variable)
        return (header + self.report + runtime + self.runtime_data).ljust(padded_to, b"\x00")

    @property
    def expected_report_data(self) -> bytes:
        """The 64 bytes that REPORT_DATA must be for the runtime data to be bound."""
        return _HASHES[self.hash_type](self.runtime_data).digest().ljust(REPORT_DATA_SIZE, b"\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeData:
    """What the paravisor states beside the report.

    Attributes:
        user_data: what the guest wrote to NV index 0x01400002, 64 bytes; zeros where it wrote nothing, None where
            the member is missing.
        ak_thumbprint: SHA-256 of the vTPM's attestation key (RFC 7638 JWK thumbprint, 32 bytes); None where the
            runtime data name no such key.
        vm_configuration: how the virtual machine was set up (``secure-boot`` and others), as stated.
    """

    user_data: bytes | None
    ak_thumbprint: bytes | None
    vm_configuration: Mapping[str, Json]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse runtime data: one JSON object, no name twice, no fractions, bounded; members not known are left.

        Raises:
            MalformedError: not such JSON, or a known member of another form.
        """
        document = _parse_json(data)
        configuration = document.get("vm-configuration", {})
        if not isinstance(configuration, dict):
            raise MalformedError(_RUNTIME_DATA, "vm-configuration is not an object")
        return cls(
            user_data=_user_data(document),
            ak_thumbprint=_ak_thumbprint(document.get("keys", [])),
            vm_configuration=configuration,
        )


def jwk_thumbprint(*, n: str, e: str) -> bytes:
    """The SHA-256 thumbprint of an RSA key (RFC 7638, section 3); `n` and `e` are base64url, as in its JWK."""
    return hashlib.sha256(f'{{"e":"{e}","kty":"RSA","n":"{n}"}}'.encode("ascii")).digest()


def _parse_json(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_RUNTIME_SIZE:
        raise MalformedError(_RUNTIME_DATA, f"{len(data)} bytes, at most {MAX_RUNTIME_SIZE} are allowed")
    # Bounds depth and number of containers before anything is built, whatever stands in strings.
    if (brackets := data.count(b"{") + data.count(b"[")) > _MAX_BRACKETS:
        raise MalformedError(_RUNTIME_DATA, f"{brackets} objects and lists, at most {_MAX_BRACKETS} are allowed")
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
        # Half a surrogate pair has no UTF-8, and what is claimed must have a canonical form.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise MalformedError(_RUNTIME_DATA, f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedError(_RUNTIME_DATA, "not an object")
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise MalformedError(_RUNTIME_DATA, "an object has a name twice")
    return made


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(value := int(text)) > _MAX_INTEGER:
        raise MalformedError(_RUNTIME_DATA, f"{text!a:.40} is no integer that JSON keeps exactly")
    return value


def _refuse(text: str) -> NoReturn:
    raise MalformedError(_RUNTIME_DATA, f"{text!a:.40} is no integer")


def _user_data(document: Mapping[str, Any]) -> bytes | None:
    if "user-data" not in document:
        return None
    stated = document["user-data"]
    if not isinstance(stated, str) or not _USER_DATA.fullmatch(stated):
        raise MalformedError(_RUNTIME_DATA, f"user-data is not {USER_DATA_SIZE} bytes in hex")
    return bytes.fromhex(stated)


def _ak_thumbprint(keys: Any) -> bytes | None:
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise MalformedError(_RUNTIME_DATA, "keys is not a list of objects")
    named = [key for key in keys if key.get("kid") == _AK]
    if not named:
        return None
    if len(named) > 1:
        raise MalformedError(_RUNTIME_DATA, f"{len(named)} keys are called {_AK}")
    (key,) = named
    n, e = key.get("n"), key.get("e")
    if key.get("kty") != "RSA" or not _is_base64url(n) or not _is_base64url(e):
        raise MalformedError(_RUNTIME_DATA, f"{_AK} is not an RSA key in JWK form")
    return jwk_thumbprint(n=n, e=e)


def _is_base64url(text: Any) -> bool:
    """Base64url without padding, and in its only form: no bits beyond the last byte."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        return False
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return False
    return base64.urlsafe_b64encode(data).rstrip(b"=") == text.encode("ascii")
