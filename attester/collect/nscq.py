"""NVSwitch evidence through NVIDIA's switch query library (NSCQ): SPDM measurements and certificate chain.

Needs switches in trusted NVLink mode (TNVL) and ``libnvidia-nscq.so.2`` of the driver's version; NVIDIA publishes no
Python package for it. Source: NVIDIA, nvtrust repository, ``nscq_attestation.h`` and ``nscq_attestation_path.h`` (API
version 2.0.0); functions, structures and paths below are theirs. Structures reach callbacks by value.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from attestation.errors import MalformedError
from attestation.pem import certificates_from_pem
from attestation.types import Evidence
from attester.collect.collector import DEVICE_NONCE_SIZE
from attester.errors import EvidenceConflictError, SwitchEvidenceError

LIBRARY: Final = "libnvidia-nscq.so.2"
MAX_SWITCHES: Final = 64

SUCCESS: Final = 0
"""``NSCQ_RC_SUCCESS``; above it are warnings (done, with caveats), below it errors."""

_ERRORS: Final = {
    -1: "not implemented",
    -2: "invalid UUID",
    -3: "resource not mountable",
    -4: "overflow",
    -5: "unexpected value",
    -6: "unsupported driver",
    -7: "driver error",
    -8: "timeout",
    -127: "external error",
    -128: "unspecified",
}
_MOUNT_DEVICES: Final = 1
"""``NSCQ_SESSION_CREATE_MOUNT_DEVICES``."""

_TNVL_MODES: Final = {-1: "unknown", 0: "disabled", 1: "enabled", 2: "failure", 3: "locked"}
_ATTESTING: Final = frozenset({1, 3})
_PATH_UUIDS: Final = b"/drv/nvswitch/{device}/uuid"
_REPORT_SIZE: Final = 0x2000
_CHAIN_SIZE: Final = 0x1400
_NONCE_AT: Final = 4
"""Offset of the nonce in the SPDM GET_MEASUREMENTS request that evidence begins with."""


class Uuid(ctypes.Structure):
    """``nscq_uuid_t``."""

    _fields_ = (("bytes", ctypes.c_uint8 * 16),)


class Label(ctypes.Structure):
    """``nscq_label_t``: a UUID as text, which names the switch in paths."""

    _fields_ = (("data", ctypes.c_char * 64),)


class AttestationReport(ctypes.Structure):
    """``nscq_attestation_report_t``."""

    _fields_ = (("report_size", ctypes.c_uint32), ("report", ctypes.c_uint8 * _REPORT_SIZE))


class AttestationCertificate(ctypes.Structure):
    """``nscq_attestation_certificate_t``."""

    _fields_ = (("cert_chain", ctypes.c_uint8 * _CHAIN_SIZE), ("cert_chain_size", ctypes.c_uint32))


class _SessionResult(ctypes.Structure):
    _fields_ = (("rc", ctypes.c_int8), ("session", ctypes.c_void_p))


_UuidPointer: Final = ctypes.POINTER(Uuid)
_OnUuid: Final = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, _UuidPointer, ctypes.c_void_p)
_OnMode: Final = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, ctypes.c_int8, ctypes.c_void_p)
_OnReport: Final = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, AttestationReport, ctypes.c_void_p)
_OnChain: Final = ctypes.CFUNCTYPE(None, _UuidPointer, ctypes.c_int8, AttestationCertificate, ctypes.c_void_p)


def load_library(name: str = LIBRARY) -> ctypes.CDLL | None:
    """Load NSCQ and declare what is used of it; None where this machine has no such library.

    Raises:
        SwitchEvidenceError: the library lacks a function: it is not the one it is called.
    """
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    uint32, pointer = ctypes.c_uint32, ctypes.c_void_p
    try:
        for function, returns, arguments in (
            (library.nscq_session_create, _SessionResult, (uint32,)),
            (library.nscq_session_destroy, None, (pointer,)),
            (library.nscq_session_path_observe, ctypes.c_int8, (pointer, ctypes.c_char_p, pointer, pointer, uint32)),
            (library.nscq_session_set_input, ctypes.c_int8, (pointer, uint32, pointer, uint32)),
            (library.nscq_uuid_to_label, ctypes.c_int8, (_UuidPointer, ctypes.POINTER(Label), uint32)),
        ):
            function.restype, function.argtypes = returns, arguments
    except AttributeError as error:
        raise SwitchEvidenceError(f"{name}: {error}; install the NSCQ of the driver's version") from None
    return library


class Nscq:
    """Collects the evidence of every NVSwitch of this machine.

    A machine without the library has no switches that attest by themselves, and gives no evidence of any; a broker that
    has some enrolled for the node refuses it.

    Args:
        library: the library's file name or path.
    """

    __slots__ = ("_library",)

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = library

    def devices(self, nonce: bytes) -> tuple[Evidence, ...]:
        """The evidence of every switch, ``nvswitch0`` first, in the order of their UUIDs.

        Raises:
            EvidenceConflictError: a switch answered another nonce than ours.
            SwitchEvidenceError: no session, or a switch that is not in trusted NVLink mode or gives no evidence.
        """
        if len(nonce) != DEVICE_NONCE_SIZE:
            raise SwitchEvidenceError(f"nonce: {len(nonce)} bytes, SPDM takes exactly {DEVICE_NONCE_SIZE}")
        library = load_library(self._library)
        if library is None:
            return ()
        with _session(library) as session:
            labels = _labels(library, session)
            if len(labels) > MAX_SWITCHES:
                raise SwitchEvidenceError(f"NSCQ sees {len(labels)} switches, at most {MAX_SWITCHES} can be attested")
            return tuple(
                _collect(library, session, label=label, slot=f"nvswitch{index}", nonce=nonce)
                for index, label in enumerate(labels)
            )


@contextmanager
def _session(library: ctypes.CDLL) -> Iterator[int]:
    made = library.nscq_session_create(_MOUNT_DEVICES)
    _require(made.rc, "no session; is the driver loaded, and of the library's version?")
    if not made.session:
        raise SwitchEvidenceError("NSCQ: no session, and no error either")
    try:
        yield made.session
    finally:
        library.nscq_session_destroy(made.session)


def _labels(library: ctypes.CDLL, session: int) -> list[bytes]:
    """The switches' names, sorted, so that slots are stable."""
    uuids: list[bytes] = []

    def took(_device: Any, uuid: Any) -> None:
        uuids.append(bytes(uuid.contents.bytes))

    _observe(library, session, path=_PATH_UUIDS, kind=_OnUuid, take=took)
    labels = []
    for uuid in uuids:
        label = Label()
        _require(library.nscq_uuid_to_label(Uuid.from_buffer_copy(uuid), label, 0), "a switch has no name")
        labels.append(label.data)
    if len(set(labels)) != len(labels) or not all(labels):
        raise SwitchEvidenceError("NSCQ names a switch twice, or not at all")
    return sorted(labels)


