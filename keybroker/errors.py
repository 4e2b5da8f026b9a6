"""Errors of the key broker (RFC 9334's Relying Party).

::

    KeybrokerError
    ├── StoreError                     the state store could not do what was asked
    │   ├── StoreConfigurationError    a database address or server setting that cannot be used
    │   ├── StoreNotCurrentError       the database's schema is not the one this release needs
    │   ├── StoreUnavailableError      nothing was committed: no connection, no disk, no lock
    │   ├── StoreConflictError         concurrent work kept colliding until the retries ran out; nothing was committed
    │   ├── StoreOutcomeUnknownError   the commit itself failed: it may or may not have happened
    │   ├── StoreTimeoutError          the caller stopped waiting
    │   ├── StoreOverloadedError       too much work is waiting already; nothing was attempted
    │   ├── StoreClosedError           the broker is stopping; nothing was attempted
    │   └── StoreUsageError            a unit of work tried to end the transaction that it shares with others
    ├── AlreadyExistsError             the name is taken
    │   ├── IdentityEnrolledError      a hardware identity is enrolled already
    │   ├── NonceSpentError            the node used this nonce before
    │   └── RequestAnsweredError       the same request was answered meanwhile; its answer stands
    ├── NotFoundError                  no such site, node, asset, job, lease or document
    ├── StateConflictError             the state that the change starts from is not the present one
    ├── DecisionStaleError             what a decision rests on changed before it could be committed
    ├── RequestMismatchError           the same request id came with another request
    ├── KeyManagementError             keys at rest cannot be used
    │   ├── RootKeyError               the root key cannot be loaded or must not be trusted
    │   ├── KeyUnwrapError             a wrapped key does not open: another key or context, or altered bytes
    │   └── SigningKeyError            a signing key cannot be loaded or must not be trusted
    ├── ChallengeError                 a nonce that the broker does not accept
    │   ├── ChallengeInvalidError      not issued by this broker for this grant
    │   └── ChallengeExpiredError      issued by this broker, too long ago
    ├── ConfigError                    the configuration or a file that it names cannot be used
    │   └── CollateralRolledBackError  a file that is older than one of the same source that was used before
    ├── AlreadyInitialisedError        an installation is there already, and nothing of it is overwritten
    ├── NotAuthenticatedError          the client certificate does not say who calls
    ├── RoleError                      the caller's role or tenant does not allow this call
    ├── InvalidRequestError            a field of the request is missing, malformed or contradicts another
    │   ├── ConstraintsError           constraints that cannot be read; it names the field
    │   └── LineageCycleError          an asset version would be derived from itself
    ├── LineageTooLargeError           more asset versions hang together than one step may touch
    ├── NothingGrantedError            the job was never granted a lease, so nothing is known of what it made
    ├── StatementError                 a signed statement, or one of its signatures, is not what it must be
    │   └── SignaturesMissingError     too few authorities have signed it
    ├── StatementExpiredError          the time in which a statement may be used is over
    ├── DeclassificationStaleError     the constraints that a declassification starts from are not the present ones
    ├── GrantInvalidError              a grant that this broker did not sign, or not for this
    ├── NoAppraisalError               a record of the log that rests on no appraisal that is kept
    ├── AppraisalRecordError           a stored or exported appraisal is altered, incomplete or of another version
    ├── StreamsTakenError              as many streams of records are open as may be
    ├── WitnessError                   a witness of the log gives no answer, or refuses; releases go on
    └── PolicyUnavailableError         a policy could not decide, so the answer is no

An exception means "could not decide" or "the request cannot be carried out". What a policy decided against is a
denial with its reasons, not one of these. `keybroker.services.status` alone maps them to gRPC.
"""

from __future__ import annotations

from typing import ClassVar


class KeybrokerError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "KEYBROKER_ERROR"


class StoreError(KeybrokerError):
    """The state store could not do what was asked."""

    code: ClassVar[str] = "STORE_ERROR"


class StoreConfigurationError(StoreError):
    """A database address or a server setting that cannot be used; the text says how to mend it."""

    code: ClassVar[str] = "STORE_CONFIGURATION"


class StoreNotCurrentError(StoreError):
    """The database's schema is not the one this release needs.

    Attributes:
        found: the revision that the database has, or None where it has no tables yet.
        expected: the revision that this release needs.
    """

    code: ClassVar[str] = "STORE_NOT_CURRENT"

    def __init__(self, *, found: str | None, expected: str, remedy: str) -> None:
        has = "no schema yet" if found is None else f"schema revision {found}"
        super().__init__(f"the database has {has}, this release needs revision {expected}: {remedy}")
        self.found = found
        self.expected = expected


class StoreUnavailableError(StoreError):
    """No connection, no disk or no lock; nothing was committed, so the request may simply be repeated."""

    code: ClassVar[str] = "STORE_UNAVAILABLE"


class StoreConflictError(StoreError):
    """Concurrent work kept colliding until the retries ran out; nothing was committed."""

    code: ClassVar[str] = "STORE_CONFLICT"


