"""The wheel: what it holds, what each room of it needs, and that the installed command runs away from the repository.

A room's environment is made of links to the distributions in the closure of its extra, as the wheel's own metadata
names it: what the development environment has beside them cannot be seen from there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["keystead", "attestation", "policy", "audit", "sealed", "keybroker", "attester"]
ROOMS = {
    "attestation": ["attestation"],
    "policy": ["policy"],
    "audit": ["audit"],
    "sealed": ["sealed"],
    "broker": ["keybroker"],
    "attester": ["attester"],
    "cli": ["keystead"],
}
OPTIONAL = {"objectstore": "keybroker.bucket_store"}
"""Modules that import what an extra of their own brings; whoever uses one imports it when it is asked for."""

# Imports every module below the named packages and prints the names; -S and -I keep the environment's own paths out.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.path[:0] = json.loads(sys.argv[1])
names = []
for package in json.loads(sys.argv[2]):
    module = importlib.import_module(package)
    names.append(package)
    for found in pkgutil.walk_packages(module.__path__, package + ".", onerror=lambda name: None):
        if found.name.rpartition(".")[2] == "__main__" or ".migrations" in found.name:
            continue  # programs, and Alembic's scripts, which run only inside it
        if found.name in sys.argv[3:]:
            continue
        importlib.import_module(found.name)
        names.append(found.name)
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("keystead-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def closure(unpacked: Path, extra: str) -> list[Distribution]:
    """The distributions that `pip install keystead[extra]` brings beside keystead itself."""
    (metadata,) = unpacked.glob("keystead-*.dist-info")
    pending = [("keystead", frozenset({extra}))]
    seen: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, Distribution] = {}
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "keystead":
            distribution: Distribution = PathDistribution(metadata)
        else:
            distribution = found[name] = Distribution.from_name(name)
        for text in distribution.requires or []:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": chosen}) for chosen in (extras or {""})):
                pending.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return list(found.values())


def link(distributions: list[Distribution], folder: Path) -> Path:
    """A folder with links to every top-level file and folder that the distributions installed."""
    folder.mkdir()
    for distribution in distributions:
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            target = Path(str(distribution.locate_file(top))).absolute()
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(target)
    return folder


def test_the_wheel_holds_every_tracked_file_of_the_packages_and_no_other(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *PACKAGES], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("NO GIT CHECKOUT: what is tracked is not known")
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert tracked - held == set(), "missing from the wheel: name their kind in pyproject.toml"
    untracked = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard", "--", *PACKAGES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert held - tracked - set(untracked.stdout.split("\0")) == set()


def test_the_wheel_holds_no_test_of_python_code(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name).name for name in archive.namelist()]
    assert [name for name in names if name.startswith(("test_", "conftest")) and name.endswith(".py")] == []


def import_all(unpacked: Path, folder: Path, extra: str, packages: list[str], *others: str) -> list[str]:
    """Import `packages` but for the modules `others`, with what `extra` brings alone; what was imported."""
    try:
        dependencies = closure(unpacked, extra)
    except PackageNotFoundError as error:
        pytest.fail(f"keystead[{extra}] needs {error.name}, which the development lock does not install")
    paths = [str(unpacked), str(link(dependencies, folder / "site"))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, json.dumps(paths), json.dumps(packages), *others],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("extra", "packages"), ROOMS.items(), ids=ROOMS)
def test_a_room_imports_with_its_own_extra_alone(unpacked, tmp_path, extra, packages):
    assert set(packages) <= set(import_all(unpacked, tmp_path, extra, packages, *OPTIONAL.values()))


@pytest.mark.parametrize(("extra", "module"), OPTIONAL.items(), ids=OPTIONAL)
def test_an_optional_module_imports_with_its_extra(unpacked, tmp_path, extra, module):
    assert module in import_all(unpacked, tmp_path, extra, [module.partition(".")[0]])


@pytest.fixture(scope="module")
def installed(wheel, unpacked, tmp_path_factory):
    """A clean environment with the wheel and the closure of keystead[all]; returns its bin folder."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")}))
    dependencies = link(closure(unpacked, "all"), folder / "site")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return python.parent


def test_the_installed_command_runs_away_from_the_repository(installed, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    where = subprocess.run(
        [installed / "python", "-c", "import attestation, keystead; print(attestation.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    done = subprocess.run(
        [installed / "keystead", "--help"], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    for command in ("demo", "serve", "evidence", "audit", "policy"):
        assert command in done.stdout
