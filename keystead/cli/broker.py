"""``keystead init`` and ``keystead serve``: make an installation, run its broker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.exits import UsageError
from keystead.cli.output import JsonOption

_MAX_KEY: Final = 4_096
DEFAULT_LISTEN: Final = "127.0.0.1:8750"


def init_app(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty or not there yet.")],
    *,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The broker's logical name, the same for every replica.")
    ] = "keystead",
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant", metavar="TENANT", help="Make an owner's and a scheduler's certificate for it; repeat."
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A DNS name or address that clients will use; repeat for each."),
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the broker listens.")] = DEFAULT_LISTEN,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql+psycopg://…; SQLite in DIR where this is not given.")
    ] = None,
    authority: Annotated[
        list[str] | None,
        typer.Option(
            "--authority",
            metavar="NAME=FILE",
            help="A party that signs for sites and its public key (PEM); name two at least, or add them later.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new installation: configuration, keys, certificates, database.

    Writes DIR/keystead.toml, the broker's keys, a certificate authority and one client profile for each role,
    DIR/clients/NAME.toml, which every other command takes as --profile. Nothing that is there is overwritten.

    \b
    Examples:
      keystead init ./factory --tenant acme --authority facility=facility.pem.pub --authority legal=legal.pem.pub
      keystead init /var/lib/keystead --tenant acme --tenant beta --host keystead.factory.example --listen 0.0.0.0:8750
    """  # noqa: D301 - click's mark for a paragraph whose lines stay as they are
    from keybroker.initialise import initialise

    installation = initialise(
        directory,
        name=name,
        tenants=tuple(tenant or ()),
        hosts=tuple(host or ("localhost", "127.0.0.1")),
        listen=listen,
        database=database,
        authorities=_authorities(authority or ()),
        now=instants.now(),
    )
    if as_json:
        output.print_json(
            {
                "directory": os.fspath(installation.directory),
                "configuration": os.fspath(installation.config),
                "log_verifier_key": os.fspath(installation.log_verifier_key),
                "profiles": {profile: os.fspath(path) for profile, path in installation.profiles.items()},
            }
        )
        return
    console = output.console()
    console.print(output.cell(f"Installation of broker {name!r} made in {directory}."))
    output.print_table(("client", "profile"), installation.profiles.items())
    console.print(output.cell(f"Auditors need {installation.log_verifier_key}: give it to them by another way."))
    values = installation.config.parent / "reference.toml"
    key = values.with_name("reference.key")
    console.print(output.cell(f"Next: put your reference values into {values} and sign them:"))
    console.print(output.cell(f"  keystead reference sign {values} --key {key}"))
    console.print(output.cell(f"Then take {key} away from this machine and run: keystead serve {directory}"))


def _authorities(values: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for value in values:
        name, _, file = value.partition("=")
        if not file or name in found:
            raise UsageError(f"--authority {value!a:.80}: write NAME=FILE, each name once")
        with Path(file).open("rb") as source:
            found[name] = source.read(_MAX_KEY)
    return found


def serve_app(
    installation: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="An installation, or its configuration file.")
    ],
    *,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring the database to this release's schema first.")
    ] = False,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="PORT", help="Serve Prometheus metrics on this loopback port.")
    ] = 0,
    until_stdin_closes: Annotated[
        bool,
        typer.Option("--until-stdin-closes", help="End when standard input closes: with the program that started it."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the broker of an installation until it is told to stop (SIGTERM or Ctrl-C).

    Its log goes to standard error, one JSON object a line. Health: the gRPC health service.

    \b
    Examples:
      keystead serve ./factory
      keystead serve /etc/keystead/keystead.toml --migrate
    """  # noqa: D301 - click's mark for a paragraph whose lines stay as they are
    from keybroker.config import BrokerConfig
    from keybroker.services.server import serve

    config = BrokerConfig.load(installation)

    def ready(port: int) -> None:
        if as_json:
            output.print_json({"broker": config.broker.name, "listen": config.broker.listen, "port": port})
        else:
            text = f"Broker {config.broker.name!r} listens on {config.broker.listen}. Ctrl-C ends it."
            output.console().print(output.cell(text))
        sys.stdout.flush()
        if until_stdin_closes:
            threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()

    serve(config, migrate_first=migrate, ready=ready, metrics_port=metrics_port)


def _end_with_stdin() -> None:
    """Wait until whoever holds the other end of standard input is gone, however it ended, then end in good order."""
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
