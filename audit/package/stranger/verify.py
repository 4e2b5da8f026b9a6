"""Verify an evidence package with nothing of Keystead: Python 3.9 or newer, and its package `cryptography`.

    python3 verify.py VKEY [--witness VKEY ... --quorum N] [--show INDEX]

Run it in the unpacked folder. VKEY is the log's verifier key, NAME+KEYID+BASE64, which you got from somebody other than
whoever gave you the package. It prints what is proven, and ends with 0; or says what is wrong, and ends with 1.

This file came with the package, so read it before you believe it; it is short. What it does stands in VERIFY.md, so
that you can write your own, and verify.go does the same by modules of others.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEAD = ["log", "size", "asset", "tenant", "from", "until", "first", "end", "records"]


def need(holds, what):
    """End with 1 and say what is wrong, unless it holds."""
    if not holds:
        sys.exit(f"NOT VERIFIED: {what}")


def sha256(*parts):
    """SHA-256 of all parts, one behind the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def split_key(vkey, kind):
    """A verifier key (C2SP signed-note) as name, key id and 32 bytes; `kind` is 1 for a log, 4 for a witness."""
    name, key_id, data = vkey.strip().split("+", 2)
    raw = base64.b64decode(data, validate=True)
    need(raw[0] == kind and len(raw) == 33, f"{name}: not an Ed25519 key of type {kind}")
    need(sha256(name.encode(), b"\n", raw)[:4].hex() == key_id, f"{name}: the key id is not this key's")
    return name, bytes.fromhex(key_id), raw[1:]


def signatures(note, name, key_id):
    """The text of a signed note, and what the lines of one key say."""
    text, _, tail = note.decode().rpartition("\n\n")
    found = []
    for line in tail.splitlines():
        dash, who, data = line.split(" ")
        raw = base64.b64decode(data, validate=True)
        if dash == "\u2014" and who == name and raw[:4] == key_id:
            found.append(raw[4:])
    return text + "\n", found


def signed(note, vkey, what):
    """The text of a note, once the log's key is seen to have signed it."""
    name, key_id, key = split_key(vkey, 1)
    text, lines = signatures(note, name, key_id)
    need(lines, f"{what}: not signed by {name}")
    for line in lines:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(line, text.encode())
        except InvalidSignature:
            need(False, f"{what}: the signature by {name} is bad")
    return text


def cosigned(note, vkey):
    """Whether a witness cosigned a checkpoint (C2SP tlog-cosignature)."""
    name, key_id, key = split_key(vkey, 4)
    text, lines = signatures(note, name, key_id)
    for line in lines:
        (time,) = struct.unpack(">Q", line[:8])
        try:
            message = f"cosignature/v1\ntime {time}\n{text}".encode()
            Ed25519PublicKey.from_public_bytes(key).verify(line[8:], message)
        except InvalidSignature:
            need(False, f"checkpoint: the cosignature by {name} is bad")
    return bool(lines)


def checkpoint(file, vkey):
    """Size and root hash of a checkpoint (C2SP tlog-checkpoint)."""
    with open(file, "rb") as source:
        text = signed(source.read(), vkey, file)
    origin, size, root = text.splitlines()
    need(origin == vkey.split("+")[0], f"{file}: of the log {origin}")
    return int(size), base64.b64decode(root, validate=True)


def included(leaf, index, size, proof, root):
    """Whether a leaf stands at an index under a root (RFC 9162 section 2.1.3.2)."""
    fn, sn, result = index, size - 1, leaf
    for item in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            result = sha256(b"\x01", item, result)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            result = sha256(b"\x01", result, item)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and index < size and result == root


