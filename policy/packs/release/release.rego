# METADATA
# title: Release
# description: |
#   May this job have this asset's key on this node, now? Evaluated when a job is authorised (no node yet), when
#   somebody plans where it may run, when a lease is acquired, and when it is renewed. Every reason against it is given
#   at once.
# schemas:
#   - input: schema.release
#   - data.settings: schema.settings
# custom:
#   policy_version: release/2.1.0
package release

import data.lib.ar4si
import data.lib.denials
import data.lib.residency
import data.lib.shape

# METADATA
# title: Decision
# description: The decision document.
# entrypoint: true
decision := {
	"allow": allow,
	"deny": deny,
	"obligations": obligations,
	"policy_version": policy_version,
}

# METADATA
# title: Policy version
# description: This pack's own version, from the package's annotations.
policy_version := version if {
	some link in rego.metadata.chain()
	version := link.annotations.custom.policy_version
}

# METADATA
# title: Allow
# description: True only at a known stage and where nothing denies.
default allow := false

# Without its shapes a pack checks no types, and must not allow.
allow if {
	count(data.shapes.release.required) > 0
	count(data.shapes.settings.required) > 0
	input.stage in {"authorize", "plan", "acquire", "renew"}
	count(deny) == 0
}

# METADATA
# title: Obligations
# description: |
#   What the broker owes when it allows a node: a lease no longer than `lease_ceiling`, new evidence after `re_attest`,
#   keys erased when the lease ends, and whatever else the asset's constraints ask for.
obligations contains {"code": "lease_ceiling", "params": {"seconds": _lease_seconds}} if _leasing

obligations contains {"code": "re_attest", "params": {"seconds": min(_re_attest_seconds)}} if _leasing

obligations contains {"code": "zeroise_on_end", "params": {}} if _leasing

obligations contains {"code": code, "params": params} if {
	_leasing
	some code, params in input.asset.obligations
	not code in {"lease_ceiling", "re_attest", "report_usage", "zeroise_on_end"}
}

obligations contains {"code": "report_usage", "params": {"every": min(_report_seconds)}} if {
	_leasing
	_reports_asked
}

_reports_asked if {
	some budget in input.budgets
	budget.name in {"bytes_opened", "tokens_served", "bytes_served"}
}

_reports_asked if input.asset.obligations.report_usage

_report_seconds contains data.settings.report_usage

_report_seconds contains input.asset.obligations.report_usage.every

_leasing if {
	allow
	not _authorizing
}

_lease_seconds := min(_lease_bounds)

_lease_bounds contains data.settings.lease_ceiling

_lease_bounds contains input.grant.not_after - input.now

_lease_bounds contains input.site.valid_until - input.now

_lease_bounds contains input.asset.retain_until - input.now if is_number(input.asset.retain_until)

_lease_bounds contains input.asset.obligations.lease_ceiling.seconds

_lease_bounds contains budget.limit - budget.spent if {
	some budget in input.budgets
	budget.name == "key_seconds"
}

_re_attest_seconds contains _lease_seconds

_re_attest_seconds contains data.settings.re_attest

_re_attest_seconds contains input.asset.obligations.re_attest.seconds

_authorizing if input.stage == "authorize"

# --- Is the question well formed? -------------------------------------------------------------------------------------

# METADATA
# title: The input is not what this pack decides about
# custom:
#   code: INPUT_MALFORMED
#   field: input
#   remedy: Build the input with policy.inputs.ReleaseInput of the same release as this pack.
deny contains denial if {
	some problem in shape.problems(input, data.shapes.release)
	denial := denials.denial_at(rego.metadata.rule(), problem.field, problem.expected, problem.actual)
}

# METADATA
# title: The settings are not what this pack reads
# custom:
#   code: SETTINGS_MALFORMED
#   field: data.settings
#   remedy: Build the settings with policy.inputs.Settings of the same release as this pack.
deny contains denial if {
	some problem in shape.problems(data.settings, data.shapes.settings)
	field := $"data.settings.{problem.field}"
	denial := denials.denial_at(rego.metadata.rule(), field, problem.expected, problem.actual)
}

# --- The grant --------------------------------------------------------------------------------------------------------

