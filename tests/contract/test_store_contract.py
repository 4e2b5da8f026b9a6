"""The repositories, on every back end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import IntegrityError

from keybroker.errors import (
    AlreadyExistsError,
    IdentityEnrolledError,
    NonceSpentError,
    NotFoundError,
    RequestAnsweredError,
    RequestMismatchError,
    StateConflictError,
)
from keybroker.store import assets, documents, epochs, idempotency, jobs, leases, nodes, sites, wrapped_keys
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import read
from keybroker.store.rows import PAGE_LIMIT
from keybroker.store.schema import (
    LEASE,
    SPENT_NONCE,
    AssetKind,
    AssetState,
    JobState,
    LeaseState,
    NodeState,
    SiteState,
)
from keystead.binding import AssetRef, sha256

NOW = 1_800_000_000

SITE = sites.SiteRow(
    site_id="oslo-1",
    jurisdiction="NO",
    facility="Hall 1",
    operator="Nordlys",
    state=SiteState.ACTIVE,
    valid_until=NOW + 10_000,
    created_at=NOW,
)
NODE = nodes.NodeRow(
    node_id="node-1",
    site_id="oslo-1",
    state=NodeState.ACTIVE,
    created_at=NOW,
    devices=(
        nodes.DeviceRow(slot="cpu0", identity="amd-chip-id:01"),
        nodes.DeviceRow(slot="gpu0", identity="nvidia-gpu:02"),
    ),
)
ASSET = assets.AssetRow(
    asset="acme/model",
    tenant="acme",
    kind=AssetKind.MODEL,
    state=AssetState.ACTIVE,
    created_at=NOW,
    constraints='{"purposes":["evaluation"],"residency":{"allowed":[["EEA"]],"forbidden":["LI"]}}',
)
VERSION = assets.AssetVersionRow(
    asset="acme/model",
    version=1,
    key_id="k1",
    wrapped_key=b"\x00wrapped\xff",
    manifest_digest=sha256(b"manifest"),
    manifest='{"files":[]}',
    state=AssetState.ACTIVE,
    created_at=NOW,
    constraints='{"node_ceiling":2,"purposes":["evaluation"]}',
)
JOB = jobs.JobRow(
    grant_id="grant-1",
    tenant="acme",
    job_uid="slurm:1",
    scheduler="slurm-a",
    grant=b"grant\x00",
    signature=bytes(64),
    signing_key_id="k",
    state=JobState.OPEN,
    not_before=NOW,
    not_after=NOW + 3600,
    node_ceiling=2,
    created_at=NOW,
)
LEASE_ROW = leases.LeaseRow(
    lease_id="lease-1",
    nonce=bytes(56),
    node_id="node-1",
    grant_id="grant-1",
    job_uid="slurm:1",
    tenant="acme",
    transcript=sha256(b"transcript"),
    hpke_key=bytes(1216),
    signing_key=bytes(32),
    assets=("acme/model@1",),
    policy_digest=sha256(b"policy"),
    state=LeaseState.LIVE,
    granted_at=NOW,
    expires_at=NOW + 600,
    ended_at=None,
    renewed_count=0,
    next_nonce=b"\x01" * 56,
    entry_hash=sha256(b"entry"),
    attestation_result="eyJ",
    obligations="[]",
)
RENEWAL = leases.RenewalRow(
    nonce=b"\x01" * 56,
    node_id="node-1",
    lease_id="lease-1",
    sequence=1,
    transcript=sha256(b"renewal"),
    hpke_key=bytes(1216),
    signing_key=bytes(32),
    policy_digest=sha256(b"policy"),
    renewed_at=NOW + 300,
    expires_at=NOW + 900,
    next_nonce=b"\x02" * 56,
    entry_hash=sha256(b"entry 2"),
    attestation_result="eyJ2",
    obligations="[]",
)


@pytest.fixture
def connection(shared_engine: Engine) -> Iterator[Connection]:
    """A transaction in which a site, a node, an asset and a job exist; it is rolled back."""
    with shared_engine.connect() as opened:
        populate(opened)
        yield opened


def populate(connection: Connection) -> None:
    sites.insert(connection, SITE)
    nodes.insert(connection, NODE)
    assets.insert(connection, ASSET)
    jobs.insert(connection, JOB)


def second_node(connection: Connection) -> nodes.NodeRow:
    row = replace(NODE, node_id="node-2", devices=(nodes.DeviceRow(slot="cpu0", identity="amd-chip-id:99"),))
    nodes.insert(connection, row)
    return row


class TestSites:
    def test_what_was_written_is_read(self, connection: Connection) -> None:
        assert sites.get(connection, "oslo-1") == SITE

    def test_a_name_is_given_once_and_the_transaction_goes_on(self, connection: Connection) -> None:
        with pytest.raises(AlreadyExistsError, match="site 'oslo-1'") as caught:
            sites.insert(connection, replace(SITE, operator="other"))
        assert (caught.value.what, caught.value.name) == ("site", "oslo-1")
        assert sites.get(connection, "oslo-1") == SITE

    def test_changes(self, connection: Connection) -> None:
        assert sites.set_state(connection, "oslo-1", SiteState.SUSPENDED).state is SiteState.SUSPENDED
        changed = replace(SITE, serial=2, valid_from=3, valid_until=7, exposures=("LU", "NO"), certifications=("c5",))
        sites.replace(connection, changed)
        assert sites.get(connection, "oslo-1") == sites.lock(connection, "oslo-1") == changed
        for change in (
            lambda: sites.set_state(connection, "none", SiteState.RETIRED),
            lambda: sites.replace(connection, replace(SITE, site_id="none")),
            lambda: sites.lock(connection, "none"),
            lambda: sites.get(connection, "none"),
        ):
            with pytest.raises(NotFoundError, match="site 'none'"):
                change()

    def test_pages_cover_everything_once(self, connection: Connection) -> None:
        for number in range(7):
            sites.insert(connection, replace(SITE, site_id=f"s{number}"))
        seen: list[str] = []
        while page := sites.page(connection, after=seen[-1] if seen else "", limit=3):
            seen += [row.site_id for row in page]
        assert seen == ["oslo-1", *(f"s{number}" for number in range(7))]

    @pytest.mark.parametrize("limit", [0, -1, PAGE_LIMIT + 1])
    def test_a_page_has_bounds(self, connection: Connection, limit: int) -> None:
        with pytest.raises(ValueError, match="page"):
            sites.page(connection, limit=limit)

    def test_the_database_itself_refuses_an_unknown_state(self, connection: Connection) -> None:
        with pytest.raises(IntegrityError, match="ck_site_state"):
            connection.execute(text("UPDATE site SET state = 'open'"))


class TestNodes:
    def test_what_was_written_is_read(self, connection: Connection) -> None:
        assert nodes.get(connection, "node-1") == NODE
        for share in (False, True):
            assert nodes.get_with_site(connection, "node-1", share=share) == (NODE, SITE)
            with pytest.raises(NotFoundError, match="node 'none'"):
                nodes.get_with_site(connection, "none", share=share)
        assert nodes.find_by_identity(connection, "nvidia-gpu:02") == [NODE]
        assert nodes.find_by_identity(connection, "nvidia-gpu:03") == []
        assert nodes.enrolments(connection, ["amd-chip-id:01", "x:1"]) == {
            "amd-chip-id:01": (nodes.Enrolment(node_id="node-1", partition="", slot="cpu0"),)
        }

    def test_an_identity_is_enrolled_once_even_if_its_node_is_retired(self, connection: Connection) -> None:
        nodes.set_state(connection, "node-1", NodeState.RETIRED)
        clone = replace(NODE, node_id="clone", devices=(nodes.DeviceRow(slot="gpu3", identity="nvidia-gpu:02"),))
        with pytest.raises(IdentityEnrolledError, match="nvidia-gpu:02") as caught:
            nodes.insert(connection, clone)
        assert caught.value.node_id == "node-1"
        assert "node-1" not in str(caught.value)

    def test_a_slot_is_named_once(self, connection: Connection) -> None:
        doubled = tuple(nodes.DeviceRow(slot="gpu0", identity=f"nvidia-gpu:a{number}") for number in range(2))
        with pytest.raises(AlreadyExistsError, match="slot"):
            nodes.insert(connection, replace(NODE, node_id="doubled", devices=doubled))

    def test_its_site_must_exist(self, connection: Connection) -> None:
        with pytest.raises(NotFoundError, match="site 'none'"):
            nodes.insert(connection, replace(NODE, node_id="lost", site_id="none", devices=()))

    def test_its_name_is_given_once(self, connection: Connection) -> None:
        with pytest.raises(AlreadyExistsError, match="node 'node-1'"):
            nodes.insert(connection, replace(NODE, devices=()))

    def test_state_and_pages(self, connection: Connection) -> None:
        second = second_node(connection)
        assert nodes.page(connection) == [NODE, second]
        assert nodes.page(connection, after="node-1", limit=1) == [second]
        assert nodes.page(connection, site_id="none") == []
        quarantined = nodes.set_state(connection, "node-2", NodeState.QUARANTINED)
        assert quarantined == replace(second, state=NodeState.QUARANTINED)
        with pytest.raises(NotFoundError, match="node"):
            nodes.set_state(connection, "none", NodeState.RETIRED)


class TestAssets:
    def test_what_was_written_is_read(self, connection: Connection) -> None:
        assert assets.get(connection, "acme/model") == ASSET
        assert assets.get(connection, "acme/model", lock=True) == ASSET
        limited = replace(ASSET, asset="acme/limited", kind=AssetKind.EVALUATION_SET, constraints='{"users":["ø"]}')
        assets.insert(connection, limited)
        assert assets.get(connection, "acme/limited") == limited
        with pytest.raises(AlreadyExistsError, match="acme/model"):
            assets.insert(connection, ASSET)

    def test_pages_keep_tenants_apart(self, connection: Connection) -> None:
        other = replace(ASSET, asset="zeta/model", tenant="zeta")
        assets.insert(connection, other)
        assert assets.page(connection, tenant="acme") == [ASSET]
        assert assets.page(connection, tenant="zeta") == [other]
        assert assets.page(connection, tenant="acme", after="acme/model") == []

    def test_versions(self, connection: Connection) -> None:
        second = replace(VERSION, version=2, manifest=None)
        for row in (second, VERSION):
            assets.insert_version(connection, row)
        assert assets.get_version(connection, AssetRef("acme/model", 2)) == second
        assert assets.versions(connection, "acme/model") == [VERSION, second]
        wanted = [AssetRef("acme/model", 1), AssetRef("acme/model", 3), AssetRef("acme/other", 1)]
        assert assets.find_versions(connection, wanted) == {AssetRef("acme/model", 1): VERSION}
        assert assets.find_versions(connection, []) == {}
        revoked = assets.set_version_state(connection, second.ref, AssetState.REVOKED)
        assert revoked == replace(second, state=AssetState.REVOKED)
        assert assets.get_version(connection, VERSION.ref) == VERSION
        with pytest.raises(AlreadyExistsError, match="acme/model@1"):
            assets.insert_version(connection, VERSION)
        with pytest.raises(NotFoundError, match="acme/model@9"):
            assets.get_version(connection, AssetRef("acme/model", 9))

    def test_a_version_needs_its_asset(self, connection: Connection) -> None:
        with pytest.raises(NotFoundError, match="asset 'acme/none'"):
            assets.insert_version(connection, replace(VERSION, asset="acme/none"))

    def test_many_are_found_at_once(self, connection: Connection) -> None:
        assert assets.find_all_named(connection, ["acme/model", "acme/none"]) == {"acme/model": ASSET}
        assert assets.find_all_named(connection, []) == {}

    @pytest.mark.parametrize("share", [False, True])
    def test_versions_are_found_with_their_assets(self, connection: Connection, share: bool) -> None:
        other, second = replace(ASSET, asset="acme/other"), replace(VERSION, version=2, created_at=NOW + 5)
        assets.insert(connection, other)
        others = replace(VERSION, asset="acme/other", state=AssetState.REVOKED)
        for row in (VERSION, second, others):
            assets.insert_version(connection, row)
        wanted = [second.ref, others.ref, VERSION.ref, AssetRef("acme/model", 3), AssetRef("acme/none", 1)]
        assert assets.find_with_versions(connection, wanted, share=share) == {
            VERSION.ref: (ASSET, VERSION),
            second.ref: (ASSET, second),
            others.ref: (other, others),
        }
        assert assets.find_with_versions(connection, [], share=share) == {}

    def test_revocation(self, connection: Connection) -> None:
        assert assets.set_state(connection, "acme/model", AssetState.REVOKED).state is AssetState.REVOKED
        with pytest.raises(NotFoundError, match="asset"):
            assets.set_state(connection, "acme/none", AssetState.REVOKED)


class TestJobs:
    def test_what_was_written_is_read(self, connection: Connection) -> None:
        assert jobs.get(connection, "grant-1") == JOB
        assert jobs.get(connection, "grant-1", lock=True) == JOB
        assert jobs.find_by_uid(connection, tenant="acme", job_uid="slurm:1", lock=True) == JOB
        assert jobs.find_by_uid(connection, tenant="zeta", job_uid="slurm:1") is None

    @pytest.mark.parametrize("change", [{"grant_id": "grant-2"}, {"job_uid": "slurm:2"}])
    def test_grants_and_jobs_are_unique(self, connection: Connection, change: dict[str, str]) -> None:
        with pytest.raises(AlreadyExistsError, match="job"):
            jobs.insert(connection, replace(JOB, **change))  # type: ignore[arg-type]

    def test_two_tenants_may_use_one_job_id(self, connection: Connection) -> None:
        jobs.insert(connection, replace(JOB, grant_id="grant-2", tenant="zeta"))

    def test_closing_is_safe_to_repeat(self, connection: Connection) -> None:
        closed = replace(JOB, state=JobState.CLOSED)
        assert jobs.close(connection, "grant-1") == closed
        assert jobs.close(connection, "grant-1") == closed
        with pytest.raises(NotFoundError, match="job"):
            jobs.close(connection, "none")


class TestLeases:
    def test_what_was_written_is_read(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        assert leases.get(connection, "lease-1") == LEASE_ROW
        assert leases.get(connection, "lease-1", lock=True) == LEASE_ROW
        assert leases.find_by_nonce(connection, nonce=bytes(56), node_id="node-1") == LEASE_ROW
        assert leases.find_by_nonce(connection, nonce=bytes(56), node_id="node-2") is None
        spent = leases.find_spent(connection, nonce=bytes(56), node_id="node-1")
        assert spent is not None
        assert (spent.lease_id, spent.transcript, spent.spent_at) == ("lease-1", LEASE_ROW.transcript, NOW)

    def test_a_nonce_serves_one_node_once(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        with pytest.raises(NonceSpentError) as caught:
            leases.insert(connection, replace(LEASE_ROW, lease_id="lease-2", transcript=sha256(b"other")))
        assert (caught.value.lease_id, caught.value.transcript) == ("lease-1", LEASE_ROW.transcript)
        second_node(connection)
        leases.insert(connection, replace(LEASE_ROW, lease_id="lease-2", node_id="node-2"))

    def test_an_ended_lease_does_not_free_its_nonce(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        leases.end(connection, "lease-1", state=LeaseState.RETURNED, now=NOW + 1)
        with pytest.raises(NonceSpentError):
            leases.insert(connection, replace(LEASE_ROW, lease_id="lease-2"))

    def test_the_next_nonce_serves_a_renewal_or_a_lease_not_both(self, engine: Engine) -> None:
        with engine.begin() as connection:
            populate(connection)
            leases.insert(connection, LEASE_ROW)
        another = replace(LEASE_ROW, lease_id="lease-2", nonce=RENEWAL.nonce)
        with engine.connect() as connection:
            leases.renew(connection, RENEWAL)
            with pytest.raises(NonceSpentError):
                leases.insert(connection, another)
        with engine.connect() as connection:
            leases.insert(connection, another)
            with pytest.raises(NonceSpentError):
                leases.renew(connection, RENEWAL)

    def test_a_taken_id_and_unknown_references(self, engine: Engine) -> None:
        with engine.begin() as connection:
            populate(connection)
            leases.insert(connection, LEASE_ROW)
        with engine.connect() as connection, pytest.raises(AlreadyExistsError, match="lease 'lease-1'"):
            leases.insert(connection, replace(LEASE_ROW, nonce=b"\x09" * 56))
        for change in ({"node_id": "none"}, {"grant_id": "none"}):
            with engine.connect() as connection, pytest.raises(NotFoundError, match="none"):
                leases.insert(connection, replace(LEASE_ROW, lease_id="l", nonce=b"x", **change))  # type: ignore[arg-type]

    def test_a_renewal_moves_the_end_and_nothing_else(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        renewed = leases.renew(connection, RENEWAL)
        assert renewed == replace(LEASE_ROW, expires_at=NOW + 900, renewed_count=1)
        assert leases.find_renewal(connection, nonce=RENEWAL.nonce, node_id="node-1") == RENEWAL
        assert leases.find_renewal(connection, nonce=bytes(56), node_id="node-1") is None
        again = replace(RENEWAL, sequence=2, nonce=b"\x02" * 56)
        leases.renew(connection, again)
        assert leases.renewals(connection, "lease-1") == [RENEWAL, again]

    @pytest.mark.parametrize("change", [{"sequence": 2}, {"node_id": "node-2"}])
    def test_a_renewal_of_what_is_not_so_any_more(self, connection: Connection, change: dict[str, object]) -> None:
        second_node(connection)
        leases.insert(connection, LEASE_ROW)
        with pytest.raises(StateConflictError, match="lease-1"):
            leases.renew(connection, replace(RENEWAL, **change))  # type: ignore[arg-type]

    def test_only_a_live_lease_is_renewed_or_ended(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        ended = leases.end(connection, "lease-1", state=LeaseState.REVOKED, now=NOW + 5)
        assert (ended.state, ended.ended_at) == (LeaseState.REVOKED, NOW + 5)
        with pytest.raises(StateConflictError, match="revoked"):
            leases.renew(connection, RENEWAL)
        with pytest.raises(StateConflictError, match="revoked"):
            leases.end(connection, "lease-1", state=LeaseState.RETURNED, now=NOW + 6)
        with pytest.raises(NotFoundError, match="lease"):
            leases.end(connection, "none", state=LeaseState.RETURNED, now=NOW)

    def test_a_lease_does_not_end_by_living(self, connection: Connection) -> None:
        leases.insert(connection, LEASE_ROW)
        with pytest.raises(ValueError, match="ends"):
            leases.end(connection, "lease-1", state=LeaseState.LIVE, now=NOW)

    def test_live_is_what_has_neither_ended_nor_run_out(self, connection: Connection) -> None:
        second_node(connection)
        other = replace(LEASE_ROW, lease_id="lease-2", node_id="node-2", expires_at=NOW + 100)
        twice = replace(LEASE_ROW, lease_id="lease-3", nonce=b"\x07" * 56)
        for row in (LEASE_ROW, other, twice):
            leases.insert(connection, row)
        assert leases.live_nodes(connection, "grant-1", now=NOW + 99) == ("node-1", "node-2")
        assert leases.count_live(connection, "grant-1", now=NOW + 99) == 3
        assert leases.live_nodes(connection, "grant-1", now=NOW + 100) == ("node-1",)
        assert leases.live(connection, "grant-1", now=NOW + 100) == [LEASE_ROW, twice]
        assert leases.live_of_node(connection, "node-2", now=NOW) == [other]
        assert leases.live_of_tenant(connection, "acme", now=NOW + 100) == [LEASE_ROW, twice]
        assert leases.live_of_tenant(connection, "zeta", now=NOW) == []
        assert leases.live_nodes(connection, "none", now=NOW) == ()

    def test_expiry_and_revocation_of_many(self, connection: Connection) -> None:
        rows = [
            replace(LEASE_ROW, lease_id=f"lease-{number}", nonce=bytes([number]) * 56, expires_at=NOW + number)
            for number in range(6)
        ]
        for row in rows:
            leases.insert(connection, row)
        first = leases.expire_due(connection, now=NOW + 3, limit=2)
        assert first == [replace(row, state=LeaseState.EXPIRED, ended_at=NOW + 3) for row in rows[:2]]
        assert [row.lease_id for row in leases.expire_due(connection, now=NOW + 3)] == ["lease-2", "lease-3"]
        assert leases.expire_due(connection, now=NOW + 3) == []
        which = leases.Holding(job="grant-1")
        assert leases.count_held(connection, which) == 2
        revoked = leases.end_some(connection, which, state=LeaseState.REVOKED, now=NOW + 4, limit=1)
        revoked += leases.end_some(connection, which, state=LeaseState.REVOKED, now=NOW + 4, limit=9)
        assert revoked == [replace(row, state=LeaseState.REVOKED, ended_at=NOW + 4) for row in rows[4:]]
        assert leases.end_some(connection, which, state=LeaseState.REVOKED, now=NOW + 4, limit=9) == []

    def test_the_ceiling_holds_between_replicas(self, engine: Engine, open_replica: Callable[[], Engine]) -> None:
        """Counting under the job's lock: two replicas cannot both take the last place."""
        with engine.begin() as connection:
            populate(connection)
            for number in range(10):
                device = nodes.DeviceRow(slot="cpu0", identity=f"amd-chip-id:b{number}")
                nodes.insert(connection, replace(NODE, node_id=f"n{number}", devices=(device,)))

        def acquire(number: int) -> Callable[[Connection], bool]:
            def unit(connection: Connection) -> bool:
                job = jobs.get(connection, "grant-1", lock=True)
                if len(leases.live_nodes(connection, "grant-1", now=NOW)) >= job.node_ceiling:
                    return False
                leases.insert(connection, replace(LEASE_ROW, lease_id=f"l{number}", node_id=f"n{number}"))
                return True

            return unit

        with (
            GroupCommitter(engine) as first,
            GroupCommitter(open_replica()) as second,
            ThreadPoolExecutor(10) as pool,
        ):
            granted = list(
                pool.map(lambda n: (first, second)[n % 2].submit(acquire(n), 30, order="grant-1"), range(10))
            )
        assert sum(granted) == JOB.node_ceiling
        with read(engine) as connection:
            assert leases.count_live(connection, "grant-1", now=NOW) == JOB.node_ceiling

    def test_of_many_attempts_on_one_nonce_one_wins(self, engine: Engine, open_replica: Callable[[], Engine]) -> None:
        with engine.begin() as connection:
            populate(connection)
        barrier = threading.Barrier(8)

        def attempt(number: int) -> str:
            barrier.wait()
            row = replace(LEASE_ROW, lease_id=f"l{number}", transcript=sha256(bytes([number])))
            try:
                (first, second)[number % 2].submit(lambda connection: leases.insert(connection, row), 30)
            except NonceSpentError as error:
                return error.lease_id
            return row.lease_id

        with GroupCommitter(engine) as first, GroupCommitter(open_replica()) as second, ThreadPoolExecutor(8) as pool:
            winners = set(pool.map(attempt, range(8)))
        assert len(winners) == 1
        with read(engine) as connection:
            assert connection.execute(select(func.count()).select_from(LEASE)).scalar_one() == 1
            assert connection.execute(select(func.count()).select_from(SPENT_NONCE)).scalar_one() == 1


