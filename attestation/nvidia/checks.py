"""The rules that every kind of NVIDIA device has, each kind under codes of its own."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.findings import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChecks:
    """One kind of device's rules, by what they are about.

    Attributes:
        signature: the leaf's key signed request and response.
        trailing_byte: nothing follows the signature.
        nonce: the request carries the verifier's nonce.
        nonce_not_compared: the verifier gave a nonce.
        operation: every measurement was asked for, and digests came.
        fwid: the firmware identity in the evidence is the one in the leaf.
        device_key: the leaf repeats the key of the certificate that issued it.
        firmware_state: no flag of the firmware is forbidden.
        identity: the BROM certificate names a device of this kind.
        pdi: the evidence states the PDI that the BROM certificate names; None where its kind states none.
        product: it is a chip that the reference values allow.
        measurement: each pinned measurement is one of its reference values.
        measurements_not_appraised: every measurement has a reference value.
        revocation_not_checked: OCSP responses were given.
    """

    signature: Check
    trailing_byte: Check
    nonce: Check
    nonce_not_compared: Check
    operation: Check
    fwid: Check
    device_key: Check
    firmware_state: Check
    identity: Check
    pdi: Check | None
    product: Check
    measurement: Check
    measurements_not_appraised: Check
    revocation_not_checked: Check
