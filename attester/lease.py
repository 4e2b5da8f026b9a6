"""A lease on the node: the data keys while they may be held, the files they open, renewal, return and erasure.

A `Lease` erases its keys and closes what it opened as soon as the broker refuses a renewal, the lease expires or is
returned. Time is judged by two clocks, and the earlier one counts: the wall clock, which a host can set back, and the
monotonic clock from the moment of the broker's answer.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attester.client import BrokerClient
from attester.collect.collector import Collector
from attester.errors import (
    AccessDeniedError,
    BadAnswerError,
    BrokerError,
    CredentialError,
    LeaseEndedError,
    ObligationError,
    RequestRefusedError,
)
from attester.handshake import SignedGrant, collect_evidence
from attester.passport import Passport
from keystead.binding import (
    NONCE_SIZE,
    SHA256_SIZE,
    AssetRef,
    AssetUse,
    BindingError,
    HpkePrivateKey,
    UnwrapError,
    asset_list_digest,
    check_id,
    grant_digest,
    hpke_info,
    lease_return_message,
    output_message,
    passport_message,
    sha256,
    usage_report_message,
)
from keystead.v1 import asset_ref_pb2 as asset_pb
from keystead.v1 import lease_service_pb2 as pb
from sealed.asset import SealedAsset
from sealed.errors import ManifestError
from sealed.format import KEY_SIZE
from sealed.manifest import Manifest
from sealed.open import SealedReader

RE_ATTEST: Final = "re_attest"
REPORT_USAGE: Final = "report_usage"
FULFILLED: Final = frozenset({"lease_ceiling", RE_ATTEST, REPORT_USAGE, "zeroise_on_end"})
"""The obligations that a `Lease` fulfils by itself, with a `attester.keeper.LeaseKeeper` for what falls due in time.

