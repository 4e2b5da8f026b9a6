"""The error trees: every class has a stable code of its own and stands in the tree that its module draws."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

TREES = ["attestation", "policy", "audit", "sealed", "keybroker", "attester"]


def classes(package):
    module = importlib.import_module(f"{package}.errors")
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("package", TREES)
def test_every_class_has_a_code_of_its_own(package):
    codes = {value.__name__: value.__dict__.get("code") for value in classes(package)}
    assert [name for name, code in codes.items() if not isinstance(code, str)] == []
    assert [code for code in codes.values() if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", code)] == []
    assert len(set(codes.values())) == len(codes)


@pytest.mark.parametrize("package", TREES)
def test_a_package_has_one_root(package):
    found = classes(package)
    roots = [value.__name__ for value in found if not set(value.__mro__[1:]) & set(found)]
    assert len(roots) == 1


@pytest.mark.parametrize("package", TREES)
def test_the_drawn_tree_is_the_real_one(package):
    drawn = importlib.import_module(f"{package}.errors").__doc__
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+)(?: {2,}.*)?$", drawn, re.MULTILINE)
    real = {value.__name__: value.__mro__[1].__name__ for value in classes(package)}
    parents = {}
    branch = []
    for prefix, name in lines:
        if name in real:
            depth = len(prefix) // 4
            branch[depth:] = [name]
            parents[name] = branch[depth - 1] if depth else None
    assert set(parents) == set(real)
    assert {name: parent for name, parent in parents.items() if parent} == {
        name: parent for name, parent in real.items() if parent in real
    }