def _collect(library: ctypes.CDLL, session: int, *, label: bytes, slot: str, nonce: bytes) -> Evidence:
    what = f"{slot} ({label.decode('ascii', 'backslashreplace')})"
    modes: list[int] = []
    reports: list[tuple[int, bytes]] = []
    chains: list[tuple[int, bytes]] = []
    config = b"/" + label + b"/config/"

    def observe(name: bytes, kind: Any, take: Callable[[Any, Any], None]) -> None:
        _observe(library, session, path=config + name, kind=kind, take=take)

    observe(b"pcie_mode", _OnMode, lambda _device, mode: modes.append(mode))
    (mode,) = _once(modes, f"{what}: mode")
    if mode not in _ATTESTING:
        raise SwitchEvidenceError(
            f"{what}: trusted NVLink mode is {_TNVL_MODES.get(mode, mode)}; a switch attests in it only: "
            "start the node in protected-PCIe mode"
        )
    # The library keeps the nonce for the session's next observation of a report.
    _require(
        library.nscq_session_set_input(session, 0, (ctypes.c_uint8 * len(nonce)).from_buffer_copy(nonce), len(nonce)),
        f"{what}: nonce not taken",
    )
    observe(
        b"attestation_report",
        _OnReport,
        lambda _device, value: reports.append((value.report_size, bytes(value.report))),
    )
    observe(
        b"certificate",
        _OnChain,
        lambda _device, value: chains.append((value.cert_chain_size, bytes(value.cert_chain))),
    )
    data = _sized(*_once(reports, f"{what}: report"), what=f"{what}: attestation report")
    pem = _sized(*_once(chains, f"{what}: chain"), what=f"{what}: certificate chain")
    if data[_NONCE_AT : _NONCE_AT + len(nonce)] != nonce:
        raise EvidenceConflictError(f"{what}: the evidence answers another nonce than ours; collect again")
    try:
        certificates = certificates_from_pem(pem)
    except MalformedError as error:
        raise SwitchEvidenceError(f"{what}: certificate chain: {error}") from None
    return Evidence(slot=slot, scheme="nvswitch", data=data, certificates=certificates)


def _observe(library: ctypes.CDLL, session: int, *, path: bytes, kind: Any, take: Callable[[Any, Any], None]) -> None:
    """Read a path; `take` gets each device's value.

    Raises:
        SwitchEvidenceError: the library, or a device, returned an error.
    """
    codes: list[int] = []

    def called(device: Any, code: int, value: Any, _data: Any) -> None:
        # Nothing may be raised here: it would be lost between Python and C.
        codes.append(code)
        if code >= SUCCESS and (kind is not _OnUuid or value):
            take(device, value)

    callback = kind(called)
    where = path.decode("ascii", "backslashreplace")
    returned = library.nscq_session_path_observe(session, path, ctypes.cast(callback, ctypes.c_void_p), None, 0)
    _require(returned, where)
    for code in codes:
        _require(code, where)


def _require(code: int, what: str) -> None:
    if code < SUCCESS:
        raise SwitchEvidenceError(f"NSCQ: {what}: {_ERRORS.get(code, 'unknown error')} ({code})")


def _once(values: list[Any], what: str) -> Any:
    if len(values) != 1:
        raise SwitchEvidenceError(f"{what}: NSCQ gave {len(values)} values, one was asked for")
    return values[0] if isinstance(values[0], tuple) else (values[0],)


def _sized(size: int, buffer: bytes, *, what: str) -> bytes:
    if not 0 < size <= len(buffer):
        raise SwitchEvidenceError(f"{what}: NSCQ says {size} bytes, its buffer has {len(buffer)}")
    return buffer[:size]
