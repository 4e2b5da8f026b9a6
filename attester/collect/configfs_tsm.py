"""The CPU TEE's evidence through Linux's configfs-tsm interface (SEV-SNP and TDX guests, kernel 6.7 and later).

One report entry is made for each request, so that no other process writes to it: a folder under
``/sys/kernel/config/tsm/report``. Writing ``inblob`` sets REPORT_DATA, reading ``outblob`` makes the hardware sign.
``generation`` counts the writes; if it grew by another number than ours, the evidence is not for our request.
Source: Linux, Documentation/ABI/testing/configfs-tsm (also configfs-tsm-report).
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attestation.errors import AttestationError
from attestation.snp.abi import AttestationReport
from attestation.snp.cert_table import chain_from_table, leaf_guid, parse_cert_table
from attestation.types import Evidence
from attester.collect.collector import REPORT_DATA_SIZE
from attester.errors import CollectionError, EvidenceConflictError, NoTeeError

REPORT_FOLDER: Final = Path("/sys/kernel/config/tsm/report")
SCHEMES: Final = {"sev_guest": "snp", "tdx_guest": "tdx"}
"""Which scheme reads the evidence of which kernel provider."""

MAX_PRIVLEVEL: Final = 3
_MAX_BLOB: Final = 1 << 20
_BUSY: Final = frozenset({errno.EBUSY, errno.EAGAIN})
_ATTEMPTS: Final = 4
_PAUSE: Final = 0.05
"""Seconds before the second attempt; each further pause is twice as long."""


class ConfigfsTsm:
    """Collects the CPU TEE's evidence from the kernel.

    Args:
        folder: where configfs-tsm shows its reports.
        privlevel: the VMPL to ask for, 0 to 3; None leaves it to the kernel, whose own level is the lowest allowed.
    """

    __slots__ = ("_folder", "_privlevel")

    def __init__(self, folder: Path = REPORT_FOLDER, *, privlevel: int | None = None) -> None:
        if privlevel is not None and not 0 <= privlevel <= MAX_PRIVLEVEL:
            raise ValueError(f"privlevel {privlevel}: 0 to {MAX_PRIVLEVEL} are allowed")
        self._folder = folder
        self._privlevel = privlevel

    def cpu(self, report_data: bytes) -> Evidence:
        """The CPU TEE's evidence over `report_data`, with the certificates that the host conveys.

        Raises:
            NoTeeError: no configfs-tsm, not permitted, or a provider that no scheme reads.
            EvidenceConflictError: another process wrote to our report entry.
            CollectionError: the hardware or the kernel failed, or gave something else than was asked for.
        """
        if len(report_data) != REPORT_DATA_SIZE:
            raise CollectionError(f"REPORT_DATA: {len(report_data)} bytes, exactly {REPORT_DATA_SIZE} are needed")
        with self._entry() as entry:
            provider = _read_text(entry / "provider")
            scheme = SCHEMES.get(provider)
            if scheme is None:
                raise NoTeeError(f"{self._folder}: provider {provider!r} is none of {', '.join(sorted(SCHEMES))}")
            before = _generation(entry)
            writes = 1
            if self._privlevel is not None:
                _write(entry / "privlevel", str(self._privlevel).encode("ascii"))
                writes += 1
            _write(entry / "inblob", report_data)
            data = _read_signed(entry / "outblob")
            table = _read_optional(entry / "auxblob")
            after = _generation(entry)
        if after != before + writes:
            raise EvidenceConflictError(
                f"{self._folder}: {after - before} writes to our report entry, {writes} were ours; collect again"
            )
        certificates = _snp_certificates(data, table, report_data) if scheme == "snp" else ()
        return Evidence(slot="cpu0", scheme=scheme, data=data, certificates=certificates)

    @contextmanager
    def _entry(self) -> Iterator[Path]:
        entry = self._folder / f"keystead-{secrets.token_hex(8)}"
        try:
            os.mkdir(entry, 0o700)  # noqa: PTH102 - configfs gives a folder its files as a side effect of mkdir(2)
        except FileNotFoundError:
            raise NoTeeError(
                f"{self._folder}: not there. Is this a confidential VM with Linux 6.7 or later, and configfs mounted?"
            ) from None
        except PermissionError:
            raise NoTeeError(
                f"{self._folder}: not permitted; evidence collection needs root or a granted folder"
            ) from None
        except OSError as error:
            raise NoTeeError(f"{self._folder}: {error.strerror}; no TEE provider is loaded") from None
        try:
            yield entry
        except OSError as error:
            raise CollectionError(f"{error.filename or entry}: {error.strerror or error}") from None
        finally:
            os.rmdir(entry)  # noqa: PTH106 - the counterpart of the above


def _read(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        parts = []
        size = 0
        while part := file.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > _MAX_BLOB:
                raise CollectionError(f"{path}: more than {_MAX_BLOB} bytes")
    return b"".join(parts)


def _read_text(path: Path) -> str:
    return _read(path).decode("ascii", "backslashreplace").strip()


def _read_optional(path: Path) -> bytes:
    try:
        return _read(path)
    except FileNotFoundError:
        return b""


def _read_signed(path: Path) -> bytes:
    pause = _PAUSE
    for _ in range(_ATTEMPTS - 1):
        try:
            return _read(path)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            time.sleep(pause)
            pause *= 2
    return _read(path)


def _write(path: Path, data: bytes) -> None:
    # One write(2): configfs takes each as a whole value.
    with path.open("wb", buffering=0) as file:
        if file.write(data) != len(data):
            raise CollectionError(f"{path}: the kernel took only a part of {len(data)} bytes")


def _generation(entry: Path) -> int:
    text = _read_text(entry / "generation")
    if not (text.isascii() and text.isdigit()):
        raise CollectionError(f"{entry / 'generation'}: {text!a:.40} is not a number")
    return int(text)


def _snp_certificates(data: bytes, table: bytes, report_data: bytes) -> tuple[bytes, ...]:
    """The host's certificates, leaf first: the leaf that the report says it was signed with, ASK or ASVK, ARK."""
    try:
        report = AttestationReport.parse(data)
        found = parse_cert_table(table) if table else {}  # a host may hand over none
    except AttestationError as error:
        raise CollectionError(f"the kernel gave something else than an SEV-SNP report: {error}") from None
    if report.report_data != report_data:
        raise EvidenceConflictError("the SEV-SNP report carries other REPORT_DATA than ours; collect again")
    leaf = leaf_guid(report)
    return chain_from_table(found, leaf=leaf) if leaf in found else ()