# METADATA
# title: The grant is not valid yet
# custom:
#   code: GRANT_NOT_YET_VALID
#   field: grant.not_before
#   remedy: Wait until the grant begins, or ask the scheduler for a grant that begins earlier.
deny contains denial if {
	not _grant_begun
	denial := denials.denial(rego.metadata.rule(), $"at most now, {input.now}", $"{input.grant.not_before}")
}

_grant_begun if input.now >= input.grant.not_before

# METADATA
# title: The grant has expired
# custom:
#   code: GRANT_EXPIRED
#   field: grant.not_after
#   remedy: Ask the scheduler to extend the job, which issues a new grant.
deny contains denial if {
	not _grant_lives
	denial := denials.denial(rego.metadata.rule(), $"after now, {input.now}", $"{input.grant.not_after}")
}

_grant_lives if input.now < input.grant.not_after

# METADATA
# title: The job has been closed
# custom:
#   code: JOB_CLOSED
#   field: job.state
#   remedy: Submit the job again; a closed job gets no key.
deny contains denial if {
	not _job_open
	not _job_preempted
	denial := denials.denial(rego.metadata.rule(), "open", $"{input.job.state}")
}

_job_open if input.job.state == "open"

# METADATA
# title: The job has been preempted
# custom:
#   code: JOB_PREEMPTED
#   field: job.state
#   remedy: Have the scheduler requeue the job, which issues a new grant.
deny contains denial if {
	_job_preempted
	denial := denials.denial(rego.metadata.rule(), "open", "preempted")
}

_job_preempted if input.job.state == "preempted"

# METADATA
# title: The job belongs to another tenant than the asset
# custom:
#   code: TENANT_MISMATCH
#   field: grant.tenant
#   remedy: Run the job as the asset's tenant.
deny contains denial if {
	not _same_tenant
	denial := denials.denial(rego.metadata.rule(), $"{input.asset.tenant}", $"{input.grant.tenant}")
}

_same_tenant if input.grant.tenant == input.asset.tenant

# METADATA
# title: The grant does not name this version of the asset
# custom:
#   code: ASSET_NOT_GRANTED
#   field: grant.assets
#   remedy: Name the asset and its version when the job is authorised.
deny contains denial if {
	not _asset_granted
	denial := denials.denial(rego.metadata.rule(), _asset_ref, $"{input.grant.assets}")
}

_asset_granted if _asset_ref in input.grant.assets

_asset_ref := $"{input.asset.asset}@{input.asset.version}"

# --- The asset --------------------------------------------------------------------------------------------------------

# METADATA
# title: The asset's version has been revoked
# custom:
#   code: ASSET_REVOKED
#   field: asset.state
#   remedy: Use another version; the owner has withdrawn this one.
deny contains denial if {
	not _asset_active
	denial := denials.denial(rego.metadata.rule(), "active", $"{input.asset.state}")
}

_asset_active if input.asset.state == "active"

# METADATA
# title: The grant names no purpose
# custom:
#   code: PURPOSE_MISSING
#   field: grant.purposes
#   remedy: State at least one purpose when the job is authorised.
deny contains denial if {
	not _purpose_named
	denial := denials.denial(rego.metadata.rule(), "at least one purpose", $"{input.grant.purposes}")
}

_purpose_named if {
	is_array(input.grant.purposes)
	count(input.grant.purposes) > 0
}

# METADATA
# title: The asset's owner does not permit this purpose
# custom:
#   code: PURPOSE_NOT_PERMITTED
#   field: grant.purposes
#   remedy: Drop the purpose from the job, or ask the asset's owner to permit it.
deny contains denial if {
	some purpose in input.grant.purposes
	not _purpose_permitted(purpose)
	denial := denials.denial(rego.metadata.rule(), $"one of {input.asset.purposes}", $"{purpose}")
}

_purpose_permitted(purpose) if purpose in input.asset.purposes

# METADATA
# title: The asset's owner does not permit this project
# custom:
#   code: PROJECT_NOT_PERMITTED
#   field: grant.project
#   remedy: Run the job for a permitted project, or ask the asset's owner to permit this one.
deny contains denial if {
	not _declared_permitted("projects", "project")
	denial := denials.denial(rego.metadata.rule(), _one_of("projects"), _declared("project"))
}

