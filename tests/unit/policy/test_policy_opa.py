"""The opa command line, run for real: found, pinned, and its own words in errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policy.capabilities import ALLOWED, render
from policy.errors import OpaError, OpaMissingError, OpaTimeoutError, OpaVersionError, PackRejectedError
from policy.opa import CAPABILITIES, OPA_VERSION, Opa
from policy.sources import PACKS, compile_pack, schemas_of, stage, workspace

RULE = """# METADATA
# entrypoint: true
decision := {"allow": false, "deny": [], "obligations": [], "policy_version": "p/1"}
"""


def pack(root: Path, text: str, **files: str) -> Path:
    folder = root / "p"
    folder.mkdir()
    (folder / "p.rego").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.rego").write_text(content)
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# --- Finding it: these need no opa ------------------------------------------------------------------------------------


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(OpaMissingError, match="go install"):
        Opa.find({"PATH": str(tmp_path), "HOME": str(tmp_path)})
    with pytest.raises(OpaMissingError, match="No such file"):
        Opa.find({"KEYSTEAD_OPA": str(tmp_path / "none")})


def test_another_version_is_refused(tmp_path: Path) -> None:
    old = script(tmp_path / "opa", "echo Version: 0.70.0")
    for environment in ({"KEYSTEAD_OPA": str(old)}, {"PATH": f"{tmp_path}:/bin", "HOME": str(tmp_path / "none")}):
        with pytest.raises(OpaVersionError, match=rf"0\.70\.0, expected {OPA_VERSION}"):
            Opa.find(environment)


def test_what_is_named_is_final_and_what_is_found_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "opa", "echo Version: 0.70.0")
    cache = tmp_path / "cache" / "keystead" / "opa" / OPA_VERSION
    cache.mkdir(parents=True)
    pinned = script(cache / "opa", f"echo Version: {OPA_VERSION}")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert Opa.find(environment).path.name == "opa"
    assert Opa.find({"KEYSTEAD_OPA": str(pinned)}).path == pinned
    with pytest.raises(OpaVersionError):
        Opa.find(environment | {"KEYSTEAD_OPA": str(tmp_path / "opa")})


def test_what_is_no_opa_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpaError, match="does not say its version"):
        Opa.find({"KEYSTEAD_OPA": str(script(tmp_path / "opa", "echo hello"))})
    with pytest.raises(OpaError, match="broken"):
        Opa.find({"KEYSTEAD_OPA": str(script(tmp_path / "opa", "echo broken >&2; exit 3"))})
    text = tmp_path / "text"
    text.write_text("not a program")
    with pytest.raises(OpaMissingError, match="Permission denied"):
        Opa.find({"KEYSTEAD_OPA": str(text)})


def test_it_must_finish_in_time(tmp_path: Path) -> None:
    slow = Opa(script(tmp_path / "opa", "exec sleep 60"), timeout=0.2)
    with pytest.raises(OpaTimeoutError, match=r"version took longer than 0\.2 s"):
        slow.version()


def test_answers_that_are_no_json_are_refused(tmp_path: Path) -> None:
    for answer in ("nonsense", "[]", '{"files": {}}', "7"):
        opa = Opa(script(tmp_path / "opa", f"echo '{answer}'"))
        with pytest.raises(OpaError):
            opa.test(tmp_path)
        if answer != '{"files": {}}':
            with pytest.raises(OpaError):
                opa.capabilities()


def test_the_allow_list_reaches_nothing_outside() -> None:
    names = {builtin["name"] for builtin in json.loads(CAPABILITIES.read_text())["builtins"]}
    assert names == ALLOWED.keys()
    outside = ("http", "net", "time", "rand", "uuid", "opa", "io", "crypto", "trace", "print", "regex", "json")
    assert not [name for name in names if name.split(".")[0] in outside]


# --- With opa ---------------------------------------------------------------------------------------------------------


@pytest.mark.opa
def test_the_capabilities_file_is_what_the_list_makes_of_opa(opa: Path) -> None:
    current = Opa(opa).capabilities()
    assert CAPABILITIES.read_text() == render(current)
    with pytest.raises(OpaError, match="walk"):
        render({**current, "builtins": [item for item in current["builtins"] if item["name"] != "walk"]})  # type: ignore[attr-defined]
    with pytest.raises(OpaError, match="no builtins"):
        render({})
    with pytest.raises(OpaError, match="template_strings"):
        render({**current, "features": []})


@pytest.mark.opa
@pytest.mark.parametrize(
    "call",
    [
        'http.send({"method": "get", "url": "http://localhost"})',
        "time.now_ns()",
        'rand.intn("x", 9)',
        "opa.runtime()",
        'regex.match("[", "x")',
        "to_number(input.x)",
        "input.x / input.y",
        'sprintf("%d", [1])',
    ],
)
def test_a_built_in_that_is_not_allowed_is_rejected(opa: Path, tmp_path: Path, call: str) -> None:
    folder = pack(tmp_path, f"package p\n\n{RULE}\nx := {call}\n")
    with pytest.raises(PackRejectedError, match=r"undefined function|rego_type_error"):
        Opa(opa).check(tmp_path)
    with pytest.raises(PackRejectedError, match=r"undefined function|rego_type_error"):
        compile_pack(Opa(opa), folder)


@pytest.mark.opa
def test_a_pack_that_misreads_its_input_is_rejected(opa: Path, tmp_path: Path) -> None:
    text = "# METADATA\n# schemas:\n#   - input: schema.release\npackage p\n\nx if input.grant.tenannt == 1\n"
    pack(tmp_path, text)
    with pytest.raises(PackRejectedError, match="tenannt"):
        Opa(opa).check(tmp_path, schemas=schemas_of(tmp_path))


@pytest.mark.opa
def test_strict_checking_refuses_what_is_unused(opa: Path, tmp_path: Path) -> None:
    pack(tmp_path, "package p\n\nx if {\n\ty := 1\n\ttrue\n}\n")
    with pytest.raises(PackRejectedError, match=r"p/p\.rego:4.*unused"):
        Opa(opa).check(tmp_path)


@pytest.mark.opa
def test_formatting(opa: Path, tmp_path: Path) -> None:
    folder = pack(tmp_path, "package p\nx:=1\n")
    assert [Path(name).name for name in Opa(opa).unformatted(tmp_path)] == ["p.rego"]
    assert len(Opa(opa).format(tmp_path)) == 1
    assert (folder / "p.rego").read_text() == "package p\n\nx := 1\n"
    assert Opa(opa).unformatted(tmp_path) == ()
    assert Opa(opa).format(tmp_path) == ()
    (folder / "p.rego").write_text("package")
    with pytest.raises(PackRejectedError, match="rego_parse_error"):
        Opa(opa).unformatted(tmp_path)


@pytest.mark.opa
def test_tests_must_pass_and_reach_every_line(opa: Path, tmp_path: Path) -> None:
    rules = 'package p\n\nx := "a" if input.a\n\ny if {\n\tinput.b\n\tinput.c\n}\n'
    folder = pack(tmp_path, rules, p_test='package p_test\n\ntest_x if data.p.x == "a" with input as {"a": true}\n')
    report = Opa(opa).test(tmp_path)
    assert report.passed == 1
    assert not report.ok
    assert report.not_covered == ("p/p.rego:5-5", "p/p.rego:6-6", "p/p.rego:7-7")
    with (folder / "p_test.rego").open("a") as file:
        file.write('\ntest_y if data.p.y with input as {"b": 1, "c": 1}\n')
    assert Opa(opa).test(tmp_path).ok
    with (folder / "p_test.rego").open("a") as file:
        file.write("\ntest_wrong if data.p.y\n\ntodo_test_skipped if true\n")
    failing = Opa(opa).test(tmp_path)
    assert not failing.ok
    assert set(failing.failed) == {"data.p_test.test_wrong", "data.p_test.todo_test_skipped"}
    (folder / "p_test.rego").unlink()
    untested = Opa(opa).test(tmp_path)
    assert untested.passed == 0
    assert not untested.ok


@pytest.mark.opa
def test_a_pack_of_ones_own_uses_the_shared_rules_that_ship(opa: Path, tmp_path: Path) -> None:
    own = tmp_path / "rego"
    own.mkdir()
    text = f"package p\n\nimport data.lib.residency\n\n{RULE}\nx if residency.place(input.x)\n"
    folder = pack(own, text, p_test='package p_test\n\ntest_x if data.p.x with input as {"x": "DE"}\n')
    with workspace(own) as root:
        assert root != own
        Opa(opa).check(root, schemas=schemas_of(root))
    bundle, tarball = compile_pack(Opa(opa), folder)
    assert bundle.packages == {"p", "lib"}
    assert "p/p_test.rego" not in bundle.files
    assert compile_pack(Opa(opa), folder) == (bundle, tarball)


@pytest.mark.opa
def test_where_it_is_built_does_not_matter(opa: Path, tmp_path: Path) -> None:
    built, _ = compile_pack(Opa(opa), PACKS / "release", shared=PACKS)
    assert min(built.files) == ".manifest"
    assert all(not name.startswith(("tmp", "/")) for name in built.files)
    staged = tmp_path / "staged"
    staged.mkdir()
    stage(PACKS / "release", into=staged)
    assert Opa(opa).evaluate(staged, query="data.release.allow", document=b"{}") is False
    assert Opa(opa).evaluate(staged, query="data.release.nothing", document=b"{}") is None


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackRejectedError, match="not a directory"):
        stage(tmp_path / "none", into=tmp_path)
    with pytest.raises(PackRejectedError, match="shared directory"):
        stage(PACKS / "lib", into=tmp_path)
    with pytest.raises(PackRejectedError, match="not a directory"), workspace(tmp_path / "none"):
        pass


@pytest.mark.opa
def test_strict_evaluation_halts_at_a_failing_built_in(opa: Path, tmp_path: Path) -> None:
    pack(tmp_path, "package p\n\nx := 1 / input.y\n\nz := [1, 2] if true\n")
    assert Opa(opa).evaluate(tmp_path, query="data.p.x", document=b'{"y":0}') is None
    with pytest.raises(PackRejectedError, match="divide by zero"):
        Opa(opa).evaluate(tmp_path, query="data.p.x", document=b'{"y":0}', strict=True)
    with pytest.raises(OpaError, match="no single value"):
        Opa(opa).evaluate(tmp_path, query="data.p.z[_]", document=b"{}")
