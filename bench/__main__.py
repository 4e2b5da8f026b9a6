"""``python -m bench [name …]``: run every measurement, or those named, one after the other in one process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from bench.postgres import own_server

SUFFIX = "_bench"
NAMES = tuple(sorted(path.stem.removesuffix(SUFFIX) for path in Path(__file__).parent.glob(f"*{SUFFIX}.py")))
"""Each is a module `<name>_bench` that measures when it is run: exit code 0, or 2 when what it needs is missing."""

MISSING = 2


def run(name: str) -> int:
    """Run the module that measures `name` as a program; its exit code."""
    sys.argv = [f"{name}{SUFFIX}"]
    try:
        runpy.run_module(f"bench.{name}{SUFFIX}", run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def main(arguments: list[str]) -> int:
    """Run what `arguments` name, or everything; unknown names are refused before anything runs."""
    names = arguments or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        print(f"bench: no measurement called {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return MISSING
    failed = False
    with own_server():
        for number, name in enumerate(names):
            if number:
                print()
            print(f"── {name} ──", flush=True)
            # What is missing is said by the measurement itself and fails nothing but that measurement.
            failed |= run(name) not in {0, MISSING}
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
