"""What may be released, from first principles: a model that shares no code with what it is compared with.

The product joins the constraints of everything that data came from into one text. Here nothing is joined: a version
carries every demand that anybody ever made of it or of what it came from, each as it was said, and a release is
permitted if none of them speaks against it. Membership in groups of countries is written down here by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

MEMBERS: Mapping[str, frozenset[str]] = {
    "EU": frozenset({"FR", "DE"}),
    "EEA": frozenset({"FR", "DE"}),
    "GDPRADEQUACY": frozenset({"CH", "JP"}),
}
"""The members of each group, among the countries in which this world's sites stand."""

AREAS = ("*", "EU", "EEA", "GDPRADEQUACY", "FR", "DE", "CH", "JP", "US", "US-VA", "US-CA")
PURPOSES = ("inference", "evaluation", "fine-tuning")


@dataclass(frozen=True)
class Place:
    """A site: where it stands, and whose law reaches who runs it."""

    jurisdiction: str
    exposures: frozenset[str]


SITES: Mapping[str, Place] = {
    "fra-1": Place("FR", frozenset({"FR"})),
    "ber-1": Place("DE", frozenset({"DE", "US"})),
    "zrh-1": Place("CH", frozenset({"CH"})),
    "tyo-1": Place("JP", frozenset({"JP"})),
    "ash-1": Place("US-VA", frozenset({"US"})),
}


def lies_in(place: str, area: str) -> bool:
    """Whether a country, or a part of one, lies in an area."""
    country = place.split("-")[0]
    return area in ("*", country, place) or country in MEMBERS.get(area, ())


@dataclass(frozen=True)
class Demand:
    """One thing that one owner said once. What is None was not said.

    Attributes:
        allowed: in one of these areas, and
        forbidden: in none of these.
        exposure: nobody whose law reaches the site's operator may be here.
        purposes: for one of these.
        sites: at one of these.
        until: before this instant.
        opens: at most so many leases of the version, ever.
        key_seconds: at most so many seconds of keys held, over all nodes.
        tokens: at most so many tokens out of it.
        nodes: at most so many nodes with keys of the asset at once.
    """

    allowed: frozenset[str] | None = None
    forbidden: frozenset[str] = frozenset()
    exposure: frozenset[str] = frozenset()
    purposes: frozenset[str] | None = None
    sites: frozenset[str] | None = None
    until: int | None = None
    opens: int | None = None
    key_seconds: int | None = None
    tokens: int | None = None
    nodes: int | None = None

    def against(self, *, site: str, purposes: Iterable[str], now: int) -> set[str]:
        """What speaks against keys at a site, for these purposes, now."""
        found, place = set(), SITES[site]
        if self.allowed is not None and not any(lies_in(place.jurisdiction, area) for area in self.allowed):
            found.add("place not allowed")
        if any(lies_in(place.jurisdiction, area) for area in self.forbidden):
            found.add("place forbidden")
        if any(lies_in(law, area) for law in place.exposures for area in self.exposure):
            found.add("exposed")
        if self.purposes is not None and not set(purposes) <= self.purposes:
            found.add("purpose")
        if self.sites is not None and site not in self.sites:
            found.add("site")
        if self.until is not None and now >= self.until:
            found.add("retention")
        return found


@dataclass
class Version:
    """An asset version.

    Attributes:
        asset: its asset's name.
        number: which version.
        demands: everything that is demanded of it.
        parents: the versions that it came from, as ``NAME@NUMBER``.
        revoked: no key of it may be released.
    """

    asset: str
    number: int
    demands: list[Demand]
    parents: frozenset[str] = frozenset()
    revoked: bool = False

    @property
    def name(self) -> str:
        """``NAME@NUMBER``."""
        return f"{self.asset}@{self.number}"


@dataclass
class Job:
    """A job: what it asked for, what it was ever granted, and whether it runs."""

    uid: str
    versions: tuple[str, ...]
    purposes: tuple[str, ...]
    nodes: int
    starts: int
    ends: int
    standing: str = "open"
    attempt: int = 1
    granted: set[str] = field(default_factory=set)


@dataclass
class Held:
    """A lease."""

    lease_id: str
    job: str
    node: str
    versions: tuple[str, ...]
    granted_at: int
    expires_at: int
    renewals: int = 0
    ended_at: int | None = None
    tokens: dict[str, int] = field(default_factory=dict)

    def seconds(self, now: int) -> int:
        """How long its keys have been held by now, as far as anybody can tell who only knows when it ended."""
        end = now if self.ended_at is None else self.ended_at
        return max(0, min(end, self.expires_at) - self.granted_at)


