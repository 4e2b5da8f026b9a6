"""What the chapters of the demo share: who is there, and what each of them can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attester.client import BrokerClient, TlsMaterial
from attester.collect.collector import Collector
from attester.errors import AccessDeniedError, BrokerError
from attester.handshake import SignedGrant
from attester.lease import Lease, acquire
from keystead.binding import AssetRef
from keystead.cli import instants
from keystead.cli.connection import Connection, request_id, to_timestamp
from keystead.cli.demo.factory import Factory
from keystead.cli.demo.narrator import Narrator
from keystead.cli.profile import Profile
from keystead.v1 import asset_ref_pb2, job_service_pb2

TENANT: Final = "acme"
BROKER: Final = "keystead-demo"
MODEL: Final = AssetRef(f"{TENANT}/llm", 1)
PURPOSE: Final = "inference"

TIMEOUT: Final = 30.0
"""Seconds that a call of anybody may take."""

GRANTED: Final = "granted"
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class Job:
    """What a scheduler hands to a job's nodes.

    Attributes:
        job_uid: the scheduler's name of it.
        grant: what the broker signed.
        nonce: what a node attests over, once.
        expires: when the grant ends, seconds since the epoch.
    """

    job_uid: str
    grant: SignedGrant
    nonce: bytes
    expires: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everybody who acts in the story, connected to the broker.

    Attributes:
        narrator: who tells it.
        folder: where everything goes.
        factory: the simulated hardware.
        operator, owner, scheduler, auditor: connections in these roles.
        client: the nodes' connection.
    """

    narrator: Narrator
    folder: Path
    factory: Factory
    operator: Connection
    owner: Connection
    scheduler: Connection
    auditor: Connection
    client: BrokerClient

    def authorize(
        self, job_uid: str, *refs: AssetRef, purpose: str = PURPOSE, seconds: int = 600, node_ceiling: int = 1
    ) -> Job:
        """Open a job for `refs`, the model where none is named.

        Raises:
            AccessDeniedError: the broker says no, with every reason.
        """
        expires = instants.now() + seconds
        response = self.scheduler.call(
            self.scheduler.jobs.AuthorizeJob,
            job_service_pb2.AuthorizeJobRequest(
                request_id=request_id(),
                job_uid=job_uid,
                assets=[ref_message(ref) for ref in refs or (MODEL,)],
                purposes=[purpose],
                node_ceiling=node_ceiling,
                expire_time=to_timestamp(expires),
            ),
        )
        return Job(job_uid, SignedGrant.from_proto(response.grant), response.nonce, expires)

    def acquire(self, collector: Collector, job: Job, node_id: str, *refs: AssetRef) -> Lease:
        """Attest as `node_id` and get a lease on `refs`, the model where none is named.

        Raises:
            AccessDeniedError: the broker says no, with every reason.
        """
        return acquire(
            self.client, collector, grant=job.grant, assets=refs or (MODEL,), node_id=node_id, nonce=job.nonce
        )


def attempt(
    narrator: Narrator, step: str, *, actor: str, what: str, action: Callable[[], object], codes: set[str]
) -> None:
    """Carry out `action`, which the broker must refuse for at least the reasons `codes`.

    Args:
        narrator: tells it.
        step: the step's stable name.
        actor: who tries.
        what: what they do.
        action: does it.
        codes: the reasons that the story says.
    """
    narrator.says(actor, what)
    expected = f"{REFUSED}: {', '.join(sorted(codes))}"
    try:
        action()
    except AccessDeniedError as error:
        found = {reason.code for reason in error.reasons}
        actual = expected if codes <= found else f"{REFUSED}: {', '.join(sorted(found))}"
        count = f"{len(error.reasons)} reason{'s' if len(error.reasons) > 1 else ''}"
        narrator.outcome(
            step, expected=expected, actual=actual, text=f"refused and recorded, {count}", reasons=error.reasons
        )
    except BrokerError as error:
        narrator.outcome(step, expected=expected, actual=f"{error.code} {error.reason}".strip(), text=str(error))
    else:
        narrator.outcome(step, expected=expected, actual=GRANTED, text="the key was released")


@contextmanager
def node_client(profile: Profile) -> Iterator[BrokerClient]:
    """The nodes' connection to the broker."""
    tls = TlsMaterial.from_files(ca=profile.ca, certificate=profile.certificate, key=profile.key)
    with BrokerClient(profile.address, tls=tls, timeout=TIMEOUT) as client:
        yield client


def ref_message(ref: AssetRef) -> asset_ref_pb2.AssetRef:
    """An asset version as a message."""
    return asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)
