"""Generate ``keystead/v1`` from ``protos/``: messages, their types, gRPC stubs and the stubs' types.

The proto package ``keystead.v1`` becomes the Python package of that name only when it is generated into the repository
root; anywhere else the real package ``keystead`` would hide it. So what is generated is committed, and ``--check``
generates again into a temporary folder and fails when the two differ.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
PACKAGE = Path("keystead/v1")

_SHOWN_LINES = 12


def generate(into: Path) -> None:
    """Run protoc on every proto file, writing below `into`.

    Raises:
        subprocess.CalledProcessError: protoc refused a file; it has printed why.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    # Beside the interpreter, not on PATH: another environment's plug-in would generate something else.
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    subprocess.run(
        [
            sys.executable,
            *("-m", "grpc_tools.protoc"),
            f"--proto_path={PROTOS}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy_grpc={plugin}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            f"--grpc_python_out={into}",
            f"--mypy_grpc_out=quiet,only_sync:{into}",
            *sources,
        ],
        check=True,
    )


def differences(committed: Path, generated: Path) -> list[str]:
    """What to change in `committed` to equal `generated`: a line for each file, and where it begins to differ."""
    lines: list[str] = []
    generated_names = {path.name for path in generated.iterdir()}
    # The package marker is ours; all else in the folder must be generated.
    committed_names = {path.name for path in committed.iterdir() if path.is_file()} - {"__init__.py"}
    lines += [
        f"{committed / name}: not generated from any proto; remove it" for name in committed_names - generated_names
    ]
    for name in sorted(generated_names):
        expected = (generated / name).read_text()
        actual = (committed / name).read_text() if name in committed_names else ""
        if actual != expected:
            lines.append(f"{committed / name}: not what the protos generate; run `make protos`")
            changes = difflib.unified_diff(actual.splitlines(), expected.splitlines(), lineterm="", n=1)
            lines += list(changes)[2 : 2 + _SHOWN_LINES]
    return lines


def main() -> int:
    """Generate, or compare with ``--check``; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with what is committed and write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        lines = differences(ROOT / PACKAGE, Path(folder) / PACKAGE)
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
