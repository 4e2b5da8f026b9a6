"""What every scheme's result is held to after the scheme has judged it: reference values in force, lists, advisories.

It works on claims, by the names that `attestation.snp.claims` and NVIDIA's claims give them, so that no scheme has to
know of it. A claim that a requirement needs and that is not there is a requirement that is not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from attestation.findings import CheckLog
from attestation.reference import checks
from attestation.reference.advisories import Advisory
from attestation.reference.bits import names_of
from attestation.reference.devices import check_devices
from attestation.reference.document import About
from attestation.scheme import ReferenceValues
from attestation.snp.abi import GuestPolicy, PlatformInfo
from attestation.types import DeviceResult, Json

_TCBS: Final = ("reported_tcb", "committed_tcb", "launch_tcb")
_VECTORS: Final = ("launch_mit_vector", "current_mit_vector")
_NVIDIA: Final = frozenset({"nvgpu", "nvswitch"})
_NOT_STATED: Final = "not stated"


class _Shortfall(NamedTuple):
    """One requirement that is not met."""

    expected: str
    actual: str


def appraise_reference(result: DeviceResult, *, reference: ReferenceValues, now: int, log: CheckLog) -> None:
    """Hold a device's result against everything that is the same for all schemes.

    Args:
        result: as the scheme left it.
        reference: the operator's reference values.
        now: the appraisal's time, seconds since the epoch.
        log: gets every outcome.
    """
    if reference.source is not None and reference.source.about is not None:
        _check_window(reference.source.about, origin=reference.origin, now=now, log=log)
    check_devices(result, lists=reference.devices, origin=reference.origin, log=log)
    _check_advisories(result, reference=reference, now=now, log=log)


def _check_window(about: About, *, origin: str, now: int, log: CheckLog) -> None:
    until = "" if about.expires is None else f" to {about.expires}"
    log.require(
        checks.REFERENCE_WINDOW,
        ok=about.issued <= now and (about.expires is None or now < about.expires),
        expected=f"from {about.issued}{until}",
        actual=str(now),
        reference=origin,
    )


def _check_advisories(result: DeviceResult, *, reference: ReferenceValues, now: int, log: CheckLog) -> None:
    snp = result.scheme not in _NVIDIA
    stale = checks.SNP_ADVISORIES_STALE if snp else checks.NVIDIA_ADVISORIES_STALE
    tables = [
        (table, concerned)
        for table in reference.advisories
        if (concerned := table.about_snp if snp else table.about_nvidia)
    ]
    if not tables and snp:
        log.require(checks.SNP_ADVISORIES_NONE, ok=False, expected="a table of advisories", actual="none")
    for table, concerned in tables:
        late, shown = table.next_update + reference.advisories_grace, str(table)
        log.require(
            stale,
            ok=table.about.issued <= now < late,
            expected=f"from {table.about.issued} to {late}",
            actual=str(now),
            where=table.source.name,
            reference=shown,
        )
        for advisory in concerned:
            _check_advisory(advisory, result=result, reference=reference, table=shown, log=log)


def _check_advisory(
    advisory: Advisory,
    *,
    result: DeviceResult,
    reference: ReferenceValues,
    table: str,
    log: CheckLog,
) -> None:
    """One advisory; nothing where it is about another product or stepping than the one that is stated."""
    product, cpuid = result.claims.get("product"), result.claims.get("cpuid")
    if product is not None and product not in advisory.products:
        return
    # A version 2 report states no stepping: then the advisory is taken to be about it.
    if advisory.cpuids and cpuid is not None and cpuid not in advisory.cpuids:
        return
    if advisory.about_snp:
        unmet, distrusted = checks.SNP_ADVISORY_UNMET, checks.SNP_PRODUCT_DISTRUSTED
        informs = checks.SNP_ADVISORY_NOT_ENFORCED
    else:
        unmet, distrusted = checks.NVIDIA_ADVISORY_UNMET, checks.NVIDIA_PRODUCT_DISTRUSTED
        informs = checks.NVIDIA_ADVISORY_NOT_ENFORCED
    origin = f"{advisory.id} in {table}"
    if advisory.distrust:
        trusted = result.identity is not None and str(result.identity) in reference.devices.trusted_chips
        log.require(
            distrusted if advisory.enforced else informs,
            ok=trusted,
            expected=f"another product, or a chip that is trusted in spite of it: {advisory.title}",
            actual=f"{product or 'a product that is not known'}, {result.identity or 'no proven identity'}",
            where=advisory.id,
            reference=origin,
        )
    shortfalls = list(_shortfalls(advisory, result.claims))
    if advisory.distrust and not shortfalls:
        return
    log.require(
        unmet if advisory.enforced else informs,
        ok=not shortfalls,
        expected="; ".join(each.expected for each in shortfalls) or advisory.title,
        actual="; ".join(each.actual for each in shortfalls) or "met",
        where=advisory.id,
        reference=origin,
    )


def _shortfalls(advisory: Advisory, claims: Mapping[str, Json]) -> Iterator[_Shortfall]:
    minima = sorted(advisory.minimum_tcb.items())
    for name in _TCBS if minima else ():
        tcb = claims.get(name)
        levels = tcb if isinstance(tcb, Mapping) else {}
        for component, minimum in minima:
            level = levels.get(component)
            if not isinstance(level, int) or level < minimum:
                shown = level if isinstance(level, int) else _NOT_STATED
                field = f"{name.upper()} {component}"
                yield _Shortfall(f"{field} at least {minimum}", f"{field} {shown}")
    if advisory.minimum_firmware is not None:
        yield from _below(
            claims.get("committed_firmware"),
            str(advisory.minimum_firmware),
            field="COMMITTED_VERSION",
            read=_decimal,
        )
    yield from _bits(claims, advisory)
    if advisory.mitigations:
        for name in _VECTORS:
            vector = _mask(claims.get(name))
            if vector is None or vector & advisory.mitigations != advisory.mitigations:
                shown = _NOT_STATED if vector is None else f"{vector:#x}"
                yield _Shortfall(f"{name.upper()} with {advisory.mitigations:#x}", f"{name.upper()} {shown}")
    if advisory.minimum_driver:
        yield from _driver(claims.get("driver_version"), advisory.minimum_driver)
    if advisory.minimum_vbios is not None:
        version = claims["vbios_version"] if "vbios_version" in claims else claims.get("bios_version")
        yield from _below(version, advisory.minimum_vbios, field="VBIOS", read=_hexadecimal)


def _bits(claims: Mapping[str, Json], advisory: Advisory) -> Iterator[_Shortfall]:
    for kind, field, claim, required, forbidden in (
        (PlatformInfo, "PLATFORM_INFO", "platform_info", advisory.platform_required, advisory.platform_forbidden),
        (GuestPolicy, "POLICY", "policy", advisory.policy_required, advisory.policy_forbidden),
    ):
        if not required and not forbidden:
            continue
        value = _mask(claims.get(claim))
        off = required if value is None else required & ~value
        on = forbidden if value is None else forbidden & value
        for mask, expected, actual in ((off, "on", "off"), (on, "off", "on")):
            for name in names_of(kind, mask):
                shown = _NOT_STATED if value is None else actual
                yield _Shortfall(f"{field}.{name} {expected}", f"{field}.{name} {shown}")


def _mask(claim: Json) -> int | None:
    return int(claim, 16) if isinstance(claim, str) else None


def _decimal(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else None


def _hexadecimal(text: str) -> tuple[int, ...] | None:
    try:
        return tuple(bytes.fromhex(text.replace(".", "")))
    except ValueError:
        return None


def _below(
    version: Json, minimum: str, *, field: str, read: Callable[[str], tuple[int, ...] | None]
) -> Iterator[_Shortfall]:
    found, least = read(version) if isinstance(version, str) else None, read(minimum)
    if found is None or least is None or found < least:
        shown = version if isinstance(version, str) else _NOT_STATED
        yield _Shortfall(f"{field} at least {minimum}", f"{field} {shown}")


def _driver(version: Json, minima: tuple[str, ...]) -> Iterator[_Shortfall]:
    """A driver is fixed from its own branch's minimum on, and in every branch above the highest that is named."""
    least = sorted(each for text in minima if (each := _decimal(text)) is not None)
    found = _decimal(version) if isinstance(version, str) else None
    if found is not None:
        own = [each for each in least if each[0] == found[0]]
        if found >= own[0] if own else found[0] > least[-1][0]:
            return
    shown = version if isinstance(version, str) else _NOT_STATED
    yield _Shortfall(f"driver at least {' or '.join(minima)}, by branch", f"driver {shown}")
