"""Clients in a process of their own, so that they share no interpreter lock with the broker they measure.

``python -m bench.broker_load`` reads a JSON object from standard input: `address`, the files `ca`, `certificate` and
`key`, `requests` (a file of requests, each a length in four bytes and the message) and `clients`. Each client is a
thread with a connection of its own. It prints ``ready``, waits for a line, sends every request once, and prints a JSON
object: `seconds` from the first request to the last answer, and `latencies`, one for each request.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from pathlib import Path

import grpc

from keystead.v1 import attestation_service_pb2, lease_service_pb2
from keystead.v1.attestation_service_pb2_grpc import AttestationServiceStub

ACQUIRE = "/keystead.v1.LeaseService/AcquireLease"
TIMEOUT = 60.0


def pack(messages: list[bytes]) -> bytes:
    """Messages as a file of requests."""
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def unpack(data: bytes) -> list[bytes]:
    """The messages of a file of requests."""
    messages, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        messages.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return messages


class Client:
    """One connection, and the requests that go over it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials, requests: list[bytes]) -> None:
        self.channel = grpc.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])
        # The handshake is over before the clock starts.
        AttestationServiceStub(self.channel).GetChallenge(
            attestation_service_pb2.GetChallengeRequest(), timeout=TIMEOUT
        )
        self.call = self.channel.unary_unary(ACQUIRE, request_serializer=bytes, response_deserializer=bytes)
        self.requests = requests
        self.latencies: list[float] = []
        self.last = b""

    def run(self) -> None:
        """Send every request, one after the other."""
        for request in self.requests:
            started = time.perf_counter()
            self.last = self.call(request, timeout=TIMEOUT)
            self.latencies.append(time.perf_counter() - started)


def main() -> int:
    """Connect, wait for the word, send, report."""
    order = json.loads(sys.stdin.readline())
    credentials = grpc.ssl_channel_credentials(
        Path(order["ca"]).read_bytes(), Path(order["key"]).read_bytes(), Path(order["certificate"]).read_bytes()
    )
    requests = unpack(Path(order["requests"]).read_bytes())
    count = order["clients"]
    clients = [Client(order["address"], credentials, requests[number::count]) for number in range(count)]
    threads = [threading.Thread(target=client.run) for client in clients]
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    latencies = [latency for client in clients for latency in client.latencies]
    for client in clients:
        if len(client.latencies) != len(client.requests):
            raise RuntimeError("a client was refused; its error is above")
        if not lease_service_pb2.AcquireLeaseResponse.FromString(client.last).keys:
            raise RuntimeError("a lease came without keys")
        client.channel.close()
    print(json.dumps({"seconds": seconds, "latencies": latencies}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
