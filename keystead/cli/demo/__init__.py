"""``keystead demo``: the whole product at work in a temporary folder, told as a story.

Everything runs as it would in a factory: a broker in a process of its own, mutual TLS on the loopback interface,
SQLite, the node's agent, sealed files, the log. Only the hardware is simulated (`keystead.cli.demo.factory`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli import output
from keystead.cli.exits import NO
from keystead.cli.output import JsonOption

_PREFIX: Final = "keystead-demo-"


def demo_app(
    *,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave everything in DIR, which must not be there yet.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See it all work in half a minute: attest, decide, release, audit.

    A broker starts in a process of its own; sites and nodes are enrolled; an owner seals a model for the EU; a job
    opens it on a sound node; everyone who should not have it is refused, with every reason; an auditor proves who used
    it. CPUs and GPUs are simulated. Nothing is left running, and nothing on disk without --keep.

    Exit codes: 0 everything went as the story says, 1 something did not, 2 it could not be told.
    """
    from keystead.cli.demo.narrator import Narrator
    from keystead.cli.demo.process import Stopped
    from keystead.cli.demo.story import Story

    narrator = Narrator(silent=as_json)
    with Stopped():
        if keep is None:
            with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
                Story(narrator, Path(name)).tell()
        else:
            keep.mkdir(parents=True, mode=0o700)
            Story(narrator, keep).tell()
    if as_json:
        output.print_json({"as_told": narrator.as_told, "steps": [outcome.to_json() for outcome in narrator.outcomes]})
    else:
        narrator.end(*(() if keep is None else (f"Everything is in {keep}: try `keystead serve {keep}/broker`.",)))
    if not narrator.as_told:
        raise typer.Exit(NO)
