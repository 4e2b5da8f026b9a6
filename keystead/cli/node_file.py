"""Files of nodes to enrol, CSV or JSON: a million lines in bounded memory, and every mistake by its line.

CSV (RFC 4180, UTF-8) has a header and one line for each device; a node's lines stand together::

    node,site,slot,identity,rack
    ber1-n01,ber1,cpu0,amd-chip-id:9f3a…,r07
    ber1-n01,ber1,gpu0,nvidia-gpu:41c7…,

``partition``, ``custody``, ``rack``, ``power_zone``, ``cooling_zone`` and ``network_zone`` may be there; they are the
node's, so its later lines repeat them or leave them empty. JSON is an array of objects, or objects one after the
other, with the same names and ``devices``, an object from slot to identity.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from keybroker import estate
from keybroker.errors import InvalidRequestError
from keybroker.store.schema import Custody
from keystead.v1 import node_service_pb2 as pb

NEEDED: Final = ("node", "site", "slot", "identity")
OPTIONAL: Final = ("partition", "custody", "rack", "power_zone", "cooling_zone", "network_zone")

MAX_LINE: Final = 64 << 10
"""Bytes of one line."""

MAX_OBJECT: Final = 256 << 10
"""Characters of one JSON object, white space included."""

_CUSTODIES: Final = {
    Custody.IN_TRANSIT: pb.NODE_CUSTODY_IN_TRANSIT,
    Custody.INSTALLED: pb.NODE_CUSTODY_INSTALLED,
    Custody.MAINTENANCE: pb.NODE_CUSTODY_MAINTENANCE,
    Custody.DECOMMISSIONED: pb.NODE_CUSTODY_DECOMMISSIONED,
}
_INDEX: Final = re.compile(r"node\.devices\[([0-9]+)\](?:\.([a-z]+))?\Z")
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class FileProblem(Exception):  # noqa: N818 - it is one of many, and is told, not raised to the user
    """What is wrong with a file, and where.

    Attributes:
        line: from 1.
        field: the column or member; empty where it is the line as a whole.
        code: a stable code.
        message: what is wrong.
        last: nothing after it can be read.
    """

    def __init__(
        self, line: int, field: str, message: str, *, code: str = "INVALID_REQUEST", last: bool = False
    ) -> None:
        super().__init__(message)
        self.line = line
        self.field = field
        self.code = code
        self.message = message
        self.last = last


@dataclass(slots=True)
class FileNode:
    """A node as a file has it.

    Attributes:
        line: where it begins.
        values: its members by their names in the file, devices left out.
        devices: slot, identity and line of each device.
    """

    line: int
    values: dict[str, str]
    devices: list[tuple[str, str, int]] = field(default_factory=list)


def read_nodes(
    source: BinaryIO,
    *,
    form: str,
    problem: Callable[[FileProblem], None],
    progress: Callable[[int], None] | None = None,
) -> Iterator[pb.ImportedNode]:
    """The nodes of a file, checked one by one; those with a mistake are left out, and the mistake is told.

    Args:
        source: the file.
        form: ``csv`` or ``json``.
        problem: is told every mistake, in the order of the lines.
        progress: is told how many bytes were read since the last time.
    """
    lines = _lines(source, progress)
    try:
        for node in _csv_nodes(lines, problem) if form == "csv" else _json_nodes(lines, problem):
            message = _checked(node, problem)
            if message is not None:
                yield message
    except FileProblem as error:
        problem(error)


def _lines(source: BinaryIO, progress: Callable[[int], None] | None) -> Iterator[str]:
    number = 0
    unread = 0
    while data := source.readline(MAX_LINE + 1):
        number += 1
        if len(data) > MAX_LINE:
            raise FileProblem(number, "", f"more than {MAX_LINE} bytes in one line", last=True)
        unread += len(data)
        if progress is not None and unread > MAX_LINE:
            progress(unread)
            unread = 0
        try:
            text = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FileProblem(number, "", f"not UTF-8, at byte {error.start + 1} of the line", last=True) from None
        if "\0" in text:
            raise FileProblem(number, "", "a NUL character", last=True)
        yield text
    if progress is not None:
        progress(unread)


def _csv_nodes(lines: Iterator[str], problem: Callable[[FileProblem], None]) -> Iterator[FileNode]:
    reader = csv.reader(lines, strict=True)
    rows = _csv_rows(reader)
    number, header = next(rows, (1, []))
    columns = [name.strip() for name in header]
    missing = [name for name in NEEDED if name not in columns]
    unknown = [name for name in columns if name not in NEEDED + OPTIONAL]
    if missing or unknown or len(set(columns)) != len(columns):
        what = (
            f"no column {missing[0]}" if missing else f"{unknown[0]!r:.40} is no column" if unknown else "twice there"
        )
        raise FileProblem(
            number,
            (unknown or missing or [""])[0][:40],
            f"{what}: columns are {', '.join(NEEDED + OPTIONAL)}",
            last=True,
        )
    node: FileNode | None = None
    broken = ""
    for number, row in rows:
        if len(row) != len(columns):
            problem(FileProblem(number, "", f"{len(row)} fields, the header has {len(columns)}"))
            # Its node would be told to lack a device, or be enrolled without it.
            broken = row[columns.index("node")] if len(row) > columns.index("node") else broken
            continue
        values = dict(zip(columns, row, strict=True))
        slot, identity = values.pop("slot"), values.pop("identity")
        if node is None or values["node"] != node.values["node"]:
            if node is not None and node.values["node"] != broken:
                yield node
            node = FileNode(number, values)
        else:
            for name, value in values.items():
                if value and value != node.values[name]:
                    problem(
                        FileProblem(number, name, f"{value!r:.40}, but {node.values[name]!r:.40} at line {node.line}")
                    )
                    broken = node.values["node"]
        node.devices.append((slot, identity, number))
    if node is not None and node.values["node"] != broken:
        yield node


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the line that each begins on."""
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise FileProblem(reader.line_num, "", f"not CSV: {error}", last=True) from None
        if row:
            yield begins, row