class StoreOutcomeUnknownError(StoreError):
    """The commit itself failed: it may or may not have happened. Repeat the request under the same request id."""

    code: ClassVar[str] = "STORE_OUTCOME_UNKNOWN"


class StoreTimeoutError(StoreError):
    """The caller stopped waiting.

    Attributes:
        outcome_unknown: True if the work had begun and may still be committed, so that the caller must repeat it
            idempotently; False if it was withdrawn from the queue and never runs.
    """

    code: ClassVar[str] = "STORE_TIMEOUT"

    def __init__(self, *, timeout: float, outcome_unknown: bool) -> None:
        tail = (
            "it had begun and may still be committed: repeat the request under the same request id"
            if outcome_unknown
            else "it was still queued and has been withdrawn: repeat the request"
        )
        super().__init__(f"no commit within {timeout:g} s; {tail}")
        self.outcome_unknown = outcome_unknown


class StoreOverloadedError(StoreError):
    """Too much work is waiting already; nothing was attempted. Back off, then repeat the request."""

    code: ClassVar[str] = "STORE_OVERLOADED"


class StoreClosedError(StoreError):
    """The broker is stopping; nothing was attempted. Another replica will take the request."""

    code: ClassVar[str] = "STORE_CLOSED"


class StoreUsageError(StoreError):
    """A unit of work tried to commit or roll back the transaction that it shares with others: a programming error."""

    code: ClassVar[str] = "STORE_USAGE"


class AlreadyExistsError(KeybrokerError):
    """The name is taken.

    Attributes:
        what: the kind of thing, for example ``site``.
        name: the name that is taken.
    """

    code: ClassVar[str] = "ALREADY_EXISTS"

    def __init__(self, what: str, name: str, *, remedy: str = "choose another name") -> None:
        super().__init__(f"{what} {name!r} exists already: {remedy}")
        self.what = what
        self.name = name


class IdentityEnrolledError(AlreadyExistsError):
    """A hardware identity is enrolled already.

    The text does not say where: whoever may try identities must not learn which node has one. `node_id` does, for the
    broker's own log.

    Attributes:
        identity: ``kind:value``.
        node_id: the node that has it.
    """

    code: ClassVar[str] = "IDENTITY_ENROLLED"

    def __init__(self, identity: str, *, node_id: str) -> None:
        super().__init__(
            "hardware identity", identity, remedy="a device belongs to one node; check the identity with the operator"
        )
        self.identity = identity
        self.node_id = node_id


class NonceSpentError(AlreadyExistsError):
    """The node used this nonce before; only the same transcript may be answered again.

    Attributes:
        lease_id: the lease that it was used for.
        transcript: SHA-256 of the runtime data or passport message that it was used with (32 bytes).
    """

    code: ClassVar[str] = "NONCE_SPENT"

    def __init__(self, *, nonce: bytes, node_id: str, lease_id: str, transcript: bytes) -> None:
        super().__init__(
            f"nonce of node {node_id!r}", f"{nonce[:12].hex()}…", remedy="get a new challenge and attest again"
        )
        self.lease_id = lease_id
        self.transcript = transcript


class RequestAnsweredError(AlreadyExistsError):
    """The same request was answered meanwhile, by another replica or thread; its answer stands.

    Attributes:
        response: that answer.
    """

    code: ClassVar[str] = "REQUEST_ANSWERED"

    def __init__(self, request_id: str, *, response: bytes) -> None:
        super().__init__("request", request_id, remedy="its answer stands")
        self.response = response


class NotFoundError(KeybrokerError):
    """No such site, node, asset, job, lease or document.

    Attributes:
        what: the kind of thing, for example ``site``.
        name: the name that was looked up.
    """

    code: ClassVar[str] = "NOT_FOUND"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} {name!r}: check the name, or create it first")
        self.what = what
        self.name = name


class StateConflictError(KeybrokerError):
    """The state that the change starts from is not the present one.

    Attributes:
        what: the kind of thing, for example ``lease``.
        name: which one.
        state: its present state.
    """

    code: ClassVar[str] = "STATE_CONFLICT"

    def __init__(self, what: str, name: str, *, state: str, expected: str) -> None:
        super().__init__(f"{what} {name!r} is {state}, this change needs it {expected}: read it again")
        self.what = what
        self.name = name
        self.state = state


class DecisionStaleError(KeybrokerError):
    """What a decision rests on changed before it could be committed; it is taken again on what holds now."""

    code: ClassVar[str] = "DECISION_STALE"


class RequestMismatchError(KeybrokerError):
    """The same request id came with another request; the first one's answer is not the answer to this one."""

    code: ClassVar[str] = "REQUEST_MISMATCH"


class KeyManagementError(KeybrokerError):
    """Keys at rest cannot be used."""

    code: ClassVar[str] = "KEY_MANAGEMENT"


class RootKeyError(KeyManagementError):
    """The root key cannot be loaded, or must not be trusted as it is stored."""

    code: ClassVar[str] = "ROOT_KEY"


class KeyUnwrapError(KeyManagementError):
    """A wrapped key does not open: another key or context, or altered bytes."""

    code: ClassVar[str] = "KEY_UNWRAP"


