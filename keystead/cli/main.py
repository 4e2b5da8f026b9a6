"""The `keystead` command: finds the room that a command belongs to and loads nothing else.

Every room is a module with a typer application or a function. Only the one that the command line names is imported, so
that ``keystead --help`` is quick and that someone who installed one room can use it without the rest.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keystead.cli.exits import UNDECIDED, YES, describe, exit_code, wants_traceback

if TYPE_CHECKING:
    import typer

PROGRAM: Final = "keystead"


@dataclass(frozen=True, slots=True)
class Room:
    """One command of the top level.

    Attributes:
        module: where it lives.
        attribute: the typer application in it, or the function where the command has no commands of its own.
        summary: the line in ``keystead --help``.
        panel: under which heading it stands there.
        needs_arguments: whether a function without any argument shows its help.
    """

    module: str
    attribute: str
    summary: str
    panel: str
    needs_arguments: bool = True


_START: Final = "Begin here"
_BROKER: Final = "The broker"
_FACTORY: Final = "The factory, through a broker"
_OFFLINE: Final = "Offline: these need no broker"

ROOMS: Final[dict[str, Room]] = {
    "demo": Room(
        "keystead.cli.demo", "demo_app", "See it all work, in a temporary folder, with simulated TEEs.", _START, False
    ),
    "init": Room("keystead.cli.broker", "init_app", "Make a new installation: keys, certificates, database.", _BROKER),
    "serve": Room("keystead.cli.broker", "serve_app", "Run the broker of an installation.", _BROKER),
    "certificate": Room(
        "keystead.cli.certificate", "app", "Issue more client certificates of an installation.", _BROKER
    ),
    "site": Room("keystead.cli.site", "app", "Enrol sites: where hardware stands, under whose law.", _FACTORY),
    "node": Room("keystead.cli.node", "app", "Enrol nodes by their hardware identities.", _FACTORY),
    "asset": Room("keystead.cli.asset_import", "app", "Register models and datasets, their rules and keys.", _FACTORY),
    "job": Room(
        "keystead.cli.placement", "app", "Authorize jobs, plan where they run, look at them, end them.", _FACTORY
    ),
    "audit": Room("keystead.cli.audit_report", "app", "Ask the log who used what; prove and verify it.", _FACTORY),
    "evidence": Room("keystead.cli.evidence", "app", "Verify and inspect attestation evidence.", _OFFLINE),
    "reference": Room("keystead.cli.reference", "app", "Sign and check reference values and advisories.", _OFFLINE),
    "policy": Room("keystead.cli.policy", "app", "Check, test, build and evaluate Rego policies.", _OFFLINE),
    "seal": Room("keystead.cli.seal", "seal_app", "Seal files: weights, datasets, checkpoints.", _OFFLINE),
    "open": Room("keystead.cli.seal", "open_app", "Open or verify sealed files.", _OFFLINE),
}


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code (`keystead.cli.exits`); nothing is raised."""
    arguments = list(arguments)
    try:
        return _invoke(arguments)
    except KeyboardInterrupt as error:
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the one place where an error becomes a line and an exit code
        return _fail(error, as_json="--json" in arguments)


def main() -> None:
    """The entry point of the ``keystead`` command."""
    sys.exit(run(sys.argv[1:]))


def version() -> str:
    """The installed version; ``uninstalled`` where Keystead runs from its source tree."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(PROGRAM)
    except PackageNotFoundError:
        return "uninstalled"


def _invoke(arguments: list[str]) -> int:
    import typer

    wanted = next((word for word in arguments if not word.startswith("-")), None)
    # Panels are for terminals; in a pipe help is plain text.
    markup = "rich" if sys.stdout.isatty() else None
    app = typer.Typer(
        name=PROGRAM,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=markup,  # type: ignore[arg-type]  # a Literal that typer does not export
        context_settings={"help_option_names": ["-h", "--help"]},
        help=(
            "The trust plane of a sovereign AI factory: proves what a node is, decides what a job may touch, releases "
            "the keys, and remembers every use.\n\nExit codes: 0 yes, 1 no, 2 wrong use or no answer. Every command "
            "has --json and --help."
        ),
    )

    def print_version(*, wanted: bool) -> None:
        if wanted:
            sys.stdout.write(f"{PROGRAM} {version()}\n")
            raise typer.Exit(YES)

    @app.callback()
    def root(
        *,
        show_version: bool = typer.Option(
            False,
            "--version",
            callback=lambda wanted: print_version(wanted=wanted),
            is_eager=True,
            help="Print the version.",
        ),
    ) -> None:
        del show_version

    for name, room in ROOMS.items():
        _mount(app, name, room, load=name == wanted)
    command = typer.main.get_command(app)
    try:
        command.main(args=arguments, prog_name=PROGRAM)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else UNDECIDED if stop.code else YES
    return YES


def _mount(app: typer.Typer, name: str, room: Room, *, load: bool) -> None:
    import typer

    if not load:

        def stub() -> None:
            """Stands in the list of commands for a room that is not loaded."""

        app.command(name, help=room.summary, rich_help_panel=room.panel)(stub)
        return
    loaded: typer.Typer | Callable[..., object] = getattr(importlib.import_module(room.module), room.attribute)
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=name)
    else:
        app.command(name, no_args_is_help=room.needs_arguments)(loaded)


def _fail(error: Exception, *, as_json: bool) -> int:
    code, message = describe(error)
    if wants_traceback():
        traceback.print_exception(error)
    reasons = getattr(error, "reasons", ())
    try:
        from keystead.cli.output import print_error

        print_error(code, message, reasons=reasons, as_json=as_json)
    except ModuleNotFoundError:
        # Without the cli extra there is no table to print; the line must still come out.
        sys.stderr.write(f"{code}: {message}\n")
    return exit_code(error)


if __name__ == "__main__":
    main()