def continues(old, new, proof):
    """Whether a tree of a size and root continues an older one (RFC 9162 section 2.1.4.2)."""
    (old_size, old_root), (new_size, new_root) = old, new
    if old_size in (0, new_size):
        return not proof and (old_size == 0 or old_root == new_root)
    if not proof or old_size > new_size:
        return False
    path = proof if old_size & (old_size - 1) else [old_root, *proof]
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for item in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = sha256(b"\x01", item, first), sha256(b"\x01", item, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = sha256(b"\x01", second, item)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root


def leaf_hash(salt, record):
    """The hash that the tree has for a record: of a labelled envelope that commits to salt and record."""
    label = b"keystead/v1/audit-leaf"
    head = struct.pack(">H", len(label)) + label + struct.pack(">HI", 1, 32)
    return sha256(b"\x00", head, sha256(salt, record))


def manifest(vkey):
    """The values of the signed manifest, once every file is seen to be what it names."""
    with open("manifest", "rb") as source:
        lines = signed(source.read(), vkey, "manifest").splitlines()
    need(lines[0] == "keystead evidence package v1", "manifest: of another version")
    values = dict(line.split(" ", 1) for line in lines[1 : len(HEAD) + 1])
    need(list(values) == HEAD and values["log"] == vkey.split("+")[0], "manifest: of another log or form")
    names = {"manifest"}
    for line in lines[len(HEAD) + 1 :]:
        digest, size, name = line.split(" ")
        need(re.fullmatch(r"[A-Za-z][A-Za-z.-]*", name) and name not in names, f"manifest: a file named {name!r}")
        names.add(name)
        found = hashlib.sha256()
        with open(name, "rb") as source:
            for piece in iter(lambda source=source: source.read(1 << 20), b""):
                found.update(piece)
        need(found.hexdigest() == digest and os.path.getsize(name) == int(size), f"{name}: not what was signed")
    need(set(os.listdir(".")) == names, f"files that nothing vouches for: {sorted(set(os.listdir('.')) ^ names)}")
    return values


def main():
    """Verify the package in this folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vkey")
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int)
    parser.add_argument("--show", type=int, metavar="INDEX")
    options = parser.parse_args()

    values = manifest(options.vkey)
    new = checkpoint("checkpoint", options.vkey)
    size, root = new
    need(size == int(values["size"]), "checkpoint: of another size than the manifest says")
    with open("checkpoint", "rb") as source:
        note = source.read()
    watched = sum(cosigned(note, vkey) for vkey in dict.fromkeys(options.witness))
    needed = len(options.witness) if options.quorum is None else options.quorum
    need(watched >= needed, f"checkpoint: cosigned by {watched} of the witnesses, {needed} are needed")
    with open("package.json", "rb") as source:
        about = json.load(source)
    for name, proof in sorted(about["consistency_proofs"].items()):
        old = checkpoint(name, options.vkey)
        proven = continues(old, new, [base64.b64decode(item) for item in proof])
        need(proven, f"{name}: the log does not continue it")
        print(f"the log only grew since its {old[0]} entries of {name}")

    first, end, before = int(values["first"]), int(values["end"]), int(values["first"]) - 1
    whole = values["asset"] == values["tenant"] == "*"
    count, readable = 0, 0
    with open("records.jsonl", "rb") as source:
        for line in source:
            item = json.loads(line)
            index = item["index"]
            need(before < index < end and (not whole or index == before + 1), f"entry {index}: out of its place")
            before, count = index, count + 1
            proof = [base64.b64decode(each) for each in item["inclusion_proof"]]
            leaf = bytes.fromhex(item["leaf_hash"])
            need(included(leaf, index, size, proof, root), f"entry {index}: not under the checkpoint")
            if item["record"] is not None:
                # A record's bytes are canonical JSON: sorted names, no white space.
                record = json.dumps(item["record"], sort_keys=True, separators=(",", ":")).encode()
                salt = base64.b64decode(item["salt"])
                need(leaf == leaf_hash(salt, record), f"entry {index}: the record is not what was signed")
                readable += 1
            if index == options.show:
                print(json.dumps(item["record"], indent=2))
    need(count == int(values["records"]), f"records: {count} are here, {values['records']} were signed")
    need(not whole or first == end or before == end - 1, f"entry {before + 1}: missing")

    print(f"log {values['log']}: {size} entries under root {root.hex()}, cosigned by {watched} of your witnesses")
    print(f"about asset {values['asset']}, tenant {values['tenant']} (* is all), entries {first} to before {end}")
    print(f"VERIFIED: {count} records, {readable} of them readable")
    for gap in about["gaps"]:
        print(f"gap {gap['code']}: {gap['count']}")


if __name__ == "__main__":
    main()