For `REPORT_USAGE` it counts by itself what its readers decrypt; a program that serves what it made of an asset says how
much with `Lease.count`.
"""

_SIGNATURE_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Obligation:
    """A duty that travels with the lease.

    Attributes:
        code: stable code.
        params: its parameters, canonical JSON.
    """

    code: str
    params: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker's signed promise that the record of an answer is in the log.

    Attributes:
        origin: the log's.
        entry_hash: RFC 9162 hash of the leaf, 32 bytes.
        commit_time: seconds since the epoch.
        key_id: which of the log's keys signed.
        signature: Ed25519, 64 bytes (docs/protocol.md, receipt); an auditor checks it.
    """

    origin: str
    entry_hash: bytes
    commit_time: int
    key_id: str
    signature: bytes

    @classmethod
    def from_proto(cls, message: pb.Receipt) -> Self:
        """Take a receipt from an answer.

        Raises:
            BadAnswerError: hash or signature has another length.
        """
        if len(message.entry_hash) != SHA256_SIZE or len(message.signature) != _SIGNATURE_SIZE or not message.origin:
            raise BadAnswerError("audit receipt: missing or malformed")
        return cls(
            message.origin,
            message.entry_hash,
            message.commit_time.seconds,
            message.key_id,
            message.signature,
        )


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What the broker's last answer says of the lease.

    Attributes:
        lease_id, job_uid, node_id: whose lease it is.
        expires_at: seconds since the epoch.
        policy_digest: the release policy that allowed it.
        obligations: the duties that come with it.
        re_attest: seconds after which the broker wants new evidence; None where it does not say.
        attestation_result: the EAR that the decision rests on.
        receipt: the audit receipt.
        report_every: seconds between reports of what the lease uses; None where the broker asks for none.
    """

    lease_id: str
    job_uid: str
    node_id: str
    expires_at: int
    policy_digest: bytes
    obligations: tuple[Obligation, ...]
    re_attest: int | None
    attestation_result: str
    receipt: Receipt
    report_every: int | None = None


class _Used:
    """What was used of one asset so far; it only grows."""

    __slots__ = ("bytes_opened", "bytes_served", "lock", "tokens_served")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes_opened = 0
        self.tokens_served = 0
        self.bytes_served = 0

    def opened(self, size: int) -> None:
        with self.lock:
            self.bytes_opened += size

    def served(self, *, tokens: int, size: int) -> None:
        with self.lock:
            self.tokens_served += tokens
            self.bytes_served += size

    def as_of_now(self, ref: AssetRef) -> AssetUse:
        with self.lock:
            return AssetUse(
                ref=ref,
                bytes_opened=self.bytes_opened,
                tokens_served=self.tokens_served,
                bytes_served=self.bytes_served,
            )


class _DataKey:
    """One released data key, in memory that can be wiped."""

    __slots__ = ("key", "key_id", "manifest_digest")

    def __init__(self, *, key: bytes, key_id: str, manifest_digest: bytes) -> None:
        self.key = bytearray(key)
        self.key_id = key_id
        self.manifest_digest = manifest_digest

    def wipe(self) -> None:
        self.key[:] = bytes(len(self.key))


class Lease:
    """A lease that this node holds. Made by `acquire`; use it as a context manager, whose end returns it.

    It may be used by several threads.
    """

    def __init__(
        self,
        client: BrokerClient,
        collector: Collector,
        *,
        grant: SignedGrant,
        broker: str,
        hpke_key: bytes,
        signing_key: Ed25519PrivateKey,
        terms: LeaseTerms,
        data_keys: dict[AssetRef, _DataKey],
        next_nonce: bytes,
        fulfils: frozenset[str],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._collector = collector
        self._grant = grant
        self._broker = broker
        self._hpke_key = hpke_key
        self._signing_key = signing_key
        self._clock = clock
        self._monotonic = monotonic
        # `_lock` guards the state and is never held over a call to the broker; `_renewing` lets one renewal run.
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._data_keys = data_keys
        self._readers: weakref.WeakSet[SealedReader] = weakref.WeakSet()
        self._terms = terms
        self._deadline = monotonic() + terms.expires_at - clock()
        self._next_nonce = next_nonce
        self._fulfils = fulfils
        self._used = {ref: _Used() for ref in data_keys}
        self._reporting = threading.Lock()
        self._reports = 0
        self._settled = False
        self._unanswered: pb.RenewLeaseRequest | None = None
        self._ended = ""
        self._returned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_before = self._ended or error is not None
        try:
            self.return_()
        except BrokerError:
            # Nobody to tell, or a lease that the broker ended itself: no reason to hide the error under way.
            if not ended_before:
                raise

    @property
    def terms(self) -> LeaseTerms:
        """What the broker's last answer says of the lease."""
        return self._terms

    @property
    def lease_id(self) -> str:
        """The lease's id."""
        return self._terms.lease_id

    @property
    def assets(self) -> tuple[AssetRef, ...]:
        """The assets whose keys it covers, sorted."""
        return tuple(sorted(self._data_keys))

    @property
    def live(self) -> bool:
        """Whether the keys are there and may be used now."""
        return not self._ended and self.remaining() > 0

    def remaining(self) -> float:
        """Seconds until the lease expires, by the clock that says less; never negative."""
        with self._lock:
            left = min(self._terms.expires_at - self._clock(), self._deadline - self._monotonic())
        return max(0.0, left)

    def manifest(self, asset: AssetRef | str, folder: Path) -> Manifest:
        """The manifest of a sealed asset, as its owner registered it with the broker.

        Raises:
            LeaseEndedError: the lease is over.
            CredentialError: the lease does not cover this asset.
            ManifestSignatureError: the folder holds another manifest than the broker vouched for.
            ManifestError: it is malformed, or of another asset, version or key.
            OSError: it cannot be read.
        """
        ref, data_key = self._data_key(asset)
        return self._load(ref, data_key, folder).manifest

    def open(self, asset: AssetRef | str, folder: Path, name: str | None = None) -> SealedReader:
        """Open a file of a sealed asset. The lease closes it when it ends, whoever still reads from it.

        Args:
            asset: the asset's version, also as ``TENANT/NAME@VERSION``.
            folder: what `keystead seal` wrote.
            name: the file's name in the manifest; may be left out where the asset has one file.

        Raises:
            LeaseEndedError: the lease is over.
            CredentialError: the lease does not cover this asset.
            ManifestSignatureError: the folder holds another manifest than the broker vouched for.
            ManifestError: it is malformed, of another asset, version or key, or has no such file.
            NotAuthenticError: the file is not what was sealed.
            OSError: it cannot be read.
        """
        ref, data_key = self._data_key(asset)
        sealed = self._load(ref, data_key, folder)
        if name is None:
            if len(sealed.manifest.files) != 1:
                raise ManifestError(f"{ref}: has {len(sealed.manifest.files)} files, say which one to open")
            name = sealed.manifest.files[0].name
        key = bytearray(KEY_SIZE)
        try:
            with self._lock:
                self._check_live()
                key[:] = data_key.key
            reader = sealed.open(name, key=key, meter=self._used[ref].opened)
        finally:
            key[:] = bytes(KEY_SIZE)
        with self._lock:
            if not self._ended:
                self._readers.add(reader)
                return reader
        reader.close()
        raise self._over()

    def check(self) -> None:
        """Erase the keys if the lease has expired.

        Raises:
            LeaseEndedError: the lease is over, now or since long.
        """
        if not self.remaining():
            self.zeroise("it expired")
        with self._lock:
            self._check_live()

    def count(self, asset: AssetRef | str, *, tokens: int = 0, bytes_served: int = 0) -> None:
        """Say that this program gave out tokens or bytes of what it made of an asset: once, when it did.

        Bytes that the lease's readers decrypt are counted without it.

        Args:
            asset: the asset's version, also as ``TENANT/NAME@VERSION``.
            tokens: how many more.
            bytes_served: how many more.

        Raises:
            CredentialError: the lease does not cover this asset.
            ValueError: a negative number.
        """
        if tokens < 0 or bytes_served < 0:
            raise ValueError(f"tokens {tokens} and bytes_served {bytes_served}: what was used stays used")
        ref = self._ref(asset)
        used = self._used.get(ref)
        if used is None:
            raise CredentialError(f"{ref}: this lease covers {', '.join(map(str, self.assets))}")
        used.served(tokens=tokens, size=bytes_served)

    @property
    def uses(self) -> tuple[AssetUse, ...]:
        """What was used of each asset so far."""
        return tuple(used.as_of_now(ref) for ref, used in sorted(self._used.items()))

    def report(self) -> None:
        """Tell the broker what the lease used so far, signed by the attested key.

        Raises:
            BrokerUnavailableError: no answer. Call again.
            RequestRefusedError: the broker does not take the report.
            BrokerError: see its other subclasses.
        """
        with self._reporting:
            uses = self.uses
            self._reports += 1
            message = usage_report_message(lease_id=self._terms.lease_id, sequence=self._reports, uses=uses)
            self._client.report_usage(
                pb.ReportUsageRequest(
                    lease_id=self._terms.lease_id,
                    sequence=self._reports,
                    uses=[
                        pb.AssetUse(
                            asset=asset_pb.AssetRef(asset=use.ref.asset, version=use.ref.version),
                            bytes_opened=use.bytes_opened,
                            tokens_served=use.tokens_served,
                            bytes_served=use.bytes_served,
                        )
                        for use in uses
                    ],
                    signature=self._signing_key.sign(message),
                )
            )

    @staticmethod
    def _ref(asset: AssetRef | str) -> AssetRef:
        try:
            return AssetRef.parse(asset) if isinstance(asset, str) else asset
        except BindingError as error:
            raise CredentialError(str(error)) from None

    def _data_key(self, asset: AssetRef | str) -> tuple[AssetRef, _DataKey]:
        self.check()
        ref = self._ref(asset)
        with self._lock:
            self._check_live()
            data_key = self._data_keys.get(ref)
        if data_key is None:
            raise CredentialError(f"{ref}: this lease covers {', '.join(map(str, self.assets))}")
        return ref, data_key

    def _check_live(self) -> None:
        if self._ended:
            raise self._over()

    def _over(self) -> LeaseEndedError:
        return LeaseEndedError(f"lease {self._terms.lease_id}: {self._ended}; its keys were erased")

    @staticmethod
    def _load(ref: AssetRef, data_key: _DataKey, folder: Path) -> SealedAsset:
        sealed = SealedAsset.load_vouched(folder, digest=data_key.manifest_digest)
        manifest = sealed.manifest
        if manifest.ref != ref or manifest.key_id != data_key.key_id:
            raise ManifestError(
                f"{folder}: a manifest of {manifest.ref} with key {manifest.key_id}; "
                f"the broker released key {data_key.key_id} for {ref}"
            )
        return sealed

    def renew(self) -> LeaseTerms:
        """Extend the lease on fresh evidence.

        A renewal that got no answer is repeated as it was, evidence and all: the broker answers it once.

        Returns:
            The new terms.

        Raises:
            LeaseEndedError: the lease is over.
            AccessDeniedError: the broker refused; the keys were erased.
            RequestRefusedError: the broker does not know this lease or transcript; the keys were erased.
            BadAnswerError: the answer contradicts the request; the keys were erased.
            ObligationError: the lease now comes with a duty that nobody fulfils; the keys were erased.
            BrokerUnavailableError: no answer; the lease stands until it expires. Call again.
            CollectionError: no evidence; the lease stands until it expires.
        """
        with self._renewing:
            self.check()
            with self._lock:
                nonce, request = self._next_nonce, self._unanswered
            if request is None:
                evidence = collect_evidence(
                    self._collector,
                    hpke_key=self._hpke_key,
                    signing_key=self._signing_key.public_key().public_bytes_raw(),
                    broker=self._broker,
                    nonce=nonce,
                    grant=self._grant.grant,
                    node_id=self._terms.node_id,
                    assets=self.assets,
                    lease_id=self._terms.lease_id,
                )
                request = pb.RenewLeaseRequest(lease_id=self._terms.lease_id, evidence=evidence.message)
                self._unanswered = request
            try:
                if self._terms.report_every is not None:
                    self.report()
                answer = self._client.renew_lease(request)
                terms = _terms(
                    answer,
                    lease_id=self._terms.lease_id,
                    job_uid=self._terms.job_uid,
                    node_id=self._terms.node_id,
                    assets=self.assets,
                )
                next_nonce = _nonce(answer.next_nonce)
                _check_obligations(terms, self._fulfils)
            except (AccessDeniedError, RequestRefusedError, BadAnswerError, ObligationError) as error:
                self.zeroise(f"its renewal was refused: {error}")
                raise
            with self._lock:
                self._check_live()
                self._terms = terms
                self._deadline = self._monotonic() + terms.expires_at - self._clock()
                self._next_nonce = next_nonce
                self._unanswered = None
            return terms

    def renewal_due(self) -> float:
        """Seconds within which the lease must be renewed: until it expires, or the broker wants new evidence."""
        left = self.remaining()
        return left if self._terms.re_attest is None else min(left, self._terms.re_attest)

    def zeroise(self, why: str) -> None:
        """Erase the data keys and close every reader that the lease gave out; may be called again.

        Args:
            why: what `LeaseEndedError` says from now on, as in "lease 7: …"; the first call's stands.
        """
        with self._lock:
            self._ended = self._ended or why
            for data_key in self._data_keys.values():
                data_key.wipe()
            readers = list(self._readers)
        for reader in readers:
            reader.close()

    def sign_output(
        self,
        *,
        ref: AssetRef,
        key_id: str,
        manifest_digest: bytes,
        wrapped_key: bytes,
        kind: str = "",
        constraints: str = "",
    ) -> bytes:
        """Sign for something that the job made, by the attested key (`attester.output.register_output`).

        Raises:
            LeaseEndedError: the lease speaks for the job no longer.
        """
        self.check()
        with self._lock:
            self._check_live()
        return self._signing_key.sign(
            output_message(
                lease_id=self._terms.lease_id,
                ref=ref,
                key_id=key_id,
                manifest_digest=manifest_digest,
                wrapped_key=wrapped_key,
                kind=kind,
                constraints=constraints,
            )
        )

    @property
    def client(self) -> BrokerClient:
        """The connection that the lease was acquired over."""
        return self._client

    def return_(self) -> Receipt | None:
        """Erase the keys, then tell the broker so, signed by the attested key. May be called again after a failure.

        Where the broker asked for reports of what was used, it gets the last one first.

        Returns:
            The audit receipt, or None where the lease was returned before.

        Raises:
            BrokerError: the broker was not told; the keys are erased all the same.
        """
        self.zeroise("it was returned")
        with self._lock:
            if self._returned:
                return None
            settled = self._settled or self._terms.report_every is None
        if not settled:
            # A lease that the broker takes no report of is returned all the same.
            with contextlib.suppress(RequestRefusedError):
                self.report()
            with self._lock:
                self._settled = True
        message = lease_return_message(lease_id=self._terms.lease_id, zeroised=True)
        answer = self._client.return_lease(
            pb.ReturnLeaseRequest(
                lease_id=self._terms.lease_id, zeroised=True, signature=self._signing_key.sign(message)
            )
        )
        receipt = Receipt.from_proto(answer.receipt)
        with self._lock:
            self._returned = True
        return receipt


