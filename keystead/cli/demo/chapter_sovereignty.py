"""The demo, chapter 5: data of two laws meet in a checkpoint, which nobody opens outside what both permit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Final

from attester.errors import AccessDeniedError, RequestRefusedError
from attester.output import register_output
from keybroker.approvers import ApproverSet
from keybroker.constraints import Areas, Constraints
from keybroker.declassification import Declassification
from keybroker.keys.signing import SigningKey
from keybroker.services.convert import constraints as constraints_of
from keybroker.statements import Statement
from keystead.binding import AssetRef, hpke_seal, owner_key_info, sha256
from keystead.cli import instants
from keystead.cli.connection import request_id
from keystead.cli.demo.factory import ABROAD, BETWEEN, GOOD, SITES
from keystead.cli.demo.stage import GRANTED, MODEL, PURPOSE, REFUSED, TENANT, Job, Stage, attempt, ref_message
from keystead.v1 import asset_service_pb2, constraints_pb2, placement_service_pb2
from keystead.v1 import declassification_service_pb2 as declassification_pb2
from sealed.format import KEY_SIZE, key_id

EUROPEAN: Final = AssetRef(f"{TENANT}/patients-eu", 1)
AMERICAN: Final = AssetRef(f"{TENANT}/trials-us", 1)
CHECKPOINT: Final = AssetRef(f"{TENANT}/diagnosis", 1)

_DEMANDS: Final = {EUROPEAN: ("EEA", "GDPRADEQUACY"), AMERICAN: ("CH", "US")}
"""Where each dataset may be opened: in one of these areas."""

_TRAINING: Final = "pretraining"
_PURPOSES: Final = (PURPOSE, _TRAINING)
_OWNER: Final = "owner"
"""The owner's name, as in the certificate."""

_APPROVERS: Final = ("legal", "privacy")
_SECONDS: Final = 3_600
_TOKENS: Final = 1_000


def meet(stage: Stage) -> None:
    """Tell it: where both may be used, what came of both, and what it takes to go elsewhere."""
    tell = stage.narrator
    tell.chapter(5, "Data of two laws meet")
    for ref, areas in _DEMANDS.items():
        _register(stage, ref, areas)
    tell.says(
        "owner", "registers two datasets. Each says where it may be opened; nobody but their owner can relax that"
    )
    tell.table(
        ("data", "may be opened in", *SITES),
        ((ref, " or ".join(areas), *_permitted(ref)) for ref, areas in _DEMANDS.items()),
    )
    attempt(
        tell,
        "nothing-satisfies-both",
        actor="scheduler",
        what=f"asks for {MODEL.asset}, which is for the EU alone, together with {AMERICAN.asset}",
        action=lambda: stage.authorize("slurm:4720", MODEL, AMERICAN),
        codes={"CONSTRAINTS_CONFLICT"},
    )
    _train(stage)
    again = stage.authorize("slurm:4722", CHECKPOINT)
    _plan(stage, again)
    _refused_at(stage, again, GOOD, "checkpoint-not-in-germany", "the American data's owner never named Germany")
    _refused_at(stage, again, ABROAD, "checkpoint-not-in-america", "the European data's owner never named the US")
    _opened_at(stage, again, BETWEEN, "checkpoint-opens-between", "Switzerland is what both permit")
    _declassify(stage)
    _opened_at(stage, again, GOOD, "checkpoint-after-declassification", "what was agreed holds from now on")
    _refused_at(stage, again, ABROAD, "declassified-no-further", "and nothing more than was agreed")
    _spend(stage)