class TestDocuments:
    def test_stored_once_and_found_by_digest(self, connection: Connection) -> None:
        digest = documents.put(connection, b"input\x00", now=NOW)
        assert digest == sha256(b"input\x00") == documents.put(connection, b"input\x00", now=NOW + 1)
        assert documents.get(connection, digest) == b"input\x00"
        with pytest.raises(NotFoundError, match="document"):
            documents.get(connection, bytes(32))

    def test_a_decisions_inputs_are_found_from_its_digest(self, connection: Connection) -> None:
        digest = documents.put_decision(connection, appraisal=b"a", release=[b"r1", b"r2"], now=NOW)
        index = json.loads(documents.get(connection, digest))
        assert [documents.get(connection, bytes.fromhex(name)) for name in index["release"]] == [b"r1", b"r2"]
        assert documents.get(connection, bytes.fromhex(index["appraisal"])) == b"a"
        bare = documents.put_decision(connection, appraisal=b"", release=[b"r1"], now=NOW)
        assert json.loads(documents.get(connection, bare))["appraisal"] is None


ARGUMENTS = {"principal": "p", "request_id": "r", "method": "m", "request_digest": sha256(b"request")}


class TestIdempotency:
    def test_the_first_answer_stands(self, connection: Connection) -> None:
        assert idempotency.find(connection, **ARGUMENTS) is None
        idempotency.record(connection, **ARGUMENTS, response=b"answer", now=NOW)
        assert idempotency.find(connection, **ARGUMENTS) == b"answer"
        with pytest.raises(RequestAnsweredError) as caught:
            idempotency.record(connection, **ARGUMENTS, response=b"another", now=NOW)
        assert caught.value.response == b"answer"

    @pytest.mark.parametrize("change", [{"method": "x"}, {"request_digest": bytes(32)}])
    def test_an_id_is_for_one_request(self, connection: Connection, change: dict[str, object]) -> None:
        idempotency.record(connection, **ARGUMENTS, response=b"answer", now=NOW)
        other = ARGUMENTS | change
        with pytest.raises(RequestMismatchError):
            idempotency.find(connection, **other)
        with pytest.raises(RequestMismatchError):
            idempotency.record(connection, **other, response=b"answer", now=NOW)

    def test_another_principals_id_is_another(self, connection: Connection) -> None:
        idempotency.record(connection, **ARGUMENTS, response=b"answer", now=NOW)
        assert idempotency.find(connection, **(ARGUMENTS | {"principal": "q"})) is None

    def test_forgetting(self, connection: Connection) -> None:
        idempotency.record(connection, **ARGUMENTS, response=b"answer", now=NOW)
        assert idempotency.forget_before(connection, NOW) == 0
        assert idempotency.forget_before(connection, NOW + 1) == 1
        assert idempotency.find(connection, **ARGUMENTS) is None


