"""What every call goes through: its error becomes a status, its outcome a metric and a log line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Histogram

from keybroker.broker import deadline
from keybroker.denial import DeniedError
from keybroker.errors import InvalidRequestError
from keybroker.services.status import code_of, to_status

_LOG: Final = structlog.get_logger("keystead.rpc")
_CALLS: Final = Counter("keystead_rpc_total", "Calls by method and status code", ("method", "code"))
_SECONDS: Final = Histogram(
    "keystead_rpc_seconds",
    "Seconds per call by method",
    ("method",),
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_POOL: Final = "experimental_thread_pool"
_OWN: Final = "/keystead."

# grpc's stubs make the class generic; at run time it is not.
if TYPE_CHECKING:
    _Interceptor = grpc.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.ServerInterceptor

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class StatusInterceptor(_Interceptor):
    """Maps errors to statuses (`keybroker.services.status`), counts and logs; decides nothing."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap Keystead's own methods; health and reflection pass as they are.

        A method that answers with a stream may work while its iterator hands out: what that raises is the status, too.
        A method that has an `experimental_thread_pool` runs on it, as grpc runs those that are not intercepted.
        """
        handler = continuation(handler_call_details)
        method: str = handler_call_details.method
        inner = None
        if handler is not None:
            inner = handler.unary_unary or handler.unary_stream or handler.stream_unary
        if handler is None or not method.startswith(_OWN) or inner is None:
            return handler

        deserialize = handler.request_deserializer

        def read(data: bytes) -> Any:
            # grpc would answer INTERNAL, and log a traceback, for what is the client's mistake.
            try:
                return data if deserialize is None else deserialize(data)
            except DecodeError:
                return InvalidRequestError("request", f"not a message of the request type of {method}")

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            try:
                with deadline(context.time_remaining()):
                    response = inner(
                        _all_readable(request) if handler.request_streaming else _readable(request), context
                    )
            except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
                _finish(method, error, started)
                _abort(context, error)
            if handler.response_streaming:
                return _handed_out(response, method, context, started)
            _finish(method, None, started)
            return response

        pool = getattr(inner, _POOL, None)
        if pool is not None:
            setattr(call, _POOL, pool)

        wrap = grpc.unary_unary_rpc_method_handler
        if handler.response_streaming:
            wrap = grpc.unary_stream_rpc_method_handler
        elif handler.request_streaming:
            wrap = grpc.stream_unary_rpc_method_handler
        return wrap(call, request_deserializer=read, response_serializer=handler.response_serializer)


def _handed_out(responses: Iterator[Any], method: str, context: grpc.ServicerContext, started: float) -> Iterator[Any]:
    try:
        yield from responses
    except Exception as error:  # noqa: BLE001 - as in `call`
        _finish(method, error, started)
        _abort(context, error)
    _finish(method, None, started)


def _readable(request: Any) -> Any:
    if isinstance(request, InvalidRequestError):
        raise request
    return request


def _all_readable(requests: Iterator[Any]) -> Iterator[Any]:
    for request in requests:
        yield _readable(request)


def _finish(method: str, error: Exception | None, started: float) -> None:
    seconds = time.perf_counter() - started
    code = grpc.StatusCode.OK if error is None else (code_of(error) or grpc.StatusCode.INTERNAL)
    _CALLS.labels(method, code.name).inc()
    _SECONDS.labels(method).observe(seconds)
    if error is None:
        _LOG.debug("call", method=method, seconds=round(seconds, 6))
    elif isinstance(error, DeniedError):
        _LOG.info("denied", method=method, reasons=[reason.code for reason in error.reasons])
    elif code is grpc.StatusCode.INTERNAL:
        _LOG.error("failed", method=method, exc_info=error)
    else:
        _LOG.info("refused", method=method, code=code.name, reason=getattr(error, "code", ""), detail=str(error))


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    code, message, details = to_status(error)
    context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(code, message)
    raise AssertionError("abort returned")  # grpc's abort always raises