def _register(stage: Stage, ref: AssetRef, areas: tuple[str, ...]) -> None:
    owner = stage.owner
    owner.call(
        owner.assets.RegisterAsset,
        asset_service_pb2.RegisterAssetRequest(
            request_id=request_id(),
            asset=ref.asset,
            kind=asset_service_pb2.ASSET_KIND_DATASET,
            constraints=constraints_pb2.Constraints(
                classification=3,
                purposes=constraints_pb2.NameSet(names=_PURPOSES),
                residency=constraints_pb2.Areas(allowed=[constraints_pb2.AreaClause(areas=areas)]),
            ),
        ),
    )
    # The files themselves play no part here: who has the key can open them.
    key = os.urandom(KEY_SIZE)
    wrapping = owner.call(owner.assets.GetWrappingKey, asset_service_pb2.GetWrappingKeyRequest())
    info = owner_key_info(broker=wrapping.broker, ref=ref, key_id=key_id(key))
    owner.call(
        owner.assets.AddAssetVersion,
        asset_service_pb2.AddAssetVersionRequest(
            request_id=request_id(),
            ref=ref_message(ref),
            key_id=key_id(key),
            manifest_digest=sha256(str(ref).encode("ascii")),
            wrapped_key=hpke_seal(key, public_key=wrapping.hpke_key, info=info),
        ),
    )


def _permitted(ref: AssetRef) -> tuple[str, ...]:
    """For people: at which sites a dataset may be opened."""
    reached = {EUROPEAN: ("DE", "CH"), AMERICAN: ("US", "CH")}[ref]
    return tuple("yes" if jurisdiction in reached else "no" for jurisdiction, _, _ in SITES.values())


def _train(stage: Stage) -> None:
    """A job that was granted both makes a checkpoint."""
    job = stage.authorize("slurm:4721", EUROPEAN, AMERICAN, purpose=_TRAINING)
    with stage.acquire(stage.factory.machines[BETWEEN], job, BETWEEN, EUROPEAN, AMERICAN) as lease:
        made = register_output(
            lease,
            CHECKPOINT,
            data_key=os.urandom(KEY_SIZE),
            manifest_digest=sha256(b"a checkpoint of no meaning"),
            kind="checkpoint",
        )
    stage.narrator.says(
        BETWEEN, f"in Switzerland gets both keys, trains, and registers {CHECKPOINT}; it does not say from what"
    )
    stage.narrator.outcome(
        "checkpoint-inherits-from-both",
        expected=f"{EUROPEAN}, {AMERICAN}",
        actual=", ".join(map(str, made.parents)),
        text="the broker knows: it comes from every key that the job was granted, and demands all that these demand",
    )


def _plan(stage: Stage, job: Job) -> None:
    """Before anything is queued: where the job may run, and why nowhere else."""
    stage.narrator.says("scheduler", f"asks where {job.job_uid} may run, before a node is taken for it")
    plan = stage.scheduler.call(
        stage.scheduler.placement.PlanPlacement, placement_service_pb2.PlanPlacementRequest(job_uid=job.job_uid)
    )
    stage.narrator.table(
        ("site", "law", "nodes", "eligible", "why not the others"),
        (
            (
                site.site_id,
                site.jurisdiction,
                site.nodes,
                site.eligible,
                ", ".join(sorted({reason.code for each in site.ineligible for reason in each.reasons})),
            )
            for site in plan.sites
        ),
    )
    stage.narrator.outcome(
        "plan-names-the-one-site",
        expected=stage.factory.machines[BETWEEN].site,
        actual=", ".join(site.site_id for site in plan.sites if site.eligible),
        text="one site is eligible; the reasons are those that a node there would be given",
    )


def _spend(stage: Stage) -> None:
    """What may be made of the checkpoint is bounded, and then it is over."""
    owner = stage.owner
    owner.call(
        owner.assets.ConstrainAsset,
        asset_service_pb2.ConstrainAssetRequest(
            request_id=request_id(),
            asset=CHECKPOINT.asset,
            version=CHECKPOINT.version,
            constraints=constraints_pb2.Constraints(budgets={"tokens_served": _TOKENS}),
        ),
    )
    stage.narrator.says(
        "owner", f"demands more of {CHECKPOINT}, alone: at most {_TOKENS} tokens may ever be made of it"
    )
    job = stage.authorize("slurm:4723", CHECKPOINT)
    lease = stage.acquire(stage.factory.machines[BETWEEN], job, BETWEEN, CHECKPOINT)
    lease.count(CHECKPOINT, tokens=_TOKENS)
    lease.report()
    attempt(
        stage.narrator,
        "budget-runs-out",
        actor=BETWEEN,
        what=f"reports {_TOKENS} tokens, signed by its attested key, and asks for its lease to be renewed",
        action=lease.renew,
        codes={"BUDGET_SPENT"},
    )