def acquire(
    client: BrokerClient,
    collector: Collector,
    *,
    grant: SignedGrant,
    assets: Sequence[AssetRef],
    node_id: str,
    nonce: bytes | None = None,
    broker: str | None = None,
    passport: Passport | None = None,
    fulfils: frozenset[str] = frozenset(),
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Lease:
    """Prove what this node is and receive the data keys of `assets`: one round trip where a nonce came with the grant.

    Args:
        client: the connection to the broker.
        collector: collects this node's evidence, now and for renewals.
        grant: the job's, as the scheduler passed it on.
        assets: what to open; they must be in the grant.
        node_id: who this node says it is.
        nonce: the one that came with the grant; None asks the broker for another, which is a round trip more.
        broker: the broker's logical name; None takes the grant's.
        passport: what `attester.passport.appraise` gave, to be presented instead of evidence. Renewals need evidence.
        fulfils: codes of obligations, besides `FULFILLED`, that the caller fulfils.
        clock: seconds since the epoch.
        monotonic: seconds of a clock that nobody can set.

    Raises:
        AccessDeniedError: the broker refused; `reasons` has every reason.
        BrokerError: see its subclasses.
        CollectionError: this node's evidence cannot be collected.
        CredentialError: the grant is not for this broker or these assets, or the passport is another node's.
        ObligationError: the lease comes with a duty that nobody fulfils; it was returned.
    """
    refs = tuple(sorted(set(assets)))
    broker = broker or grant.content.broker
    if broker != grant.content.broker:
        raise CredentialError(f"the grant is from broker {grant.content.broker}, not from {broker}")
    if not refs or not set(refs) <= set(grant.content.assets):
        raise CredentialError(
            f"asked for {', '.join(map(str, refs)) or 'nothing'}; "
            f"the grant is for {', '.join(map(str, grant.content.assets))}"
        )
    if nonce is None:
        challenge = client.get_challenge(grant=grant.grant)
        if challenge.broker != broker:
            raise BadAnswerError(f"the challenge is from broker {challenge.broker!a:.80}, not from {broker}")
        nonce = _nonce(challenge.nonce)
    request = pb.AcquireLeaseRequest(
        grant=grant.to_proto(), assets=[asset_pb.AssetRef(asset=ref.asset, version=ref.version) for ref in refs]
    )
    # The HPKE private key opens the recorded answer for ever: it ends with this function.
    hpke_key = HpkePrivateKey.generate()
    if passport is None:
        signing_key = Ed25519PrivateKey.generate()
        evidence = collect_evidence(
            collector,
            hpke_key=hpke_key.public_key,
            signing_key=signing_key.public_key().public_bytes_raw(),
            broker=broker,
            nonce=nonce,
            grant=grant.grant,
            node_id=node_id,
            assets=refs,
        )
        transcript = evidence.transcript
        request.evidence.CopyFrom(evidence.message)
    else:
        if (passport.broker, passport.node_id) != (broker, node_id):
            raise CredentialError(f"the passport is of node {passport.node_id} and from broker {passport.broker}")
        signing_key = passport.signing_key
        message = passport_message(
            ear=passport.attestation_result,
            nonce=nonce,
            grant=grant_digest(grant.grant),
            assets=asset_list_digest(refs),
            hpke_key=hpke_key.public_key,
        )
        transcript = sha256(message)
        request.passport.CopyFrom(
            pb.Passport(
                attestation_result=passport.attestation_result,
                hpke_key=hpke_key.public_key,
                signature=signing_key.sign(message),
                nonce=nonce,
            )
        )
    answer = client.acquire_lease(request)
    try:
        lease_id = check_id(answer.lease.lease_id, "lease id")
    except BindingError as error:
        raise BadAnswerError(str(error)) from None
    terms = _terms(answer, lease_id=lease_id, job_uid=grant.content.job_uid, node_id=node_id, assets=refs)
    lease = Lease(
        client,
        collector,
        grant=grant,
        broker=broker,
        hpke_key=hpke_key.public_key,
        signing_key=signing_key,
        terms=terms,
        data_keys=_unwrap(answer.keys, terms=terms, hpke_key=hpke_key, transcript=transcript, assets=refs),
        next_nonce=_nonce(answer.next_nonce),
        fulfils=FULFILLED | fulfils,
        clock=clock,
        monotonic=monotonic,
    )
    try:
        _check_obligations(terms, FULFILLED | fulfils)
    except ObligationError:
        with contextlib.suppress(BrokerError):
            lease.return_()
        raise
    return lease


def _check_obligations(terms: LeaseTerms, fulfils: frozenset[str]) -> None:
    unknown = sorted({obligation.code for obligation in terms.obligations} - fulfils)
    if unknown:
        raise ObligationError(
            f"lease {terms.lease_id}: nobody fulfils {', '.join(unknown)}; pass `fulfils` if this program does"
        )


def _nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_SIZE:
        raise BadAnswerError(f"nonce: {len(nonce)} bytes, expected {NONCE_SIZE}")
    return nonce


def _refs(messages: Sequence[asset_pb.AssetRef]) -> list[AssetRef]:
    return sorted(AssetRef(message.asset, message.version) for message in messages)


def _terms(
    answer: pb.AcquireLeaseResponse | pb.RenewLeaseResponse,
    *,
    lease_id: str,
    job_uid: str,
    node_id: str,
    assets: Sequence[AssetRef],
) -> LeaseTerms:
    """Check an answer against what was asked for."""
    lease = answer.lease
    for what, got, asked in (
        ("lease", lease.lease_id, lease_id),
        ("job", lease.job_uid, job_uid),
        ("node", lease.node_id, node_id),
    ):
        if got != asked:
            raise BadAnswerError(f"answered for {what} {got!a:.80}, asked for {asked}")
    if _refs(lease.assets) != list(assets):
        raise BadAnswerError(f"lease {lease.lease_id}: for other assets than asked for")
    if len(lease.policy_digest) != SHA256_SIZE:
        raise BadAnswerError(f"lease {lease.lease_id}: policy digest of {len(lease.policy_digest)} bytes")
    obligations = tuple(Obligation(each.code, each.params) for each in answer.obligations)
    return LeaseTerms(
        lease_id=lease.lease_id,
        job_uid=lease.job_uid,
        node_id=lease.node_id,
        expires_at=lease.expire_time.seconds,
        policy_digest=lease.policy_digest,
        obligations=obligations,
        re_attest=_period(obligations, RE_ATTEST, "seconds"),
        attestation_result=answer.attestation_result,
        receipt=Receipt.from_proto(answer.receipt),
        report_every=_period(obligations, REPORT_USAGE, "every"),
    )


def _period(obligations: Sequence[Obligation], code: str, name: str) -> int | None:
    periods = []
    for obligation in obligations:
        if obligation.code != code:
            continue
        try:
            params = json.loads(obligation.params)
        except ValueError:
            params = None
        seconds = params.get(name) if isinstance(params, dict) else None
        if type(seconds) is not int or seconds < 1:
            raise BadAnswerError(f"obligation {code}: {obligation.params!a:.80} does not say how many seconds")
        periods.append(seconds)
    return min(periods, default=None)


def _unwrap(
    wrapped: Sequence[pb.WrappedKey],
    *,
    terms: LeaseTerms,
    hpke_key: HpkePrivateKey,
    transcript: bytes,
    assets: Sequence[AssetRef],
) -> dict[AssetRef, _DataKey]:
    """Open every wrapped key; exactly one must be there for each asset."""
    if sorted(AssetRef(each.asset.asset, each.asset.version) for each in wrapped) != list(assets):
        raise BadAnswerError(f"lease {terms.lease_id}: not exactly one key for each asset")
    data_keys = {}
    for each in wrapped:
        ref = AssetRef(each.asset.asset, each.asset.version)
        info = hpke_info(
            transcript=transcript,
            lease_id=terms.lease_id,
            ref=ref,
            key_id=each.key_id,
            policy_digest=terms.policy_digest,
        )
        try:
            key = hpke_key.open(each.ciphertext, info=info)
        except UnwrapError as error:
            raise BadAnswerError(f"lease {terms.lease_id}, {ref}: {error}") from None
        if len(key) != KEY_SIZE or len(each.manifest_digest) != SHA256_SIZE:
            raise BadAnswerError(f"lease {terms.lease_id}, {ref}: key or manifest digest of another size")
        data_keys[ref] = _DataKey(key=key, key_id=each.key_id, manifest_digest=each.manifest_digest)
    return data_keys