class TestWrappedKeys:
    def test_the_first_key_of_an_epoch_stands(self, connection: Connection) -> None:
        assert epochs.find(connection, 7) is None
        assert epochs.insert_first(connection, epoch=7, wrapped=b"a", now=NOW) == b"a"
        assert epochs.insert_first(connection, epoch=7, wrapped=b"b", now=NOW) == b"a"
        assert epochs.find(connection, 7) == b"a"
        assert epochs.delete_before(connection, 7) == 0
        assert epochs.delete_before(connection, 8) == 1

    def test_tenant_keys_have_generations(self, connection: Connection) -> None:
        first = wrapped_keys.TenantKeyRow(tenant="acme", generation=1, wrapped=b"a", created_at=NOW)
        assert wrapped_keys.newest_tenant_key(connection, "acme") is None
        assert wrapped_keys.insert_tenant_key(connection, first) == first
        assert wrapped_keys.insert_tenant_key(connection, replace(first, wrapped=b"b")) == first
        second = wrapped_keys.insert_tenant_key(connection, replace(first, generation=2, wrapped=b"c"))
        assert wrapped_keys.newest_tenant_key(connection, "acme") == second
        assert wrapped_keys.get_tenant_key(connection, "acme", 1) == first
        with pytest.raises(NotFoundError, match="acme/3"):
            wrapped_keys.get_tenant_key(connection, "acme", 3)

    def test_the_first_broker_key_of_a_name_stands(self, connection: Connection) -> None:
        assert wrapped_keys.find_broker_key(connection, "hpke") is None
        assert wrapped_keys.insert_broker_key(connection, name="hpke", wrapped=b"a", now=NOW) == b"a"
        assert wrapped_keys.insert_broker_key(connection, name="hpke", wrapped=b"b", now=NOW) == b"a"
        assert wrapped_keys.find_broker_key(connection, "hpke") == b"a"
