"""Evidence packages for auditors: built and signed by the broker, and recorded before they leave."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, Final, cast

from audit.errors import NoteSignatureError, ProofError
from audit.package.build import build_package
from audit.package.manifest import Scope
from keybroker import reads, streams
from keybroker.broker import Broker
from keybroker.errors import InvalidRequestError, StoreTimeoutError
from keybroker.principals import Principal
from keybroker.store.engine import snapshot
from keystead.binding import sha256

AT_ONCE: Final = 2
"""Packages that one broker builds at once; each keeps a core busy for up to a minute."""

AT_ONCE_OF_TENANT: Final = 1
"""How many of them may be one tenant's."""

_IN_MEMORY: Final = 1 << 20
"""Bytes of a package that are held in memory; a longer one waits on the disk until it is sent."""

_LOOK: Final = 256
"""Records between two looks whether anybody still waits for the package."""


def build(
    broker: Broker,
    seats: streams.Seats,
    *,
    caller: Principal,
    scope: Scope,
    kept: bytes | None,
    wanted: Callable[[], bool],
) -> BinaryIO:
    """Build a package, to be read from the front; whoever takes it closes it.

    A tenant's auditor gets the tenant's records only. That somebody reads, and the digest of the package's manifest,
    is on record before this returns.

    Args:
        broker: the running broker.
        seats: bounds how many are built at once.
        caller: an auditor.
        scope: what the package is to be about.
        kept: a signed checkpoint that the log is to be proven to continue.
        wanted: whether anybody still waits for it.

    Raises:
        QueryError: more fits than one package holds.
        RoleError: a tenant's auditor asks for another tenant.
        InvalidRequestError: `kept` is no checkpoint of this log that the newest one can continue.
        UnwitnessedError: no checkpoint was cosigned by a quorum yet.
        StreamsTakenError: as many as may be are being built.
        StoreTimeoutError: nobody waits any more.
    """
    scope = replace(scope, tenant=reads.visible(caller, scope.filter()).tenant)
    if kept is not None:
        reads.check_older(kept)

    def progress(done: int) -> None:
        if done % _LOOK == 0 and not wanted():
            raise StoreTimeoutError(timeout=0, outcome_unknown=False)

    seats.take(caller.tenant)
    file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - it is handed out
    try:
        with snapshot(broker.engine) as connection:
            built = build_package(
                connection,
                file,
                scope=scope,
                signer=broker.keys.log,
                witnesses=broker.witnesses,
                kept=kept,
                progress=progress,
            )
        detail = reads.asked_for(scope.filter()) | {
            "package_digest": sha256(built.note).hex(),
            "records": built.manifest.records,
        }
        reads.remember(broker, caller=caller, detail=detail)
        file.seek(0)
    except (NoteSignatureError, ProofError) as error:
        file.close()
        raise InvalidRequestError("old_checkpoint", str(error)) from None
    except BaseException:
        file.close()
        raise
    finally:
        seats.leave(caller.tenant)
    return file