# METADATA
# title: The asset's owner does not permit this user
# custom:
#   code: USER_NOT_PERMITTED
#   field: grant.user
#   remedy: Run the job as a permitted user, or ask the asset's owner to permit this one.
deny contains denial if {
	not _declared_permitted("users", "user")
	denial := denials.denial(rego.metadata.rule(), _one_of("users"), _declared("user"))
}

# METADATA
# title: The asset's owner does not permit this stage of the data life cycle
# custom:
#   code: STAGE_NOT_PERMITTED
#   field: grant.stage
#   remedy: Declare the stage that the job is at, and use data that may be used there.
deny contains denial if {
	not _declared_permitted("stages", "stage")
	denial := denials.denial(rego.metadata.rule(), _one_of("stages"), _declared("stage"))
}

# METADATA
# title: The asset's owner does not permit this image
# custom:
#   code: IMAGE_NOT_PERMITTED
#   field: grant.image
#   remedy: Run a permitted image and declare its digest, or ask the asset's owner to permit this one.
deny contains denial if {
	not _declared_permitted("images", "image")
	denial := denials.denial(rego.metadata.rule(), _one_of("images"), _declared("image"))
}

# METADATA
# title: The asset's owner does not permit a job that is connected like this
# custom:
#   code: NETWORK_NOT_PERMITTED
#   field: grant.network
#   remedy: Declare how the job is connected, and connect it as the asset's owner permits.
deny contains denial if {
	not _declared_permitted("networks", "network")
	denial := denials.denial(rego.metadata.rule(), _one_of("networks"), _declared("network"))
}

# METADATA
# title: The job may reach the world outside, and the asset must not
# custom:
#   code: EGRESS_NOT_PERMITTED
#   field: grant.network
#   remedy: Declare network none or fabric, and connect the job so.
deny contains denial if {
	input.asset.obligations.no_egress
	not _inside
	denial := denials.denial(rego.metadata.rule(), "none or fabric", _declared("network"))
}

_inside if input.grant.network in {"none", "fabric"}

_declared_permitted(set_name, _) if input.asset[set_name] == null

_declared_permitted(set_name, name) if input.grant[name] in input.asset[set_name]

_one_of(set_name) := $"one of {input.asset[set_name]}"

_declared(name) := $"{input.grant[name]}" if {
	input.grant[name] != ""
} else := "not declared"

# METADATA
# title: The asset is past the end of its retention
# custom:
#   code: RETENTION_ENDED
#   field: asset.retain_until
#   remedy: Use other data; the owner allowed this to be kept so long and no longer.
deny contains denial if {
	not _retained
	denial := denials.denial(rego.metadata.rule(), $"after now, {input.now}", $"{input.asset.retain_until}")
}

_retained if input.asset.retain_until == null

_retained if input.now < input.asset.retain_until

# --- Budgets ----------------------------------------------------------------------------------------------------------

# METADATA
# title: A budget is spent
# custom:
#   code: BUDGET_SPENT
#   field: budgets
#   remedy: Ask whoever set the budget to raise it, the asset's owner or the job's scheduler; time alone refills none.
deny contains denial if {
	some budget in _budgets_that_count
	not _budget_left(budget)
	denial := denials.denial_at(
		rego.metadata.rule(),
		$"budgets.{budget.scope}.{budget.name}",
		$"less than {budget.limit}",
		$"{budget.spent}",
	)
}

# A renewal opens nothing again.
_budgets_that_count contains budget if {
	some budget in input.budgets
	not _opened_before(budget)
}

_opened_before(budget) if {
	_renewing
	budget.name == "opens"
}

_budget_left(budget) if {
	is_number(budget.spent)
	is_number(budget.limit)
	budget.spent < budget.limit
}

# METADATA
# title: The holder of the lease has stopped to report what it uses
# custom:
#   code: USAGE_REPORT_MISSING
#   field: reporting.age
#   remedy: Run the lease's keeper, which reports in time; acquire a new lease.
deny contains denial if {
	_renewing
	not _reports_in_time
	denial := denials.denial(
		rego.metadata.rule(),
		$"a report every {input.reporting.every} seconds",
		$"none for {input.reporting.age} seconds",
	)
}

_reports_in_time if input.reporting == null

