"""The `opa` command line: the only subprocess of the policy room, pinned to one version.

Source: OPA 1.22.2, "CLI reference". Nothing here runs when a decision is made: packs are checked, tested and
compiled with it, and `policy.engine` evaluates what came out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from policy.errors import OpaError, OpaMissingError, OpaTimeoutError, OpaVersionError, PackRejectedError

OPA_VERSION: Final = "1.22.2"
"""The pinned version: the compiled packs, the capabilities file and the tests are made with it."""

CAPABILITIES: Final = Path(__file__).with_name("capabilities.json")
"""The allow-list of built-ins; `policy.capabilities` writes it and says why each one is there."""

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds that one call of opa may take."""

_HOW: Final = (
    f"set KEYSTEAD_OPA to an opa {OPA_VERSION}, put one on PATH, or run "
    f"`go install github.com/open-policy-agent/opa@v{OPA_VERSION}`"
)


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """What `opa test --coverage` found.

    Attributes:
        passed: number of tests that passed.
        failed: names of tests that failed, erred or were skipped.
        not_covered: ``file:first-last`` of every range that no test reached; OPA's percentage rounds (opa issue 6307).
    """

    passed: int
    failed: tuple[str, ...]
    not_covered: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True where there are tests, all passed, and every line was reached."""
        return self.passed > 0 and not self.failed and not self.not_covered


@dataclass(frozen=True, slots=True)
class Opa:
    """An `opa` of the pinned version.

    Attributes:
        path: the executable.
        timeout: seconds that one call may take.
    """

    path: Path
    timeout: float = DEFAULT_TIMEOUT

    @classmethod
    def find(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Find opa in ``$KEYSTEAD_OPA``, on ``PATH``, then in the caches (``.cache`` of the checkout, XDG, GOBIN).

        ``$KEYSTEAD_OPA`` is final: what it names is used or refused. Elsewhere another version is passed over.

        Raises:
            OpaMissingError: there is none.
            OpaVersionError: those that are there have another version.
        """
        env = os.environ if environment is None else environment
        named = env.get("KEYSTEAD_OPA")
        if named:
            return cls._pinned(Path(named))
        other: OpaVersionError | None = None
        for candidate in _candidates(env):
            try:
                return cls._pinned(candidate)
            except OpaVersionError as error:
                other = error
            except OpaMissingError:
                continue
        raise other or OpaMissingError(f"opa: not found; {_HOW}")

    @classmethod
    def _pinned(cls, path: Path) -> Self:
        opa = cls(path)
        found = opa.version()
        if found != OPA_VERSION:
            raise OpaVersionError(f"opa: {path} is version {found}, expected {OPA_VERSION}; {_HOW}")
        return opa

    def version(self) -> str:
        """The version that this opa says it has.

        Raises:
            OpaMissingError: it is not an executable file.
            OpaError: it answers something else.
        """
        for line in self._run(["version"]).splitlines():
            name, _, value = line.partition(":")
            if name == "Version":
                return value.strip()
        raise OpaError(f"opa: {self.path} does not say its version")

    def capabilities(self) -> dict[str, object]:
        """All capabilities of this version (``opa capabilities --current``)."""
        return _json_object(self._run(["capabilities", "--current"]))

    def check(self, packs: Path, *, schemas: Path | None = None, capabilities: Path = CAPABILITIES) -> None:
        """Compile every module under `packs` strictly: sources against JSON schemas and the allowed built-ins.

        Tests may use any built-in: they run in opa only.

        Raises:
            PackRejectedError: opa found fault; its own message says where.
        """
        strict = ["check", "--strict", "--bundle"]
        narrow = ["--capabilities", str(capabilities.resolve()), "--ignore", "*_test.rego"]
        if schemas is not None:
            narrow += ["--schema", str(schemas.resolve())]
        self._run([*strict, *narrow, "."], rejected=True, cwd=packs)
        self._run([*strict, "."], rejected=True, cwd=packs)

    def unformatted(self, packs: Path) -> tuple[str, ...]:
        """Files under `packs` that `opa fmt` would write differently.

        Raises:
            PackRejectedError: a file does not parse.
        """
        return tuple(self._run(["fmt", "--list", "."], rejected=True, cwd=packs).splitlines())

    def format(self, packs: Path) -> tuple[str, ...]:
        """Write every file under `packs` as `opa fmt` does; returns those that changed.

        Raises:
            PackRejectedError: a file does not parse.
        """
        changed = self.unformatted(packs)
        if changed:
            self._run(["fmt", "--write", "."], rejected=True, cwd=packs)
        return changed

    def test(self, packs: Path, *, exempt: Collection[str] = ()) -> CoverageReport:
        """Run every ``*_test.rego`` under `packs` and say what none of them reached.

        Args:
            packs: the Rego root.
            exempt: directories of the root whose lines need not be reached: their tests are elsewhere.

        Raises:
            PackRejectedError: the modules do not compile.
        """
        command = ["test", "--bundle", "--timeout", f"{self.timeout:g}s", "--format", "json", "."]
        outcome = self._call(command, cwd=packs)
        # 2: a test failed. Everything else that is not 0 means that no test ran.
        if outcome.returncode not in {0, 2}:
            raise PackRejectedError(_opa_text(outcome))
        results = _json_array(outcome.stdout)
        failed = tuple(
            f"{item['package']}.{item['name']}"
            for item in results
            if item.get("fail") or item.get("error") or item.get("skip")
        )
        if failed or outcome.returncode:
            return CoverageReport(passed=len(results) - len(failed), failed=failed or ("opa test",), not_covered=())
        coverage = _json_object(self._run([*command, "--coverage", "--coverage-runs="], rejected=True, cwd=packs))
        return CoverageReport(passed=len(results), failed=(), not_covered=_not_covered(coverage, exempt))

    def build(self, source: Path, *, output: Path, capabilities: Path = CAPABILITIES) -> None:
        """Compile the bundle directory `source` to Wasm; its one ``entrypoint: true`` annotation says what decides.

        Raises:
            PackRejectedError: opa found fault; its own message says where.
        """
        allowed = ["--capabilities", str(capabilities.resolve())]
        self._run(
            ["build", "--target", "wasm", *allowed, "--output", str(output.resolve()), "--bundle", "."],
            rejected=True,
            cwd=source,  # paths inside the bundle are then the same wherever it is built
        )

    def evaluate(self, source: Path, *, query: str, document: bytes, strict: bool = False) -> object | None:
        """The value of `query` over the bundle directory `source` and the input `document`; None where undefined.

        With `strict`, an error in a built-in is an error and not undefined.

        Raises:
            PackRejectedError: the modules do not compile, or a built-in failed under `strict`.
        """
        command = ["eval", "--format", "json", "--bundle", str(source), "--stdin-input"]
        if strict:
            command.append("--strict-builtin-errors")
        result = _json_object(self._run([*command, query], rejected=True, stdin=document)).get("result")
        match result:
            case None:
                return None
            case [{"expressions": [{"value": value}]}]:
                found: object = value
                return found
            case _:
                raise OpaError(f"opa: eval of {query} gave no single value")

    def _run(
        self, arguments: Sequence[str], *, rejected: bool = False, stdin: bytes = b"", cwd: Path | None = None
    ) -> str:
        outcome = self._call(arguments, stdin=stdin, cwd=cwd)
        if outcome.returncode:
            raise (PackRejectedError if rejected else OpaError)(_opa_text(outcome))
        return outcome.stdout.decode("utf-8", "replace")

    def _call(
        self, arguments: Sequence[str], *, stdin: bytes = b"", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        # wasm-opt would make the module depend on what else is installed: opa is asked without it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EXPERIMENTAL_WASM")}
        try:
            return subprocess.run(  # noqa: S603 - the pinned executable, arguments as a list, no shell
                [str(self.path), *arguments],
                input=stdin,
                capture_output=True,
                timeout=self.timeout,
                check=False,
                env=environment,
                cwd=cwd,
            )
        except subprocess.TimeoutExpired:
            raise OpaTimeoutError(f"opa: {arguments[0]} took longer than {self.timeout:g} s") from None
        except OSError as error:
            raise OpaMissingError(f"opa: {self.path}: {error.strerror}; {_HOW}") from None


def _candidates(env: Mapping[str, str]) -> list[Path]:
    home = env.get("HOME", "/nonexistent")
    cache = Path(env.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    on_path = shutil.which("opa", path=env.get("PATH", ""))
    places = [
        Path(__file__).parents[1] / ".cache" / "opa" / OPA_VERSION / "opa",
        cache / "keystead" / "opa" / OPA_VERSION / "opa",
        Path(env.get("GOBIN") or Path(env.get("GOPATH") or Path(home, "go"), "bin")) / "opa",
    ]
    return ([Path(on_path)] if on_path else []) + [place for place in places if place.is_file()]


def _opa_text(outcome: subprocess.CompletedProcess[bytes]) -> str:
    text = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
    return f"opa: {text[:4000] or f'exit status {outcome.returncode}'}"


def _json_object(text: str) -> dict[str, object]:
    value = _json(text)
    if not isinstance(value, dict):
        raise OpaError("opa: answered something that is not a JSON object")
    return value


def _json_array(text: bytes) -> list[dict[str, object]]:
    value = _json(text.decode("utf-8", "replace"))
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise OpaError("opa: answered something that is not a JSON array of objects")
    return value


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise OpaError(f"opa: answered something that is not JSON: {error}") from None
    return value


def _not_covered(report: Mapping[str, object], exempt: Collection[str]) -> tuple[str, ...]:
    files = report.get("files")
    if not isinstance(files, dict) or not files:
        raise OpaError("opa: the coverage report names no files")
    ranges: list[str] = []
    for name, file in sorted(files.items()):
        if name.endswith("_test.rego") or name.split("/")[0] in exempt:
            continue
        ranges += [f"{name}:{item['start']['row']}-{item['end']['row']}" for item in file.get("not_covered", [])]
    return tuple(ranges)
