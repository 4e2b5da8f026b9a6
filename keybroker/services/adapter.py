"""What every service's adapter has: the broker, who calls, and each mutation once per request id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from sqlalchemy import Connection

from keybroker import requests
from keybroker.broker import Broker
from keybroker.principals import Principal, Role
from keybroker.services.identity import principal
from keystead.binding import sha256

M = TypeVar("M", bound=Message)


class Adapter:
    """What every adapter has: the broker, and who calls."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def caller(self, context: grpc.ServicerContext, *roles: Role) -> Principal:
        """The authenticated caller, who must have one of `roles`."""
        return principal(context, *roles, trust_domain=self.broker.config.broker.trust_domain)

    def known(self, request: Any, response: type[M], *, caller: Principal) -> M | None:
        """The answer that this request got before, or None: what was decided is not decided again.

        `request` is a message with a `request_id`.
        """
        data = self.broker.answered(
            caller=caller,
            request_id=requests.request_id(request.request_id),
            method=type(request).__name__,
            request_digest=request_digest(request),
        )
        if data is None:
            return None
        message = response()
        message.ParseFromString(data)
        return message

    def once(
        self,
        unit: Callable[[Connection], M],
        response: type[M],
        *,
        caller: Principal,
        request: Message,
        request_id: str,
        now: int,
        order: str = "",
    ) -> M:
        """Run a mutation once per request id; `unit` returns the answer as a message."""
        data = self.broker.once(
            lambda connection: unit(connection).SerializeToString(deterministic=True),
            caller=caller,
            request_id=requests.request_id(request_id),
            method=type(request).__name__,
            request_digest=request_digest(request),
            now=now,
            order=order,
        )
        message = response()
        message.ParseFromString(data)
        return message


def request_digest(request: Message) -> bytes:
    """SHA-256 of a request, by which a repeated request id is held to the request that it came with first."""
    return sha256(request.SerializeToString(deterministic=True))