# One report may be lost.
_reports_in_time if input.reporting.age - input.reporting.every <= input.reporting.every

_renewing if input.stage == "renew"

# METADATA
# title: The asset's constraints name an area that nobody knows
# custom:
#   code: AREA_UNKNOWN
#   field: asset.residency
#   remedy: Name ISO 3166 codes or groups that data.jurisdictions lists.
deny contains denial if {
	some [field, area] in _unknown_areas
	denial := denials.denial_at(rego.metadata.rule(), field, "an ISO 3166 code or a known group", $"{area}")
}

_unknown_areas contains [$"asset.{name}.allowed[{index}][{number}]", area] if {
	some name in ["residency", "exposure"]
	some index, clause in input.asset[name].allowed
	some number, area in clause
	not residency.known(area)
}

_unknown_areas contains [$"asset.{name}.forbidden[{number}]", area] if {
	some name in ["residency", "exposure"]
	some number, area in input.asset[name].forbidden
	not residency.known(area)
}

# --- Where: at authorisation, is there any site at all? ---------------------------------------------------------------

# METADATA
# title: No site where the job may run is permitted for the asset
# custom:
#   code: NO_SITE_PERMITTED
#   field: candidate_sites
#   remedy: Let the job run at a site in a permitted jurisdiction, or ask the asset's owner to permit another.
deny contains denial if {
	_authorizing
	not _candidates_satisfy
	denial := denials.denial(
		rego.metadata.rule(),
		$"a site within {input.asset.residency.allowed} and not in {input.asset.residency.forbidden}",
		$"{[$"{site.site_id} in {site.jurisdiction}" | some site in input.candidate_sites]}",
	)
}

_candidates_satisfy if input.candidate_sites == null

_candidates_satisfy if {
	some site in input.candidate_sites
	_site_active(site)
	_site_granted(site)
	_site_begun(site)
	_site_unexpired(site)
	_site_permitted(site)
	_residency_permits(site)
	residency.clear(site.jurisdiction, input.asset.residency.forbidden)
	_exposures_known(site)
	count(_exposures_not_permitted(site)) == 0
	count(_exposures_forbidden(site)) == 0
}

# --- Where: the node's site -------------------------------------------------------------------------------------------

# METADATA
# title: No site is known for the node
# custom:
#   code: SITE_MISSING
#   field: site
#   remedy: Enrol the node's hardware to a site.
deny contains denial if {
	not _authorizing
	not is_object(input.site)
	denial := denials.denial(rego.metadata.rule(), "the enrolled site of the node", $"{input.site}")
}

# METADATA
# title: The site is not active
# custom:
#   code: SITE_NOT_ACTIVE
#   field: site.state
#   remedy: Run the job at an active site, or have this one reinstated.
deny contains denial if {
	_at_site
	not _site_active(input.site)
	denial := denials.denial(rego.metadata.rule(), "active", $"{input.site.state}")
}

# METADATA
# title: The site's record has expired
# custom:
#   code: SITE_EXPIRED
#   field: site.valid_until
#   remedy: Have the site's record signed again.
deny contains denial if {
	_at_site
	not _site_unexpired(input.site)
	denial := denials.denial(rego.metadata.rule(), $"after now, {input.now}", $"{input.site.valid_until}")
}

# METADATA
# title: The site's record does not hold yet
# custom:
#   code: SITE_NOT_YET_VALID
#   field: site.valid_from
#   remedy: Check the broker's clock; else wait until the record holds, or have another one signed.
deny contains denial if {
	_at_site
	not _site_begun(input.site)
	denial := denials.denial(rego.metadata.rule(), $"now, {input.now}, or before", $"{input.site.valid_from}")
}

# METADATA
# title: The grant does not reach this site
# custom:
#   code: SITE_NOT_GRANTED
#   field: grant.sites
#   remedy: Run the job at a site that the grant names.
deny contains denial if {
	_at_site
	not _site_granted(input.site)
	denial := denials.denial(rego.metadata.rule(), $"one of {input.grant.sites}", $"{input.site.site_id}")
}