def _json_nodes(lines: Iterator[str], problem: Callable[[FileProblem], None]) -> Iterator[FileNode]:
    for line, document in _json_values(lines):
        try:
            yield _json_node(line, document)
        except FileProblem as error:
            problem(error)


def _json_node(line: int, document: object) -> FileNode:
    if not isinstance(document, dict):
        raise FileProblem(line, "", "not an object")
    known = {"node", "site", "devices", *OPTIONAL}
    for name in document:
        if name not in known:
            raise FileProblem(line, str(name)[:40], f"no such member; known are {', '.join(sorted(known))}")
    values: dict[str, str] = {}
    for name in ("node", "site", *OPTIONAL):
        value = document.get(name, None if name in NEEDED else "")
        if not isinstance(value, str):
            raise FileProblem(line, name, "missing" if value is None else "not text")
        values[name] = value
    devices = document.get("devices")
    if not isinstance(devices, dict) or not all(isinstance(value, str) for value in devices.values()):
        raise FileProblem(line, "devices", 'not an object from slot to identity: {"cpu0": "amd-chip-id:HEX"}')
    return FileNode(line, values, [(slot, identity, line) for slot, identity in devices.items()])


def _json_values(lines: Iterator[str]) -> Iterator[tuple[int, object]]:
    """The values of an array, or values one after the other, each with the line that it begins on."""
    decoder = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse)
    text, line, array, count = "", 1, None, 0
    ended = False
    while True:
        match = _SPACE.match(text)
        skipped = match.end() if match is not None else 0
        line += text.count("\n", 0, skipped)
        text = text[skipped:]
        if not text:
            text = next(lines, "")
            if not text:
                break
            continue
        if ended:
            raise FileProblem(line, "", "something follows the array", last=True)
        if array is None:
            array = text[0] == "["
            text = text[1:] if array else text
            continue
        if array and text[0] == "]":
            ended, text = True, text[1:]
            continue
        if array and count:
            if text[0] != ",":
                raise FileProblem(line, "", "no comma between two objects", last=True)
            count, text = 0, text[1:]
            continue
        value, end, text = _decode_one(decoder, text, lines, line)
        yield line, value
        line += text.count("\n", 0, end)
        text = text[end:]
        count = 1
    if array and not ended:
        raise FileProblem(line, "", "the array does not end", last=True)


