"""The broker's HTTP client for witnesses (C2SP tlog-witness)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from audit.witness import MAX_ANSWER
from keybroker.broker import Broker
from keybroker.errors import WitnessError
from keybroker.publication import Publication, open_store
from keystead.exchange import ExchangeError, exchange

ADD_CHECKPOINT: Final = "add-checkpoint"


@dataclass(frozen=True, slots=True)
class HttpWitness:
    """A witness at an address; a `keybroker.publication.WitnessLink`.

    Attributes:
        url: the witness's submission prefix.
        seconds: how long an answer may take.
    """

    url: str
    seconds: float

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the witness's answer.

        Raises:
            WitnessError: there is none in time.
        """
        url = f"{self.url.rstrip('/')}/{ADD_CHECKPOINT}"
        try:
            reply = exchange(url, body=body, seconds=self.seconds, limit=MAX_ANSWER)
        except ExchangeError as error:
            raise WitnessError(f"witness: {error}") from None
        return reply.status, reply.body


def publication(broker: Broker) -> Publication | None:
    """What the configuration asks for: None where it names neither witnesses nor a folder."""
    config = broker.config.log
    if not config.witnesses and config.publish is None:
        return None
    links = {
        key: HttpWitness(witness.url, config.witness_seconds)
        for key, witness in zip(broker.witnesses.keys, config.witnesses, strict=True)
    }
    return Publication(broker, links, seconds=config.witness_seconds, store=open_store(broker))