# METADATA
# title: The asset's owner does not permit this site
# custom:
#   code: SITE_NOT_PERMITTED
#   field: site.site_id
#   remedy: Run the job at a permitted site, or ask the asset's owner to permit this one.
deny contains denial if {
	_at_site
	not _site_permitted(input.site)
	denial := denials.denial(rego.metadata.rule(), $"one of {input.asset.sites}", $"{input.site.site_id}")
}

# METADATA
# title: The asset may not be used in this jurisdiction
# custom:
#   code: JURISDICTION_NOT_PERMITTED
#   field: site.jurisdiction
#   remedy: Run the job in a permitted jurisdiction, or ask the asset's owner to permit this one.
deny contains denial if {
	_at_site
	not _residency_permits(input.site)
	denial := denials.denial(
		rego.metadata.rule(),
		$"within one of each of {input.asset.residency.allowed}",
		$"{input.site.jurisdiction}",
	)
}

# METADATA
# title: The asset is forbidden in this jurisdiction
# custom:
#   code: JURISDICTION_FORBIDDEN
#   field: site.jurisdiction
#   remedy: Run the job elsewhere; the asset's owner has forbidden this jurisdiction.
deny contains denial if {
	_at_site
	not residency.clear(input.site.jurisdiction, input.asset.residency.forbidden)
	denial := denials.denial(
		rego.metadata.rule(),
		$"clear of {input.asset.residency.forbidden}",
		$"{input.site.jurisdiction}",
	)
}

# METADATA
# title: Nobody knows whose law reaches the site, and the asset asks
# custom:
#   code: EXPOSURE_UNKNOWN
#   field: site.exposures
#   remedy: Have the site's record name the legal entities that operate and control it, with their jurisdictions.
deny contains denial if {
	_at_site
	not _exposures_known(input.site)
	denial := denials.denial(rego.metadata.rule(), "the jurisdictions of operator and controllers", "none are recorded")
}

# METADATA
# title: The law of a jurisdiction that the asset's owner does not permit reaches the site
# custom:
#   code: EXPOSURE_NOT_PERMITTED
#   field: site.exposures
#   remedy: Run the job at a site whose operator and controllers answer to permitted jurisdictions only.
deny contains denial if {
	_at_site
	some exposure in _exposures_not_permitted(input.site)
	denial := denials.denial(
		rego.metadata.rule(),
		$"within one of each of {input.asset.exposure.allowed}",
		$"{exposure}",
	)
}

# METADATA
# title: The law of a jurisdiction that the asset's owner forbids reaches the site
# custom:
#   code: EXPOSURE_FORBIDDEN
#   field: site.exposures
#   remedy: Run the job at a site whose operator and controllers do not answer to this jurisdiction.
deny contains denial if {
	_at_site
	some exposure in _exposures_forbidden(input.site)
	denial := denials.denial(rego.metadata.rule(), $"clear of {input.asset.exposure.forbidden}", $"{exposure}")
}

# An asset that names no clause says nothing about where it may be used, which permits no place.
_residency_permits(site) if {
	count(input.asset.residency.allowed) > 0
	residency.permitted_by_all(site.jurisdiction, input.asset.residency.allowed)
}

_site_permitted(_) if input.asset.sites == null

_site_permitted(site) if site.site_id in input.asset.sites

_exposures_known(_) if input.asset.exposure == {"allowed": [], "forbidden": []}

_exposures_known(site) if count(site.exposures) > 0

_exposures_not_permitted(site) := {exposure |
	some exposure in site.exposures
	not residency.permitted_by_all(exposure, input.asset.exposure.allowed)
}

_exposures_forbidden(site) := {exposure |
	some exposure in site.exposures
	not residency.clear(exposure, input.asset.exposure.forbidden)
}

_at_site if {
	not _authorizing
	is_object(input.site)
}

_site_active(site) if site.state == "active"

_site_begun(site) if site.valid_from <= input.now

_site_unexpired(site) if input.now < site.valid_until

_site_granted(site) if site.site_id in input.grant.sites

# A grant that names no site is not narrowed to any.
_site_granted(_) if input.grant.sites == []

# --- Which node -------------------------------------------------------------------------------------------------------

# METADATA
# title: The attested identities belong to no enrolled node
# custom:
#   code: NODE_MISSING
#   field: node
#   remedy: Enrol the node's CPU and GPU identities.
deny contains denial if {
	not _authorizing
	not is_object(input.node)
	denial := denials.denial(rego.metadata.rule(), "the enrolled node of the attested identities", $"{input.node}")
}