def _decode_one(decoder: json.JSONDecoder, text: str, lines: Iterator[str], line: int) -> tuple[object, int, str]:
    """Decode the value that `text` begins with, with more lines where it needs them."""
    while True:
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            more = ""
            if isinstance(error, json.JSONDecodeError):
                # An object over many lines: read as much again, so that its length decides the work, not its square.
                wanted = max(len(text), 1_024)
                while len(more) < wanted and (each := next(lines, "")):
                    more += each
            if not more or len(text) > MAX_OBJECT:
                at = line + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else line
                what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise FileProblem(at, "", f"not JSON: {what}", last=True) from None
            text += more
            continue
        if not isinstance(value, (dict, list, str)) and end == len(text) and (each := next(lines, "")):
            text += each  # a number may go on
            continue
        return value, end, text


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{doubled[:40]!r} is there twice in one object")
    return found


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no value")


def _checked(node: FileNode, problem: Callable[[FileProblem], None]) -> pb.ImportedNode | None:
    """The node as a message, or None where it has a mistake, which is told."""
    values = node.values
    devices = []
    lines = []
    for slot, identity, line in node.devices:
        kind, colon, value = identity.partition(":")
        if not colon:
            problem(FileProblem(line, "identity", f"{identity!r:.40}: write KIND:HEX, for example amd-chip-id:9f3a…"))
            return None
        devices.append(estate.Device(slot, kind, value.lower()))
        lines.append(line)
    try:
        custody = Custody(values.get("custody") or Custody.INSTALLED)
    except ValueError:
        known = ", ".join(Custody)
        problem(FileProblem(node.line, "custody", f"{values['custody']!r:.40}: known are {known}"))
        return None
    place = {name: values.get(name, "") for name in ("rack", "power_zone", "cooling_zone", "network_zone")}
    try:
        row = estate.check_node(
            node_id=values["node"],
            site_id=values["site"],
            devices=devices,
            partition=values.get("partition", ""),
            custody=custody,
            place=estate.Place(**place),
            now=0,
        )
    except InvalidRequestError as error:
        problem(_located(error, node.line, lines))
        return None
    at = {device.slot: line for device, line in zip(devices, lines, strict=True)}
    return pb.ImportedNode(
        line=node.line,
        node=pb.Node(
            node_id=row.node_id,
            site_id=row.site_id,
            devices=[_identity(device.slot, device.identity) for device in row.devices],
            partition=row.partition,
            custody=_CUSTODIES[custody],
            **place,
        ),
        device_lines=[at[device.slot] for device in row.devices],
    )


def _identity(slot: str, identity: str) -> pb.DeviceIdentity:
    kind, _, value = identity.partition(":")
    return pb.DeviceIdentity(slot=slot, kind=kind, value=value)


def _located(error: InvalidRequestError, line: int, lines: Iterable[int]) -> FileProblem:
    """A mistake in a node as one in its file: the device's own line, and the column's name."""
    message = str(error).removeprefix(f"{error.field}: ")
    match = _INDEX.match(error.field)
    if match is not None:
        column = "slot" if match[2] == "slot" else "identity"
        return FileProblem(list(lines)[int(match[1])], column, message)
    name = error.field.removeprefix("node.")
    return FileProblem(line, {"node_id": "node", "site_id": "site"}.get(name, name), message)