class SigningKeyError(KeyManagementError):
    """A signing key cannot be loaded, or must not be trusted as it is stored."""

    code: ClassVar[str] = "SIGNING_KEY"


class ChallengeError(KeybrokerError):
    """A nonce that the broker does not accept."""

    code: ClassVar[str] = "CHALLENGE_ERROR"


class ChallengeInvalidError(ChallengeError):
    """Not a nonce that this broker issued for this grant."""

    code: ClassVar[str] = "CHALLENGE_INVALID"


class ChallengeExpiredError(ChallengeError):
    """A nonce of an epoch that has ended; get a new one by GetChallenge."""

    code: ClassVar[str] = "CHALLENGE_EXPIRED"


class ConfigError(KeybrokerError):
    """The configuration, or a file that it names, cannot be used."""

    code: ClassVar[str] = "BAD_CONFIGURATION"


class CollateralRolledBackError(ConfigError):
    """A revocation list, reference values or advisories that are older than what this store has used before."""

    code: ClassVar[str] = "COLLATERAL_ROLLED_BACK"


class AlreadyInitialisedError(KeybrokerError):
    """An installation is there already; nothing of it is overwritten."""

    code: ClassVar[str] = "ALREADY_INITIALISED"


class NotAuthenticatedError(KeybrokerError):
    """The client certificate does not say who calls."""

    code: ClassVar[str] = "NOT_AUTHENTICATED"


class RoleError(KeybrokerError):
    """The caller's role or tenant does not allow this call."""

    code: ClassVar[str] = "ROLE_NOT_ALLOWED"


class InvalidRequestError(KeybrokerError):
    """A field of the request is missing, malformed or contradicts another.

    Attributes:
        field: the field's name in the request message.
    """

    code: ClassVar[str] = "INVALID_REQUEST"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class ConstraintsError(InvalidRequestError):
    """Constraints that cannot be read; `field` says where, for example ``residency.allowed[0]``."""

    code: ClassVar[str] = "CONSTRAINTS_INVALID"


class LineageCycleError(InvalidRequestError):
    """An asset version would be derived from itself, directly or through others."""

    code: ClassVar[str] = "LINEAGE_CYCLE"


class LineageTooLargeError(KeybrokerError):
    """More asset versions hang together by lineage than one request may touch; nothing was changed."""

    code: ClassVar[str] = "LINEAGE_TOO_LARGE"


class NothingGrantedError(KeybrokerError):
    """The job was never granted a lease: what its output was derived from is not known, so it is not registered."""

    code: ClassVar[str] = "NOTHING_GRANTED"

    def __init__(self, job_uid: str) -> None:
        super().__init__(
            f"job {job_uid!r} was never granted a lease: what it made was derived from nothing that this broker knows; "
            "an owner adds such a version by AddAssetVersion and declares its parents"
        )


class StatementError(KeybrokerError):
    """A signed statement, or one of its signatures, is not what it must be.

    Attributes:
        field: what of it.
    """

    code: ClassVar[str] = "BAD_STATEMENT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class SignaturesMissingError(StatementError):
    """Too few authorities have signed a statement."""

    code: ClassVar[str] = "SIGNATURES_MISSING"

    def __init__(self, *, found: int, needed: int, missing: list[str]) -> None:
        more = ", ".join(missing) or "nobody: name authorities in the broker's configuration, [[estate.authorities]]"
        super().__init__("signatures", f"{found} of {needed} that are needed; who can still sign: {more}")


class StatementExpiredError(KeybrokerError):
    """The time in which a statement may be used is over, or ends too far ahead."""

    code: ClassVar[str] = "STATEMENT_EXPIRED"


class DeclassificationStaleError(KeybrokerError):
    """The constraints that a declassification starts from are not the version's present ones; nothing was changed."""

    code: ClassVar[str] = "DECLASSIFICATION_STALE"


class GrantInvalidError(KeybrokerError):
    """A grant that this broker did not sign, or that was made for another broker."""

    code: ClassVar[str] = "GRANT_INVALID"


class NoAppraisalError(KeybrokerError):
    """A record of the log that rests on no appraisal, or on one that is not kept (any more)."""

    code: ClassVar[str] = "NO_APPRAISAL"


class AppraisalRecordError(KeybrokerError):
    """A stored or exported appraisal is altered, incomplete or of a version that this release does not read."""

    code: ClassVar[str] = "BAD_APPRAISAL_RECORD"


class StreamsTakenError(KeybrokerError):
    """As many streams of records are open as one broker, or one tenant, may have."""

    code: ClassVar[str] = "STREAMS_TAKEN"


class WitnessError(KeybrokerError):
    """A witness of the log gives no answer in time, or refuses to cosign; no release waits for it."""

    code: ClassVar[str] = "WITNESS_UNAVAILABLE"


class PolicyUnavailableError(KeybrokerError):
    """A policy could not decide, so nothing is released; the log has the detail."""

    code: ClassVar[str] = "POLICY_UNDECIDED"
