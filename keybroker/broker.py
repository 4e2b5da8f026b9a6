"""A running broker: configuration, keys, store, policies and trust anchors, opened once and shared by every call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Final, Self, TypeVar

from prometheus_client import Histogram
from sqlalchemy import Connection, Engine

from audit.cosignature import WitnessKey, WitnessPolicy
from audit.errors import MalformedError
from audit.keyring import Keyring, bind
from audit.log import append
from audit.note import NoteSigner
from audit.receipt import Receipt
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from keybroker.archive import Archive
from keybroker.authorities import load_authorities
from keybroker.config import BrokerConfig
from keybroker.errors import (
    AlreadyExistsError,
    ConfigError,
    InvalidRequestError,
    RequestAnsweredError,
    StateConflictError,
    StoreTimeoutError,
)
from keybroker.keys.epochs import EpochKeys
from keybroker.keys.hierarchy import KeyHierarchy, load_or_create_hpke_key
from keybroker.keys.log_keys import log_keyring
from keybroker.keys.root import FileRootKey
from keybroker.keys.signing import SigningKey
from keybroker.policies import Policies
from keybroker.principals import Principal
from keybroker.refusals import BROKER_ACTOR, RefusalLimiter
from keybroker.store import floors, idempotency
from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine, read
from keybroker.store.migrate import check_current
from keybroker.trust import Trust

ROOT_KEY: Final = "root.key"
GRANT_KEY: Final = "grant.pem"
RESULT_KEY: Final = "result.pem"
LOG_KEY: Final = "log.pem"

COMMIT_TIMEOUT: Final = 20.0
"""Seconds that a call waits for its commit, unless its own deadline comes first."""

_DEADLINE: Final[ContextVar[float | None]] = ContextVar("keystead_deadline", default=None)

_BATCH: Final = Histogram("keystead_commit_units", "Units of work per commit", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
_COMMIT: Final = Histogram(
    "keystead_commit_seconds", "Seconds per commit", buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
)

T = TypeVar("T")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Within the block, commits of this thread wait no longer than `seconds` from now.

    Raises:
        StoreTimeoutError: there is no time left; nothing was attempted.
    """
    if seconds <= 0:
        raise StoreTimeoutError(timeout=0, outcome_unknown=False)
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def _observe_commit(units: int, seconds: float) -> None:
    _BATCH.observe(units)
    _COMMIT.observe(seconds)


def wall_clock() -> int:
    """Integer seconds since the Unix epoch."""
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Keys:
    """Every private key of a broker, in memory.

    Attributes:
        root: wraps the tenants' keys, the epoch keys, the log's payload keys and nothing else.
        grant: signs job grants.
        result: signs Attestation Results.
        log: signs checkpoints and receipts; its name is the log's origin.
    """

    root: FileRootKey
    grant: SigningKey
    result: SigningKey
    log: NoteSigner

    @classmethod
    def load(cls, config: BrokerConfig) -> Self:
        """Load the keys from the configured directory.

        Raises:
            KeyManagementError: one is missing, malformed, or readable by others.
        """
        directory = config.path(config.keys.directory)
        return cls(
            root=FileRootKey.load(directory / ROOT_KEY),
            grant=SigningKey.load(directory / GRANT_KEY),
            result=SigningKey.load(directory / RESULT_KEY),
            log=load_log_signer(config),
        )


def load_log_signer(config: BrokerConfig) -> NoteSigner:
    """The key that signs for the log, alone.

    Raises:
        KeyManagementError: it is missing, malformed, or readable by others.
    """
    directory = config.path(config.keys.directory)
    return NoteSigner(log_origin(config), SigningKey.load(directory / LOG_KEY).private_key)


def log_origin(config: BrokerConfig) -> str:
    """The log's origin (C2SP tlog-checkpoint): one log per logical broker."""
    return f"{config.broker.trust_domain}/{config.broker.name}/log"


def load_log_keyring(config: BrokerConfig) -> Keyring:
    """The keys of the log's payloads, under the configured root: whoever has them can read every record.

    Raises:
        KeyManagementError: the root key is missing, malformed, or readable by others.
    """
    root = FileRootKey.load(config.path(config.keys.directory) / ROOT_KEY)
    return log_keyring(root, origin=log_origin(config))