def _refused_at(stage: Stage, job: Job, node: str, step: str, why: str) -> None:
    attempt(
        stage.narrator,
        step,
        actor=node,
        what=f"asks for the checkpoint: {why}",
        action=lambda: stage.acquire(stage.factory.machines[node], job, node, CHECKPOINT),
        codes={"JURISDICTION_NOT_PERMITTED"},
    )


def _opened_at(stage: Stage, job: Job, node: str, step: str, why: str) -> None:
    stage.narrator.says(node, f"asks for the checkpoint: {why}")
    try:
        with stage.acquire(stage.factory.machines[node], job, node, CHECKPOINT):
            actual, text = GRANTED, "the key is released, and on record"
    except AccessDeniedError as error:
        actual, text = REFUSED, str(error)
    stage.narrator.outcome(step, expected=GRANTED, actual=actual, text=text)


def _declassify(stage: Stage) -> None:
    """One person's word does not relax anything; two others' do."""
    owner, tell = stage.owner, stage.narrator
    keys = {name: SigningKey.generate() for name in (_OWNER, *_APPROVERS)}
    approvers = ApproverSet(
        tenant=TENANT,
        serial=1,
        threshold=2,
        keys={name: key.private_key.public_key().public_bytes_raw() for name, key in keys.items()},
        reason="any two of three",
        not_after=instants.now() + _SECONDS,
    ).statement(author=_OWNER)
    owner.call(
        owner.declassifications.SetApprovers,
        declassification_pb2.SetApproversRequest(request_id=request_id(), statement=approvers.payload),
    )
    proposal, statement = _proposal(stage)
    owner.call(
        owner.declassifications.ProposeDeclassification,
        declassification_pb2.ProposeDeclassificationRequest(request_id=request_id(), statement=statement.payload),
    )
    tell.says("owner", f"proposes, in one statement, what {CHECKPOINT} shall demand instead: {proposal.reason}")
    tell.table(
        ("field", "before", "after", "freer"),
        (
            (each.field, json.dumps(each.before), json.dumps(each.after), "yes" if each.relaxes else "no")
            for each in proposal.changes
        ),
    )

    def apply(*signers: str) -> None:
        owner.call(
            owner.declassifications.ApplyDeclassification,
            declassification_pb2.ApplyDeclassificationRequest(
                request_id=request_id(),
                statement=statement.payload,
                signatures=[statement.sign(keys[name].private_key, signer=name) for name in signers],
            ),
        )

    for signers, step, expected in (
        ((_OWNER, _APPROVERS[0]), "author-does-not-approve", REFUSED),
        (_APPROVERS, "two-others-approve", GRANTED),
    ):
        tell.says("approvers", f"{' and '.join(signers)} sign the statement, which shows all that it changes")
        try:
            apply(*signers)
            actual, text = GRANTED, "applied: by two who did not write it, in one transaction with its record"
        except RequestRefusedError as error:
            actual, text = REFUSED, f"{error}"
        tell.outcome(step, expected=expected, actual=actual, text=text)


def _proposal(stage: Stage) -> tuple[Declassification, Statement]:
    """The American data's owner gives way for this one checkpoint; what the European data demand stays."""
    asset = stage.owner.call(
        stage.owner.assets.GetAsset, asset_service_pb2.GetAssetRequest(asset=CHECKPOINT.asset)
    ).asset
    before: Constraints = constraints_of(asset.versions[0].constraints)
    proposal = Declassification(
        ref=CHECKPOINT,
        serial=1,
        before=before,
        after=replace(before, residency=Areas.of(_DEMANDS[EUROPEAN])),
        reason="no trial data can be had out of it, assessment 12",
        not_after=instants.now() + _SECONDS,
    )
    return proposal, proposal.statement(author=_OWNER)