# METADATA
# title: The node is not active
# custom:
#   code: NODE_NOT_ACTIVE
#   field: node.state
#   remedy: Lift the node's quarantine, or use another node.
deny contains denial if {
	_on_node
	not _node_active
	denial := denials.denial(rego.metadata.rule(), "active", $"{input.node.state}")
}

_node_active if input.node.state == "active"

# METADATA
# title: The node is not installed
# custom:
#   code: NODE_CUSTODY
#   field: node.custody
#   remedy: Have an operator say that the node is installed (keystead node custody), or use another node.
deny contains denial if {
	_on_node
	not _node_installed
	denial := denials.denial(rego.metadata.rule(), "installed", $"{input.node.custody}")
}

_node_installed if input.node.custody == "installed"

# METADATA
# title: The node claims to be another than the one its hardware is enrolled as
# custom:
#   code: NODE_CLAIM_MISMATCH
#   field: node.claimed_node_id
#   remedy: Configure the node's agent with the id that its hardware is enrolled under.
deny contains denial if {
	_on_node
	not _node_claim_matches
	denial := denials.denial(rego.metadata.rule(), $"{input.node.node_id}", $"{input.node.claimed_node_id}")
}

_node_claim_matches if input.node.claimed_node_id == input.node.node_id

# METADATA
# title: The attested devices are not the set that is enrolled for the node
# custom:
#   code: DEVICE_SET_MISMATCH
#   field: node.device_set_matches
#   remedy: Enrol the node again after a change of hardware; find out who changed it if nobody should have.
deny contains denial if {
	_on_node
	not _device_set_matches
	denial := denials.denial(rego.metadata.rule(), "true", $"{input.node.device_set_matches}")
}

_device_set_matches if input.node.device_set_matches == true

# METADATA
# title: The grant does not reach this node
# custom:
#   code: NODE_NOT_GRANTED
#   field: grant.nodes
#   remedy: Run the job on a node that the grant names.
deny contains denial if {
	_on_node
	not _node_granted
	denial := denials.denial(rego.metadata.rule(), $"one of {input.grant.nodes}", $"{input.node.node_id}")
}

_node_granted if input.node.node_id in input.grant.nodes

# A grant that names no node is not narrowed to any.
_node_granted if input.grant.nodes == []

# METADATA
# title: The job already has leases on as many nodes as its grant allows
# custom:
#   code: NODE_CEILING_REACHED
#   field: grant.node_ceiling
#   remedy: Return a lease on another node first, or authorise the job for more nodes.
deny contains denial if {
	_on_node
	not _below_ceiling
	denial := denials.denial(
		rego.metadata.rule(),
		$"at most {input.grant.node_ceiling} nodes",
		$"{count(_nodes_with_this)}",
	)
}

_below_ceiling if {
	is_array(input.job.live_nodes)
	count(_nodes_with_this) <= input.grant.node_ceiling
}

_nodes_with_this := {node | some node in input.job.live_nodes} | {input.node.node_id}

# METADATA
# title: As many nodes hold keys of the asset, over all jobs, as its owner allows
# custom:
#   code: ASSET_NODE_CEILING_REACHED
#   field: asset.node_ceiling
#   remedy: Return a lease of this asset on another node first, whichever job it serves.
deny contains denial if {
	_on_node
	not _within_ceiling("node_ceiling", "nodes")
	denial := denials.denial(rego.metadata.rule(), $"at most {input.asset.node_ceiling} nodes", _holders("nodes"))
}

# METADATA
# title: As many leases cover the asset, over all jobs, as its owner allows
# custom:
#   code: ASSET_COPY_CEILING_REACHED
#   field: asset.copy_ceiling
#   remedy: Return a lease of this asset first, whichever job it serves.
deny contains denial if {
	_on_node
	not _within_ceiling("copy_ceiling", "leases")
	denial := denials.denial(rego.metadata.rule(), $"at most {input.asset.copy_ceiling} leases", _holders("leases"))
}

_within_ceiling(ceiling, _) if input.asset[ceiling] == null

_within_ceiling(ceiling, count_name) if input.holders[count_name] <= input.asset[ceiling]

