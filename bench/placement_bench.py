"""Where may a job run? One plan over 100 and over 10,000 nodes, and over 10,000 nodes in many states.

Run it as ``python -m bench placement``. CPU time of this process for one page of a plan: counting, and the release
policy's answers. Nodes that no policy can tell apart are asked about once, so what grows with the nodes is the counting
alone; what grows with the states is the asking.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from bench.broker_plant import ASSET, SCHEDULER, Plant, plant
from bench.harness import Row, interleave, table
from keybroker import jobs, placement
from keybroker.store import node_attestations, nodes
from keybroker.store.node_attestations import NodeAttestationRow
from keybroker.store.nodes import DeviceRow, NodeRow
from keybroker.store.schema import Custody, NodeState

NODES = 10_000
CHUNK = 1_000


def enrol(place: Plant, first: int, count: int, *, states: int, now: int) -> None:
    """Enrol `count` nodes from number `first` on, all but each tenth attested, in `states` kinds of state."""
    policy = bytes.fromhex(place.broker.policies.appraisal.digest)
    attested = NodeAttestationRow(
        node_id="",
        appraised_at=now,
        allow=True,
        status=2,
        simulated=True,
        assurance="simulated",
        tenant=None,
        host_data="",
        claimed_node_id="",
        matches=True,
        policy_digest=policy,
        document=bytes(32),
        codes=(),
        reason_codes=(),
        reasons="[]",
    )
    for start in range(first, first + count, CHUNK):
        numbers = range(start, min(start + CHUNK, first + count))
        rows = [
            NodeRow(
                node_id=f"plan-{number:06}",
                site_id="fra-1",
                state=NodeState.QUARANTINED if states > 1 and number % 50 == 0 else NodeState.ACTIVE,
                created_at=now,
                custody=Custody.MAINTENANCE if states > 1 and number % 33 == 0 else Custody.INSTALLED,
                devices=(DeviceRow(slot="cpu0", identity=f"amd-chip-id:{number:0128x}"),),
            )
            for number in numbers
        ]
        known = [
            replace(
                attested,
                node_id=f"plan-{number:06}",
                claimed_node_id=f"plan-{number:06}",
                appraised_at=now - 2 * number % 1_200,
                status=(2, 32)[states > 1 and number % 7 == 0],
            )
            for number in numbers
            if number % 10
        ]

        def unit(connection: Connection, rows: list[NodeRow] = rows, known: list[NodeAttestationRow] = known) -> None:
            nodes.insert_all(connection, rows)
            for each in known:
                node_attestations.put(connection, each)

        place.broker.commit(unit, timeout=120)


def measure() -> str:
    """The table."""
    now = int(time.time())
    with tempfile.TemporaryDirectory(prefix="keystead-bench-") as folder:
        rows = []
        baseline = None
        for name, count, states in (
            ("100 nodes, alike", 100, 1),
            ("10,000 nodes, alike", NODES, 1),
            ("10,000 nodes in many states", NODES, 2),
        ):
            with plant(Path(folder, f"{count}-{states}"), now=now) as place:
                enrol(place, 1, count, states=states, now=now)
                broker = place.broker
                grant, row = jobs.proposed(
                    broker,
                    caller=SCHEDULER,
                    job_uid="slurm:plan",
                    refs=[ASSET],
                    purposes=["inference"],
                    node_ids=[],
                    site_ids=[],
                    node_ceiling=8,
                    not_after=now + 3_600,
                    now=now,
                )
                subject = placement.proposed(broker, grant, row, now=now)

                def ask(place: Plant = place, subject: placement.Subject = subject) -> placement.Plan:
                    return placement.plan(place.broker, subject, after="", limit=100, now=now)

                found = ask().sites[0]
                if found.nodes < count or not found.attested:
                    raise RuntimeError(f"the plan counts {found.nodes} nodes, {found.attested} attested")
                timing = interleave({name: ask})[name]
                rows.append(Row(timing, baseline))
                baseline = baseline or timing
        return table("One plan for one asset at one site", rows)


if __name__ == "__main__":
    print(measure())
    sys.exit(0)
