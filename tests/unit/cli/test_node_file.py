"""Files of nodes: what is read, and every mistake by its line and column."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.cli.node_file import MAX_LINE, MAX_OBJECT, FileProblem, read_nodes
from keystead.v1 import node_service_pb2 as pb

CPU = "amd-chip-id:" + "ab" * 64
GPU = "nvidia-gpu:" + "cd" * 8
HEAD = "node,site,slot,identity\n"


def read(text: str | bytes, form: str = "csv") -> tuple[list[pb.ImportedNode], list[tuple[int, str, str]]]:
    """What is read, and the mistakes: line, field and message."""
    problems: list[FileProblem] = []
    data = text.encode() if isinstance(text, str) else text
    nodes = list(read_nodes(io.BytesIO(data), form=form, problem=problems.append))
    return nodes, [(each.line, each.field, each.message) for each in problems]


def cpu(number: int) -> str:
    """The identity of a CPU."""
    return f"amd-chip-id:{number:0128x}"


def test_csv_has_a_line_for_each_device() -> None:
    nodes, problems = read(
        f'\ufeffnode,site,slot,identity,rack,custody,partition\r\nn1,s1,gpu0,{GPU},"r, 7",,\r\n'.replace('"r, 7"', "r7")
        + f"n1,s1,cpu0,{CPU.upper().replace('AMD-CHIP-ID', 'amd-chip-id')},,in-transit,\r\n".replace("in-transit", "")
        + "\r\n"
        + f"n2,s1,cpu0,{cpu(2)},,maintenance,\r\n"
    )
    assert problems == []
    first, second = nodes
    assert (first.line, first.node.node_id, first.node.site_id, first.node.rack) == (2, "n1", "s1", "r7")
    assert [(device.slot, f"{device.kind}:{device.value}") for device in first.node.devices] == [
        ("cpu0", CPU),
        ("gpu0", GPU),
    ]
    assert list(first.device_lines) == [3, 2]
    assert (second.line, second.node.custody) == (5, pb.NODE_CUSTODY_MAINTENANCE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1, "node", "no column node")),
        ("node,site,slot\n", (1, "identity", "no column identity")),
        ("node,site,slot,identity,colour\n", (1, "colour", "'colour' is no column")),
        ("node,site,slot,identity,node\n", (1, "", "twice there")),
        (f"{HEAD}n1,s1,cpu0\n", (2, "", "3 fields, the header has 4")),
        (f"{HEAD}n1,s1,cpu0,{CPU},x\n", (2, "", "5 fields, the header has 4")),
        (f"{HEAD}n1,s1,cpu0,xyz\n", (2, "identity", "write KIND:HEX")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,gpu0,nvidia-gpu:xx\n", (3, "identity", "lower-case hex")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,cpu1,{cpu(1)}\n", (2, "devices", "exactly one CPU")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,disk0,{GPU}\n", (3, "slot", "gpu0 to gpu99")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,gpu0,tpu:aa\n", (3, "identity", "known are")),
        (f"{HEAD}n 1,s1,cpu0,{CPU}\n", (2, "node", "not an identifier")),
        (f"{HEAD}n1,,cpu0,{CPU}\n", (2, "site", "not an identifier")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s2,gpu0,{GPU}\n", (3, "site", "'s2', but 's1' at line 2")),
        (f"{HEAD}n1,s1,gpu0,{GPU}\n", (2, "devices", "exactly one CPU")),
        (f'{HEAD}n1,s1,cpu0,"{CPU}\n', (2, "", "not CSV")),
        (f'{HEAD}n1,s1,cpu0,"{CPU}"x\n', (2, "", "not CSV")),
        (f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,gpu0,\0\n", (3, "", "NUL")),
        (HEAD.encode() + b"n1,s1,cpu0,\xff\n", (2, "", "not UTF-8, at byte 12")),
        (HEAD + "x" * (MAX_LINE + 1), (2, "", "more than")),
        (f"node,site,slot,identity,custody\nn1,s1,cpu0,{CPU},lost\n", (2, "custody", "known are in-transit")),
        (f"node,site,slot,identity,partition\nn1,s1,cpu0,{CPU},p0\n", (2, "devices", "device of its own")),
        (f"node,site,slot,identity,rack\nn1,s1,cpu0,{CPU},a b\n", (2, "rack", "not an identifier")),
    ],
)
def test_csv_mistakes(text: str | bytes, expected: tuple[int, str, str]) -> None:
    nodes, problems = read(text)
    assert nodes == []
    (problem,) = problems
    assert problem[:2] == expected[:2]
    assert expected[2] in problem[2]


def test_every_mistake_is_told_and_the_rest_is_read() -> None:
    lines = [f"n{number},s1,cpu0,{cpu(number) if number % 3 else 'bad'}" for number in range(1, 10)]
    nodes, problems = read(HEAD + "\n".join(lines))
    assert [node.line for node in nodes] == [2, 3, 5, 6, 8, 9]
    assert [line for line, _, _ in problems] == [4, 7, 10]


def test_a_node_with_a_broken_line_is_not_read_without_it() -> None:
    nodes, problems = read(f"{HEAD}n1,s1,cpu0,{CPU}\nn1,s1,gpu0\nn2,s1,cpu0,{cpu(2)}\n")
    assert [node.node.node_id for node in nodes] == ["n2"]
    assert [line for line, _, _ in problems] == [3]


def member(number: int, **changes: Any) -> dict[str, Any]:
    """A node as JSON has it."""
    return {"node": f"n{number}", "site": "s1", "devices": {"cpu0": cpu(number)}} | changes


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_an_array_or_objects_in_a_row(indent: int | None) -> None:
    documents = [member(1), member(2, rack="r7", devices={"cpu0": CPU, "gpu0": GPU}), member(3)]
    row = "\n".join(json.dumps(each, indent=indent) for each in documents)
    for text in (json.dumps(documents, indent=indent), row, "\n" + row + "\n\n"):
        nodes, problems = read(text, "json")
        assert problems == []
        assert [node.node.node_id for node in nodes] == ["n1", "n2", "n3"]
        assert nodes[1].node.rack == "r7"
        assert [device.slot for device in nodes[1].node.devices] == ["cpu0", "gpu0"]
    lines = [node.line for node in read(row, "json")[0]]
    assert lines == ([1, 2, 3] if indent is None else [1, 8, 17])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[", (1, "", "does not end")),
        ("nope", (1, "", "not JSON")),
        ("[{}", (1, "node", "missing")),
        (json.dumps([member(1)]) + "x", (1, "", "something follows")),
        (f"[{json.dumps(member(1))} {json.dumps(member(2))}]", (1, "", "no comma")),
        ('{"node": "a", "node": "b"}', (1, "", "'node' is there twice")),
        ("[7]", (1, "", "not an object")),
        (json.dumps(member(1, colour="red")), (1, "colour", "no such member")),
        (json.dumps(member(1, node=7)), (1, "node", "not text")),
        (json.dumps(member(1, devices=[])), (1, "devices", "not an object from slot")),
        (json.dumps(member(1, devices={"cpu0": 7})), (1, "devices", "not an object from slot")),
        (json.dumps(member(1, devices={"cpu0": "x:1"})), (1, "identity", "known are")),
        ("\n\n" + json.dumps(member(1, custody="lost")), (3, "custody", "known are")),
        ("[\n" + json.dumps(member(1)) + ",\n{,\n]", (3, "", "not JSON")),
        ("[" * 50_000, (1, "", "not JSON")),
        ('{"node": "' + "x" * MAX_LINE, (1, "", "more than")),
        ('{"node":\n' + " \n" * MAX_OBJECT, (1, "", "not JSON")),
        ('{"node": NaN}', (1, "", "NaN is no value")),
    ],
)
def test_json_mistakes(text: str, expected: tuple[int, str, str]) -> None:
    _, problems = read(text, "json")
    assert problems[0][1] == expected[1]
    assert expected[2] in problems[0][2]
    if len(text) < MAX_OBJECT:
        assert problems[0][0] == expected[0]


@given(st.binary(max_size=300) | st.text(alphabet='{}[]",:n\n 1', max_size=200).map(str.encode))
def test_any_bytes_are_nodes_or_mistakes(data: bytes) -> None:
    for form in ("csv", "json"):
        _, problems = read(data, form)
        assert all(line >= 1 for line, _, _ in problems)