_holders(count_name) := $"{input.holders[count_name]}"

_on_node if {
	not _authorizing
	is_object(input.node)
}

# --- Attestation ------------------------------------------------------------------------------------------------------

# METADATA
# title: The node has not been appraised
# custom:
#   code: ATTESTATION_MISSING
#   field: attestation
#   remedy: Send evidence, or an Attestation Result of this broker.
deny contains denial if {
	not _authorizing
	not is_object(input.attestation)
	denial := denials.denial(rego.metadata.rule(), "an appraisal of the node", $"{input.attestation}")
}

# METADATA
# title: The node's evidence was appraised and refused
# custom:
#   code: ATTESTATION_DENIED
#   field: attestation.allow
#   remedy: Mend what the appraisal's own denials name, and attest again.
deny contains denial if {
	_attested
	not _attestation_allows
	denial := denials.denial(rego.metadata.rule(), "true", $"{input.attestation.allow} {input.attestation.codes}")
}

_attestation_allows if input.attestation.allow == true

# METADATA
# title: The appraisal's status is worse than accepted
# custom:
#   code: ATTESTATION_STATUS
#   field: attestation.status
#   remedy: Mend what the appraisal warns of, and attest again.
deny contains denial if {
	_attested
	not _attestation_status_accepted
	denial := denials.denial(
		rego.metadata.rule(),
		$"from {ar4si.affirming} to {data.settings.attestation_status_ceiling}",
		$"{input.attestation.status}",
	)
}

# Zero is "no claim": it affirms nothing, so the range begins at affirming.
_attestation_status_accepted if {
	input.attestation.status >= ar4si.affirming
	input.attestation.status <= data.settings.attestation_status_ceiling
}

# METADATA
# title: The appraisal is too old
# custom:
#   code: ATTESTATION_STALE
#   field: attestation.age
#   remedy: Attest again with fresh evidence.
deny contains denial if {
	_attested
	not _attestation_fresh
	denial := denials.denial(
		rego.metadata.rule(),
		$"at most {data.settings.attestation_age_ceiling} seconds",
		$"{input.attestation.age}",
	)
}

_attestation_fresh if {
	input.attestation.age >= 0
	input.attestation.age <= data.settings.attestation_age_ceiling
}

# METADATA
# title: The node's TEE is simulated, and this broker demands hardware
# custom:
#   code: HARDWARE_REQUIRED
#   field: attestation.simulated
#   remedy: Use a node with a hardware TEE.
deny contains denial if {
	_attested
	not _hardware_sufficient
	denial := denials.denial(rego.metadata.rule(), "false", $"{input.attestation.simulated}")
}

_hardware_sufficient if input.attestation.simulated == false

_hardware_sufficient if data.settings.allow_simulated == true

# METADATA
# title: The node has proven less than the asset's owner demands
# custom:
#   code: ASSURANCE_TOO_LOW
#   field: attestation.assurance
#   remedy: Use a node whose hardware TEE vouches for what the asset demands, its devices included where it says so.
deny contains denial if {
	_attested
	not _assured
	denial := denials.denial(rego.metadata.rule(), $"at least {input.asset.assurance}", $"{input.attestation.assurance}")
}

_assured if _assurances[input.attestation.assurance] >= _assurances[input.asset.assurance]

_assurances := {"simulated": 0, "cpu": 1, "cpu-and-devices": 2}

# METADATA
# title: The hardware does not vouch for the image that the job declared
# custom:
#   code: IMAGE_NOT_ATTESTED
#   field: attestation.host_data
#   remedy: Launch the confidential VM with the image's SHA-256 as host data, and acquire the lease with fresh evidence.
deny contains denial if {
	_attested
	input.asset.images != null
	not _image_attested
	denial := denials.denial(rego.metadata.rule(), _declared("image"), $"{input.attestation.host_data}")
}

_image_attested if {
	data.settings.image_binding == "host-data"
	input.grant.image != ""
	input.attestation.host_data == input.grant.image
}

# The launch measurement covers the image, so only approved measurements can be relied upon.
_image_attested if {
	data.settings.image_binding == "measurement-only"
	count(data.settings.measurements) > 0
}

_attested if {
	not _authorizing
	is_object(input.attestation)
}
