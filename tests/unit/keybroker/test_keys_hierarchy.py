"""Root → tenant keys → data keys, and the epoch keys with the nonces that they make."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, delete, func, select, update

from keybroker import challenge
from keybroker.errors import ChallengeExpiredError, ChallengeInvalidError, KeyUnwrapError
from keybroker.keys.epochs import EpochKeys
from keybroker.keys.hierarchy import KeyHierarchy, load_or_create_hpke_key
from keybroker.keys.root import FileRootKey
from keybroker.keys.wrap import unwrap, wrap, wrapping_key_id
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine, read
from keybroker.store.migrate import migrate
from keybroker.store.schema import EPOCH_KEY, TENANT_KEY
from keystead.binding import AssetRef, challenge_mac_input, grant_digest

NOW = 1_800_000_000
REF = AssetRef("acme/model", 1)
DATA_KEY = bytes(range(32))
GRANT = grant_digest(b"grant")


class CountingRoot(FileRootKey):
    """A root that counts how often it is asked."""

    __slots__ = ("asked",)

    def __init__(self, key: bytes = bytes(32)) -> None:
        super().__init__(key)
        self.asked = 0

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        self.asked += 1
        return super().unwrap(wrapped, context)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def committer(engine: Engine) -> Iterator[GroupCommitter]:
    with GroupCommitter(engine) as writer:
        yield writer


@pytest.fixture
def root() -> CountingRoot:
    return CountingRoot()


class TestWrap:
    def test_the_format_is_fixed(self) -> None:
        """A key that was wrapped by this release must open in every later one."""
        wrapped = bytes.fromhex(
            "00176b657973746561642f76312f777261707065642d6b6579000300000001610000000c00000000000000000000000000000013"
        )
        associated = bytes.fromhex("00176b657973746561642f76312f777261707065642d6b6579000200000001610000000163")
        sealed = AESGCM(bytes(32)).encrypt(bytes(12), b"key", associated)
        assert unwrap(wrapped + sealed, key=bytes(32), key_id="a", context=b"c") == b"key"

    def test_a_wrapping_key_has_32_bytes(self) -> None:
        with pytest.raises(ValueError, match="32"):
            wrap(b"", key=bytes(16), key_id="a", context=b"")


class TestDataKeys:
    def wrap(self, connection: Connection, hierarchy: KeyHierarchy, tenant: str = "acme") -> bytes:
        return hierarchy.wrap_data_key(connection, DATA_KEY, tenant=tenant, ref=REF, key_id="k1", now=NOW)

    def test_a_data_key_comes_back(self, engine: Engine, root: CountingRoot) -> None:
        with engine.begin() as connection:
            wrapped = self.wrap(connection, KeyHierarchy(root))
        assert DATA_KEY not in wrapped
        with read(engine) as connection:
            opened = KeyHierarchy(root).unwrap_data_key(connection, wrapped, tenant="acme", ref=REF, key_id="k1")
        assert opened == DATA_KEY

    @pytest.mark.parametrize(
        "change",
        [
            {"tenant": "zeta"},
            {"tenant": "nobody"},
            {"ref": AssetRef("acme/model", 2)},
            {"ref": AssetRef("acme/other", 1)},
            {"key_id": "k2"},
        ],
    )
    @pytest.mark.parametrize("warm", [False, True])
    def test_it_stands_in_for_no_other(
        self, engine: Engine, root: CountingRoot, change: dict[str, Any], warm: bool
    ) -> None:
        hierarchy = KeyHierarchy(root)
        own: dict[str, Any] = {"tenant": "acme", "ref": REF, "key_id": "k1"}
        with engine.connect() as connection:
            wrapped = self.wrap(connection, hierarchy)
            self.wrap(connection, hierarchy, tenant="zeta")
            if warm:
                hierarchy.unwrap_data_key(connection, wrapped, **own)
            with pytest.raises(KeyUnwrapError):
                hierarchy.unwrap_data_key(connection, wrapped, **(own | change))

    def test_the_root_is_not_asked_for_each_lease(self, engine: Engine, root: CountingRoot) -> None:
        hierarchy = KeyHierarchy(root, cached_tenants=1)
        with engine.connect() as connection:
            wrapped = {tenant: self.wrap(connection, hierarchy, tenant) for tenant in ("acme", "zeta")}
            root.asked = 0

            def open_one(tenant: str) -> bytes:
                return hierarchy.unwrap_data_key(connection, wrapped[tenant], tenant=tenant, ref=REF, key_id="k1")

            for _ in range(5):
                assert open_one("acme") == DATA_KEY
            assert root.asked == 1
            open_one("zeta")
            open_one("acme")
            assert root.asked == 3
            hierarchy.forget()
            open_one("acme")
            assert root.asked == 4

    def test_a_tenant_key_whose_insertion_was_rolled_back_wraps_nothing_later(
        self, engine: Engine, root: CountingRoot
    ) -> None:
        hierarchy = KeyHierarchy(root)
        with engine.connect() as connection:
            lost = self.wrap(connection, hierarchy)
            hierarchy.unwrap_data_key(connection, lost, tenant="acme", ref=REF, key_id="k1")
        with engine.begin() as connection:
            wrapped = self.wrap(connection, hierarchy)
        with read(engine) as connection:
            fresh = KeyHierarchy(root)
            for user in (hierarchy, fresh):
                assert user.unwrap_data_key(connection, wrapped, tenant="acme", ref=REF, key_id="k1") == DATA_KEY
            with pytest.raises(KeyUnwrapError, match="another key of generation 1"):
                fresh.unwrap_data_key(connection, lost, tenant="acme", ref=REF, key_id="k1")

    def test_shredding_a_tenants_key_shreds_what_it_wraps(self, engine: Engine, root: CountingRoot) -> None:
        with engine.begin() as connection:
            wrapped = self.wrap(connection, KeyHierarchy(root))
            connection.execute(delete(TENANT_KEY))
        with read(engine) as connection, pytest.raises(KeyUnwrapError, match="is gone"):
            KeyHierarchy(root).unwrap_data_key(connection, wrapped, tenant="acme", ref=REF, key_id="k1")

    def test_a_tenant_key_moved_to_another_tenant_does_not_open(self, engine: Engine, root: CountingRoot) -> None:
        with engine.begin() as connection:
            wrapped = self.wrap(connection, KeyHierarchy(root))
            connection.execute(update(TENANT_KEY).values(tenant="zeta"))
        with read(engine) as connection, pytest.raises(KeyUnwrapError):
            KeyHierarchy(root).unwrap_data_key(connection, wrapped, tenant="zeta", ref=REF, key_id="k1")

    def test_under_another_root_nothing_opens(self, engine: Engine, root: CountingRoot) -> None:
        with engine.begin() as connection:
            wrapped = self.wrap(connection, KeyHierarchy(root))
        other = KeyHierarchy(FileRootKey(b"\x01" * 32))
        with read(engine) as connection, pytest.raises(KeyUnwrapError, match="root"):
            other.unwrap_data_key(connection, wrapped, tenant="acme", ref=REF, key_id="k1")

    def test_a_key_wrapped_by_something_else_is_refused(self, engine: Engine, root: CountingRoot) -> None:
        with read(engine) as connection:
            for name in ("root.abc", "tenant", "tenant:x:1", "tenant:99999999999:1"):
                forged = wrap(DATA_KEY, key=bytes(32), key_id=name, context=b"")
                assert wrapping_key_id(forged) == name
                with pytest.raises(KeyUnwrapError, match="no tenant's key"):
                    KeyHierarchy(root).unwrap_data_key(connection, forged, tenant="acme", ref=REF, key_id="k1")

    def test_a_long_tenant_name_is_as_good_as_a_short_one(self, engine: Engine, root: CountingRoot) -> None:
        hierarchy, tenant = KeyHierarchy(root), "t" * 255
        with engine.begin() as connection:
            wrapped = self.wrap(connection, hierarchy, tenant)
            assert hierarchy.unwrap_data_key(connection, wrapped, tenant=tenant, ref=REF, key_id="k1") == DATA_KEY

    def test_every_replica_has_the_same_hpke_key(self, engine: Engine, root: CountingRoot) -> None:
        with engine.begin() as connection:
            first = load_or_create_hpke_key(connection, root, now=NOW)
        with engine.begin() as connection:
            second = load_or_create_hpke_key(connection, root, now=NOW + 1)
        assert first.to_bytes() == second.to_bytes()


class TestEpochKeys:
    @pytest.fixture
    def make(self, engine: Engine, committer: GroupCommitter, root: CountingRoot) -> Callable[[], EpochKeys]:
        return lambda: EpochKeys(engine, committer, root, epoch_seconds=100, lifetime_seconds=250)

    def test_replicas_share_one_key_per_epoch(self, make: Callable[[], EpochKeys]) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda keys: keys.current(NOW), [make() for _ in range(8)]))
        assert len(found) == 1
        (current,) = found
        assert current.epoch == NOW // 100
        assert make().get(current.epoch, NOW) == current.key
        assert make().current(NOW + 100).key != current.key

    def test_a_key_lives_until_its_last_nonce_is_refused(self, make: Callable[[], EpochKeys]) -> None:
        keys = make()
        current = keys.current(NOW)
        end = keys.expires_at(current.epoch)
        assert end == NOW + 100 + 250
        for user in (keys, make()):
            assert user.get(current.epoch, end - 1) == current.key
            assert user.get(current.epoch, end) is None

    def test_clocks_may_differ_by_an_epoch(self, make: Callable[[], EpochKeys]) -> None:
        ahead = make().current(NOW + 100)
        assert make().get(ahead.epoch, NOW) == ahead.key
        assert make().get(ahead.epoch, NOW - 1) is None
        assert make().get(NOW // 100, NOW) is None

    def test_expired_keys_are_removed_and_no_others(
        self, engine: Engine, committer: GroupCommitter, make: Callable[[], EpochKeys]
    ) -> None:
        keys = make()
        current = keys.current(NOW)
        end = keys.expires_at(current.epoch)
        assert committer.submit(lambda connection: keys.delete_expired(connection, end - 1), 10) == 0
        assert committer.submit(lambda connection: keys.delete_expired(connection, end), 10) == 1
        with read(engine) as connection:
            assert connection.execute(select(func.count()).select_from(EPOCH_KEY)).scalar_one() == 0

    def test_the_store_is_asked_once_per_epoch(self, make: Callable[[], EpochKeys], root: CountingRoot) -> None:
        keys = make()
        for second in range(100):
            keys.current(NOW + second)
        assert root.asked == 1

    def test_memory_holds_living_keys_only(self, make: Callable[[], EpochKeys]) -> None:
        keys = make()
        for epoch in range(10):
            keys.current(NOW + 100 * epoch)
        assert len(keys._keys) == 4

    def test_a_key_moved_to_another_epoch_does_not_open(self, engine: Engine, make: Callable[[], EpochKeys]) -> None:
        current = make().current(NOW)
        with engine.begin() as connection:
            connection.execute(update(EPOCH_KEY).values(epoch=current.epoch + 1))
        with pytest.raises(KeyUnwrapError):
            make().get(current.epoch + 1, NOW)

    @pytest.mark.parametrize(("epoch", "lifetime"), [(0, 1), (1, -1)])
    def test_times_make_sense(
        self, engine: Engine, committer: GroupCommitter, root: CountingRoot, epoch: int, lifetime: int
    ) -> None:
        with pytest.raises(ValueError, match="epoch"):
            EpochKeys(engine, committer, root, epoch_seconds=epoch, lifetime_seconds=lifetime)


class TestChallenge:
    @pytest.fixture
    def keys(self, engine: Engine, committer: GroupCommitter, root: CountingRoot) -> EpochKeys:
        return EpochKeys(engine, committer, root, epoch_seconds=100, lifetime_seconds=250)

    def test_a_nonce_is_accepted_by_another_replica_until_it_expires(
        self, engine: Engine, committer: GroupCommitter, root: CountingRoot, keys: EpochKeys
    ) -> None:
        issued = challenge.issue(keys, grant=GRANT, broker="b", now=NOW + 99)
        assert len(issued.nonce) == 56
        assert issued.expires_at == NOW + 350
        replica = EpochKeys(engine, committer, root, epoch_seconds=100, lifetime_seconds=250)
        for moment in (NOW + 99, NOW + 349):
            challenge.check(replica, issued.nonce, grant=GRANT, broker="b", now=moment)
        with pytest.raises(ChallengeExpiredError):
            challenge.check(replica, issued.nonce, grant=GRANT, broker="b", now=NOW + 350)

    def test_it_is_what_the_protocol_says(self, keys: EpochKeys) -> None:
        nonce = challenge.issue(keys, grant=GRANT, broker="b", now=NOW).nonce
        epoch = NOW // 100
        data = challenge_mac_input(epoch=epoch, random=nonce[8:24], grant=GRANT, broker="b")
        key = keys.current(NOW).key
        assert nonce == epoch.to_bytes(8, "big") + nonce[8:24] + hmac.digest(key, data, hashlib.sha256)

    def test_no_two_are_alike(self, keys: EpochKeys) -> None:
        assert len({challenge.issue(keys, grant=GRANT, broker="b", now=NOW).nonce for _ in range(200)}) == 200

    def test_it_serves_one_grant_at_one_broker(self, keys: EpochKeys) -> None:
        nonce = challenge.issue(keys, grant=GRANT, broker="b", now=NOW).nonce
        for grant, broker in ((grant_digest(b"other"), "b"), (grant_digest(None), "b"), (GRANT, "c")):
            with pytest.raises(ChallengeInvalidError):
                challenge.check(keys, nonce, grant=grant, broker=broker, now=NOW)

    def test_every_flipped_bit_is_refused(self, keys: EpochKeys) -> None:
        nonce = challenge.issue(keys, grant=GRANT, broker="b", now=NOW).nonce
        for bit in range(len(nonce) * 8):
            altered = bytearray(nonce)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises((ChallengeInvalidError, ChallengeExpiredError)):
                challenge.check(keys, bytes(altered), grant=GRANT, broker="b", now=NOW)

    @pytest.mark.parametrize("size", [0, 1, 55, 57, 112])
    def test_another_length_is_refused(self, keys: EpochKeys, size: int) -> None:
        with pytest.raises(ChallengeInvalidError, match="56"):
            challenge.check(keys, os.urandom(size), grant=GRANT, broker="b", now=NOW)

    def test_a_broker_with_another_root_key_accepts_none(self, keys: EpochKeys, tmp_path: Path) -> None:
        nonce = challenge.issue(keys, grant=GRANT, broker="b", now=NOW).nonce
        other = open_engine(f"sqlite:///{tmp_path / 'other.db'}")
        migrate(other)
        with GroupCommitter(other) as writer:
            strangers = EpochKeys(other, writer, FileRootKey(bytes(32)), epoch_seconds=100, lifetime_seconds=250)
            strangers.current(NOW)
            with pytest.raises(ChallengeInvalidError):
                challenge.check(strangers, nonce, grant=GRANT, broker="b", now=NOW)
        other.dispose()
