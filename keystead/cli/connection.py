"""How client commands find the broker: mutual TLS, options, environment or a profile file.

``keystead init`` writes one profile for each client, ``clients/NAME.toml``, beside its certificate: ``address``,
``ca``, ``certificate`` and ``key``, the paths relative to the file. Options win over the environment, the environment
over the profile.
"""

from __future__ import annotations

import functools
import inspect
import tomllib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Concatenate, Final, ParamSpec, Self, TypeVar, get_type_hints

import grpc
import typer

from attester.errors import from_rpc_error
from keystead.cli.exits import UsageError
from keystead.v1.asset_service_pb2_grpc import AssetServiceStub
from keystead.v1.audit_service_pb2_grpc import AuditServiceStub
from keystead.v1.job_service_pb2_grpc import JobServiceStub
from keystead.v1.node_service_pb2_grpc import NodeServiceStub
from keystead.v1.site_service_pb2_grpc import SiteServiceStub

P = ParamSpec("P")
Request = TypeVar("Request")
Response = TypeVar("Response")

_PANEL: Final = "Connection"
_KEYS: Final = frozenset({"address", "ca", "certificate", "key"})
_MAX_PROFILE: Final = 64 << 10
_MAX_MESSAGE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the broker is, and who we are to it.

    Attributes:
        address: ``HOST:PORT``.
        ca: PEM file of the authority that issued the broker's certificate.
        certificate, key: PEM files of our own certificate and its private key.
    """

    address: str
    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a profile file.

        Raises:
            UsageError: it cannot be read, is not TOML, or a key is missing, unknown or no text.
        """
        values = _read(file)
        if missing := _KEYS - values.keys():
            raise UsageError(f"{file}: {', '.join(sorted(missing))} missing; `keystead init` writes whole profiles")
        base = file.parent
        return cls(values["address"], base / values["ca"], base / values["certificate"], base / values["key"])


def _read(file: Path) -> dict[str, str]:
    try:
        if file.stat().st_size > _MAX_PROFILE:
            raise UsageError(f"{file}: more than {_MAX_PROFILE} bytes are no profile")
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--profile {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--profile {file}: not TOML: {error}") from None
    for name, value in document.items():
        if name not in _KEYS or not isinstance(value, str):
            raise UsageError(f"--profile {file}: {name!a:.40}: a profile has {', '.join(sorted(_KEYS))}, each a text")
    return document


def find_profile(
    *,
    profile: Path | None,
    address: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> Profile:
    """Complete a profile: each option that was given replaces what the file says.

    Raises:
        UsageError: something is missing from both, or the file cannot be used.
    """
    values: dict[str, str] = {}
    if profile is not None:
        values = _read(profile)
        values |= {name: str(profile.parent / values[name]) for name in ("ca", "certificate", "key") if name in values}
    given = {"address": address, "ca": ca, "certificate": certificate, "key": key}
    values |= {name: str(value) for name, value in given.items() if value is not None}
    if missing := sorted(_KEYS - values.keys()):
        options = {"address": "--broker", "ca": "--ca", "certificate": "--cert", "key": "--key"}
        raise UsageError(
            "no broker to talk to: give --profile FILE (`keystead init` writes clients/NAME.toml), or "
            + ", ".join(options[name] for name in missing)
        )
    return Profile(values["address"], Path(values["ca"]), Path(values["certificate"]), Path(values["key"]))


class Connection:
    """A mutual-TLS channel to the broker and stubs for its services; use it as a context manager.

    Args:
        profile: where to, and as whom.
        timeout: seconds that any one call may take.

    Raises:
        UsageError: a certificate or key cannot be read.
    """

    def __init__(self, profile: Profile, *, timeout: float) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_material(profile.ca, "--ca"),
            private_key=_material(profile.key, "--key"),
            certificate_chain=_material(profile.certificate, "--cert"),
        )
        self.profile = profile
        self._timeout = timeout
        self._channel = grpc.secure_channel(
            profile.address,
            credentials,
            options=(
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.enable_retries", 0),
                ("grpc.initial_reconnect_backoff_ms", 100),
            ),
        )
        self.assets = AssetServiceStub(self._channel)
        self.audit = AuditServiceStub(self._channel)
        self.jobs = JobServiceStub(self._channel)
        self.nodes = NodeServiceStub(self._channel)
        self.sites = SiteServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def ready(self, *, timeout: float) -> bool:
        """Whether the broker accepts us over mutual TLS within `timeout` seconds."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError:
            return False
        return True

    def call(self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Call a method of one of the stubs.

        Raises:
            attester.errors.AttesterError: the broker refused, or could not be reached in time.
        """
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


def request_id() -> str:
    """A fresh id for a request that changes something: the broker carries it out once, however often it arrives."""
    return str(uuid.uuid4())


def connected(function: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Make a command of a function that needs a `Connection`: adds the options that say where the broker is."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        *(parameter.replace(annotation=hints[parameter.name]) for parameter in own),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, annotation, default in _OPTIONS
        ),
    ]

    # Which options typer gives is known from the signature above, which mypy cannot follow.
    run: Callable[..., None] = function

    @functools.wraps(function)
    def command(**kwargs: Any) -> None:
        settings = {name: kwargs.pop(name) for name, _, _ in _OPTIONS}
        timeout: float = settings.pop("timeout")
        with Connection(find_profile(**settings), timeout=timeout) as connection:
            run(connection, **kwargs)

    # typer reads the signature, and would else look at the function beneath.
    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as PEP 362 sets it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


_OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = (
    (
        "profile",
        Annotated[
            Path | None,
            typer.Option(
                "--profile",
                metavar="FILE",
                envvar="KEYSTEAD_PROFILE",
                rich_help_panel=_PANEL,
                help="Where the broker is and who we are: clients/NAME.toml of an installation.",
            ),
        ],
        None,
    ),
    (
        "address",
        Annotated[
            str | None,
            typer.Option(
                "--broker",
                metavar="HOST:PORT",
                envvar="KEYSTEAD_BROKER",
                rich_help_panel=_PANEL,
                help="The broker's address, instead of the profile's.",
            ),
        ],
        None,
    ),
    *(
        (
            name,
            Annotated[
                Path | None,
                typer.Option(option, metavar="FILE", envvar=variable, rich_help_panel=_PANEL, help=text),
            ],
            None,
        )
        for name, option, variable, text in (
            ("ca", "--ca", "KEYSTEAD_CA", "PEM: who issued the broker's certificate."),
            ("certificate", "--cert", "KEYSTEAD_CERT", "PEM: our own certificate."),
            ("key", "--key", "KEYSTEAD_KEY", "PEM: our private key."),
        )
    ),
    (
        "timeout",
        Annotated[
            float,
            typer.Option(
                "--timeout",
                metavar="SECONDS",
                envvar="KEYSTEAD_TIMEOUT",
                min=0.1,
                max=600,
                rich_help_panel=_PANEL,
                help="How long one call may take.",
            ),
        ],
        20.0,
    ),
)


def _material(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None