def witness_policy(config: BrokerConfig) -> WitnessPolicy:
    """The witnesses that the configuration names, in its order, and how many of them are needed.

    Raises:
        ConfigError: a key is none, or stands twice, or the quorum is larger than the number of witnesses.
    """
    try:
        keys = tuple(WitnessKey.parse(witness.key) for witness in config.log.witnesses)
        return WitnessPolicy(keys, config.log.witness_quorum)
    except MalformedError as error:
        raise ConfigError(f"log.witnesses, log.witness_quorum: {error}") from None


class Broker:
    """What every call needs; made by `open`, ended by `close`."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        engine: Engine,
        keys: Keys,
        policies: Policies,
        trust: Trust,
        witnesses: WitnessPolicy,
        clock: Callable[[], int],
    ) -> None:
        self.config: Final = config
        self.authorities: Final = load_authorities(config)
        self.name: Final = config.broker.name
        self.clock: Final = clock
        self.keyring: Final = log_keyring(keys.root, origin=log_origin(config))
        """The keys of the log's payloads; every connection of `engine` seals and opens with them."""
        engine = bind(engine, self.keyring)
        self.engine: Final = engine
        self.keys: Final = keys
        self.policies: Final = policies
        self.trust: Final = trust
        self.archive: Final = Archive(trust, policies, verifier=config.broker.name)
        self.hierarchy: Final = KeyHierarchy(keys.root)
        self.committer: Final = GroupCommitter(engine, observe=_observe_commit)
        self.epochs: Final = EpochKeys(
            engine,
            self.committer,
            keys.root,
            epoch_seconds=config.limits.epoch_seconds,
            lifetime_seconds=config.limits.nonce_seconds,
        )
        self.refusals: Final = RefusalLimiter(config.limits.unauthenticated_records_per_minute)
        self.wrapping_key: Final = self.commit(
            lambda connection: load_or_create_hpke_key(connection, keys.root, now=clock())
        )
        """The HPKE key that owners wrap data keys to; all replicas share it."""
        self.sequencer: Final = Sequencer(engine, keys.log, log_origin(config))
        self.witnesses: Final = witnesses
        """Who must have cosigned a checkpoint before it is shown."""

    @classmethod
    def open(cls, config: BrokerConfig, *, clock: Callable[[], int] = wall_clock) -> Self:
        """Open everything that `config` names.

        Raises:
            KeybrokerError: something cannot be used; the text says what and how to mend it.
        """
        keys = Keys.load(config)
        policies = Policies.load(config)
        trust = Trust.load(config)
        witnesses = witness_policy(config)
        engine = open_engine(config.database_url, pool_size=config.limits.workers + 4)
        check_current(engine)
        broker = cls(config, engine=engine, keys=keys, policies=policies, trust=trust, witnesses=witnesses, clock=clock)
        try:
            broker.commit(lambda connection: floors.raise_floors(connection, trust.floors, now=clock()))
            broker.sequencer.initialise(clock())
        except BaseException:
            broker.close()
            raise
        return broker

    def close(self) -> None:
        """Answer what waits, then let go of the store."""
        self.committer.close()
        self.engine.dispose()

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that can only read."""
        return read(self.engine)

    def commit(self, unit: Callable[[Connection], T], *, order: str = "", timeout: float = COMMIT_TIMEOUT) -> T:
        """Run `unit` in a transaction; returns once it is durable (`GroupCommitter.submit`).

        Args:
            unit: the work.
            order: units that have to wait for one another anyway.
            timeout: seconds to wait at most; the call's own deadline may come first.
        """
        until = _DEADLINE.get()
        left = timeout if until is None else min(timeout, until - time.monotonic())
        if left <= 0:
            raise StoreTimeoutError(timeout=0, outcome_unknown=False)
        return self.committer.submit(unit, left, order=order)

    def sequence(self) -> int:
        """Give entries that wait their places in the log; how many there were.

        Raises:
            LogCorruptError: stored data contradict one another; nothing was signed.
        """
        work = partial(self.sequencer.run_once, self.clock())
        # SQLite has one writer at a time, and under load another transaction would never come upon a free moment.
        return self.committer.alone(work, COMMIT_TIMEOUT) if self.engine.dialect.name == "sqlite" else work()

    def once(
        self,
        unit: Callable[[Connection], bytes],
        *,
        caller: Principal,
        request_id: str,
        method: str,
        request_digest: bytes,
        now: int,
        order: str = "",
        timeout: float = COMMIT_TIMEOUT,
    ) -> bytes:
        """Run a mutation once per `request_id` of `caller`; a repeat gets the first answer.

        Args:
            unit: does the work and returns the serialised answer.
            caller: whose request ids these are.
            request_id: chosen by the caller.
            method: the RPC's name.
            request_digest: SHA-256 of the request, so that another request under the same id is refused.
            now: integer seconds since the Unix epoch.
            order: as for `commit`.
            timeout: as for `commit`.

        Raises:
            RequestMismatchError: the id was used for another request.
        """

        def guarded(connection: Connection) -> bytes:
            known = idempotency.find(
                connection, principal=caller.key, request_id=request_id, method=method, request_digest=request_digest
            )
            if known is not None:
                return known
            response = unit(connection)
            idempotency.record(
                connection,
                principal=caller.key,
                request_id=request_id,
                method=method,
                request_digest=request_digest,
                response=response,
                now=now,
            )
            return response

        try:
            return self.commit(guarded, order=order, timeout=timeout)
        except RequestAnsweredError as error:
            return error.response
        except (AlreadyExistsError, StateConflictError, InvalidRequestError):
            # What stands in the way may be this very request, done by another replica since it was looked up.
            known = self.answered(caller=caller, request_id=request_id, method=method, request_digest=request_digest)
            if known is None:
                raise
            return known

    def answered(self, *, caller: Principal, request_id: str, method: str, request_digest: bytes) -> bytes | None:
        """The answer that `once` gave to this request before, or None: what was decided is not decided again.

        Raises:
            RequestMismatchError: the id was used for another request.
        """
        with self.read() as connection:
            return idempotency.find(
                connection, principal=caller.key, request_id=request_id, method=method, request_digest=request_digest
            )

    def record_start(self) -> None:
        """Remember that this broker started, under which policies, and whether it trusts simulated hardware."""
        source = self.trust.reference.source
        record = Record.build(
            kind=Kind.BROKER_STARTED,
            time=self.clock(),
            actor=BROKER_ACTOR,
            policy_digest=self.policies.release.digest,
            result=Result.RECORDED,
            detail={
                "appraisal_policy_digest": self.policies.appraisal.digest,
                "simulated_roots_trusted": self.trust.simulated,
                "simulated_allowed_by_policy": self.policies.settings.allow_simulated,
                "reference_values_digest": "" if source is None else source.digest.hex(),
                "advisories_digest": tuple(table.source.digest.hex() for table in self.trust.reference.advisories),
                "reference_values_unsigned": bool(self.trust.unsigned),
                **self._tenant_policies(),
            },
        )
        self.commit(lambda connection: append(connection, record))

    def _tenant_policies(self) -> dict[str, tuple[str, ...]]:
        """Which tenants have policies of their own, as ``tenant=digest``, and which of these cannot be used."""
        named = tuple(f"{name}={policies.digest}" for name, policies in self.policies.tenants.items())
        unusable = tuple(sorted(self.policies.unusable))
        return ({"tenants_policy_digest": named} if named else {}) | (
            {"unusable_policies": unusable} if unusable else {}
        )

    def receipt(self, *, entry_hash: bytes, at: int) -> Receipt:
        """The log's signed promise for an entry that is committed."""
        return Receipt.issue(entry_hash=entry_hash, time=at, signer=self.keys.log)


def actor(principal: Principal) -> Actor:
    """The caller as it stands in records."""
    return Actor(role=principal.role.value, name=principal.name, tenant=principal.tenant)
