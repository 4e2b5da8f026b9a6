"""How client commands are told where the broker is and who they are: options, environment or a profile file.

``keystead init`` writes one profile for each client, ``clients/NAME.toml``, beside its certificate: ``address``,
``ca``, ``certificate`` and ``key``, the paths relative to the file. Options win over the environment, the environment
over the profile. Nothing here needs gRPC: commands that can do without a broker load `keystead.cli.connection` late.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, Self, get_type_hints

import typer

from keystead.cli.exits import UsageError
from keystead.toml import TomlError, read_toml

P = ParamSpec("P")

_PANEL: Final = "Connection"
_KEYS: Final = frozenset({"address", "ca", "certificate", "key"})
_MAX_PROFILE: Final = 64 << 10


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
        with file.open("rb") as source:
            document = read_toml(source.read(_MAX_PROFILE + 1), limit=_MAX_PROFILE)
    except OSError as error:
        raise UsageError(f"--profile {file}: {error.strerror}") from None
    except TomlError as error:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """What a command was told about the broker; None where an option and its variable are absent.

    Attributes:
        profile: a profile file.
        address, ca, certificate, key: as in `Profile`.
        timeout: seconds that any one call may take.
    """

    profile: Path | None
    address: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None
    timeout: float

    @property
    def given(self) -> bool:
        """Whether anything says where the broker is."""
        return self.profile is not None or self.address is not None

    def find_profile(self) -> Profile:
        """The whole profile; see `find_profile`.

        Raises:
            UsageError: something is missing, or the profile file cannot be used.
        """
        return find_profile(
            profile=self.profile, address=self.address, ca=self.ca, certificate=self.certificate, key=self.key
        )


def with_broker_options(function: Callable[Concatenate[BrokerOptions, P], None]) -> Callable[..., None]:
    """Make a command of a function that takes `BrokerOptions` first: adds the options that say where the broker is."""
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
        settings = {name.removeprefix(_PREFIX): kwargs.pop(name) for name, _, _ in _OPTIONS}
        run(BrokerOptions(**settings), **kwargs)

    # typer reads the signature, and would else look at the function beneath.
    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as PEP 362 sets it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


_PREFIX: Final = "broker_"
"""Keeps these options apart from a command's own parameters of the same name."""

_OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = (
    (
        f"{_PREFIX}profile",
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
        f"{_PREFIX}address",
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
            f"{_PREFIX}{name}",
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
        f"{_PREFIX}timeout",
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
