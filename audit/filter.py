"""What is asked of the log: a filter over the fields of its records."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from audit.errors import QueryError
from audit.records import MAX_INTEGER, Kind, Result
from keystead.binding import AssetRef, BindingError, check_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are asked for; every field that is not None narrows the answer.

    Attributes:
        asset, version: an asset, ``tenant/name``, and one version of it.
        job, tenant, actor, node, site, jurisdiction, lease: as in `audit.records.Record`; `actor` is the name.
        user: whom the job ran for, as its scheduler declared it.
        hardware: one hardware identity, ``kind:value``.
        policy_digest: lower-case hexadecimal.
        kind, result, reason: what happened, how it ended, and one of the codes.
        start_time, end_time: seconds since the Unix epoch, from (inclusive) and to (exclusive).
        alive_at: seconds since the Unix epoch: of each lease that was alive at this instant the grant or renewal
            that it was alive by. A lease is alive from its grant on, up to but not including the instant that its
            newest grant or renewal names, and no longer than to the record of its return, expiry or revocation.
    """

    asset: str | None = None
    version: int | None = None
    job: str | None = None
    tenant: str | None = None
    actor: str | None = None
    node: str | None = None
    hardware: str | None = None
    site: str | None = None
    jurisdiction: str | None = None
    policy_digest: str | None = None
    kind: Kind | None = None
    result: Result | None = None
    reason: str | None = None
    lease: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    user: str | None = None
    alive_at: int | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.asset is None:
            raise QueryError("filter: a version without its asset")
        if self.start_time is not None and self.end_time is not None and self.start_time > self.end_time:
            raise QueryError(f"filter: start time {self.start_time} is after end time {self.end_time}")
        for name in ("version", "start_time", "end_time", "alive_at"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_INTEGER:
                raise QueryError(f"filter: {name} {value} is not between 0 and {MAX_INTEGER}, so no record has it")

    def digest(self) -> str:
        """Sixteen hexadecimal digits that tie a cursor to its filter."""
        text = json.dumps({name: value for name, value in asdict(self).items() if value is not None}, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def parse_asset(text: str) -> tuple[str, int | None]:
    """Read ``TENANT/NAME`` or ``TENANT/NAME@VERSION`` as a filter's asset and version.

    Raises:
        QueryError: it is neither.
    """
    try:
        if "@" in text:
            ref = AssetRef.parse(text)
            return ref.asset, ref.version
        return check_id(text, "asset"), None
    except BindingError as error:
        raise QueryError(f"filter: {error}") from None