@dataclass
class World:
    """Everything there is.

    Attributes:
        now: what the broker's clock says.
        latest: the latest that it ever said.
        at: the site of each node.
        installed: whether the node's hardware is in its place.
        own: what each asset demands by itself: of every version, those to come included.
        versions: every asset version, by name.
        jobs: every job, by its uid.
        leases: every lease, by its id.
        late: by version and demand, the seconds by which keys were granted beyond it before it was made.
    """

    now: int
    latest: int
    at: dict[str, str]
    installed: dict[str, bool]
    own: dict[str, list[Demand]] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    leases: dict[str, Held] = field(default_factory=dict)
    late: dict[tuple[str, Demand], int] = field(default_factory=dict)

    def versions_of(self, asset: str) -> list[Version]:
        """Every version of an asset."""
        return [version for version in self.versions.values() if version.asset == asset]

    def descendants(self, names: Iterable[str]) -> set[str]:
        """Every version that came, in however many steps, from one of these."""
        found: set[str] = set()
        reached = set(names)
        while reached:
            reached = {name for name, version in self.versions.items() if version.parents & reached} - found
            found |= reached
        return found

    def derive(self, asset: str, parents: Iterable[str], own: list[Demand] | None = None) -> Version:
        """A new version, of a new asset where `own` is given: what is demanded of its parents is demanded of it."""
        came_from = frozenset(parents)
        inherited = [demand for name in sorted(came_from) for demand in self.versions[name].demands]
        if own is not None:
            self.own[asset] = own
        version = Version(asset, len(self.versions_of(asset)) + 1, [*self.own[asset], *inherited], came_from)
        self.versions[version.name] = version
        return version

    def demand(self, names: Iterable[str], *demands: Demand) -> None:
        """Demand more of versions, and so of all that came from them."""
        wanted = set(names)
        for name in wanted | self.descendants(wanted):
            self.versions[name].demands.extend(demands)
            for demand in demands:
                if demand.key_seconds is not None:
                    self.late[name, demand] = max(0, self.promised(name) - demand.key_seconds)

    def live(self) -> list[Held]:
        """The leases whose keys may be used now."""
        return [lease for lease in self.leases.values() if lease.ended_at is None and self.now < lease.expires_at]

    def relax(self, name: str, demand: Demand, *, members: Iterable[str]) -> None:
        """It was agreed what is demanded of this very version in `members`, and of nothing that came from it before."""
        version, forgotten = self.versions[name], Demand()
        kept = []
        for old in version.demands:
            rest = replace(old, **{member: getattr(forgotten, member) for member in members})
            if (name, old) in self.late:
                self.late[name, rest] = self.late[name, old]
            kept.append(rest)
        version.demands = [*kept, replace(forgotten, **{member: getattr(demand, member) for member in members})]

    def read_clock(self, now: int) -> None:
        """What the broker's clock says; a lease that was once over stays over, though the clock be set back."""
        self.now, self.latest = now, max(self.latest, now)
        for lease in self.leases.values():
            if lease.ended_at is None and now >= lease.expires_at:
                lease.ended_at = lease.expires_at

    def end(self, leases: Iterable[Held]) -> None:
        """End leases."""
        for lease in leases:
            if lease.ended_at is None:
                lease.ended_at = self.now

    def opened(self, name: str) -> int:
        """How many leases of a version there ever were."""
        return sum(name in lease.versions for lease in self.leases.values())

    def tokens(self, name: str) -> int:
        """How many tokens were reported of a version."""
        return sum(lease.tokens.get(name, 0) for lease in self.leases.values())

    def seconds(self, name: str) -> int:
        """How many seconds keys of a version were held."""
        return sum(lease.seconds(self.now) for lease in self.leases.values() if name in lease.versions)

    def promised(self, name: str) -> int:
        """How many seconds they will have been held when the present leases run out."""
        ahead = (each.expires_at - self.now for each in self.live() if name in each.versions)
        return self.seconds(name) + sum(max(0, seconds) for seconds in ahead)

    def of_data(self, name: str, *, site: str, purposes: Iterable[str]) -> set[str]:
        """What speaks against a version's keys at a site now, whatever job asks."""
        version = self.versions[name]
        found = {"revoked"} if version.revoked else set()
        for demand in version.demands:
            found |= demand.against(site=site, purposes=purposes, now=self.now)
        return {f"{name}: {what}" for what in found}

    def against(
        self, job: Job, node: str, names: Iterable[str], *, ends: int, attempt: int, lease: str = ""
    ) -> set[str]:
        """What speaks against a lease of these versions for a job on a node, or its renewal if `lease` says which.

        Args:
            job: the job.
            node: the node.
            names: the versions.
            ends: when the grant ends that the node presents.
            attempt: which of the job's attempts it was for.
            lease: the lease to be renewed; empty for a new one.
        """
        found = set()
        if job.standing != "open":
            found.add("job not open")
        if attempt != job.attempt:
            found.add("grant of a former attempt")
        if not job.starts <= self.now < ends:
            found.add("outside the grant's time")
        if not self.installed[node]:
            found.add("node not installed")
        others = [each for each in self.live() if each.lease_id != lease]
        if len({each.node for each in others if each.job == job.uid} | {node}) > job.nodes:
            found.add("too many nodes for the job")
        for name in names:
            version = self.versions[name]
            found |= self.of_data(name, site=self.at[node], purposes=job.purposes)
            holders = {
                each.node for each in others for held in each.versions if self.versions[held].asset == version.asset
            } | {node}
            for demand in version.demands:
                if demand.nodes is not None and len(holders) > demand.nodes:
                    found.add(f"{name}: too many nodes")
                if demand.opens is not None and not lease and self.opened(name) >= demand.opens:
                    found.add(f"{name}: opened too often")
                if demand.tokens is not None and self.tokens(name) >= demand.tokens:
                    found.add(f"{name}: too many tokens")
                if demand.key_seconds is not None and self.seconds(name) >= demand.key_seconds:
                    found.add(f"{name}: held too long")
        return found

    def metered(self, names: Iterable[str]) -> bool:
        """Whether something is counted of which the model knows only a bound."""
        return any(
            demand.tokens is not None or demand.key_seconds is not None
            for name in names
            for demand in self.versions[name].demands
        )
