"""``python -m bench [name …]``: run every measurement, or those named, one after the other in one process."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

SUFFIX = "_bench"
NAMES = tuple(sorted(path.stem.removesuffix(SUFFIX) for path in Path(__file__).parent.glob(f"*{SUFFIX}.py")))
"""Each is a module `<name>_bench` with `main() -> int`: 0 when it measured, 2 when what it needs is missing."""


def load(name: str) -> ModuleType:
    """The module that measures `name`."""
    return import_module(f"bench.{name}{SUFFIX}")


def main(arguments: list[str]) -> int:
    """Run what `arguments` name, or everything; unknown names are refused before anything runs."""
    names = arguments or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        print(f"bench: no measurement called {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for number, name in enumerate(names):
        if number:
            print()
        print(f"── {name} ──", flush=True)
        # A measurement says for itself what it skipped; that is no failure of the others.
        load(name).main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
