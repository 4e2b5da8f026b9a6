# METADATA
# title: Release
# description: |
#   May this job have this asset's key on this node, now? Evaluated when a job is authorised (no node yet), when a lease
#   is acquired, and when it is renewed. Every reason against it is given at once.
# schemas:
#   - input: schema.release
#   - data.settings: schema.settings
# custom:
#   policy_version: release/1.0.0
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
	input.stage in {"authorize", "acquire", "renew"}
	count(deny) == 0
}

# METADATA
# title: Obligations
# description: |
#   What the broker owes when it allows a node: a lease no longer than `lease_ceiling`, new evidence after `re_attest`,
#   and keys erased when the lease ends.
obligations contains {"code": "lease_ceiling", "params": {"seconds": _lease_seconds}} if _leasing

obligations contains {"code": "re_attest", "params": {"seconds": min({data.settings.re_attest, _lease_seconds})}} if _leasing

obligations contains {"code": "zeroise_on_end", "params": {}} if _leasing

_leasing if {
	allow
	not _authorizing
}

_lease_seconds := min({
	data.settings.lease_ceiling,
	input.grant.not_after - input.now,
	input.site.valid_until - input.now,
})

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
	denial := denials.denial(rego.metadata.rule(), "open", $"{input.job.state}")
}

_job_open if input.job.state == "open"

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
# title: The asset's residency names an area that nobody knows
# custom:
#   code: AREA_UNKNOWN
#   field: asset.residency
#   remedy: Name ISO 3166 codes or groups that data.jurisdictions lists.
deny contains denial if {
	some list in ["allowed", "forbidden"]
	some area in input.asset.residency[list]
	not residency.known(area)
	denial := denials.denial_at(
		rego.metadata.rule(),
		$"asset.residency.{list}",
		"an ISO 3166 code or a known group",
		$"{area}",
	)
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
		$"a site in {input.asset.residency.allowed} and not in {input.asset.residency.forbidden}",
		$"{[$"{site.site_id} in {site.jurisdiction}" | some site in input.candidate_sites]}",
	)
}

_candidates_satisfy if input.candidate_sites == null

_candidates_satisfy if {
	some site in input.candidate_sites
	_site_active(site)
	_site_granted(site)
	_site_unexpired(site)
	residency.permitted(site.jurisdiction, input.asset.residency.allowed)
	residency.clear(site.jurisdiction, input.asset.residency.forbidden)
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
# title: The asset may not be used in this jurisdiction
# custom:
#   code: JURISDICTION_NOT_PERMITTED
#   field: site.jurisdiction
#   remedy: Run the job in a permitted jurisdiction, or ask the asset's owner to permit this one.
deny contains denial if {
	_at_site
	not residency.permitted(input.site.jurisdiction, input.asset.residency.allowed)
	denial := denials.denial(
		rego.metadata.rule(),
		$"within one of {input.asset.residency.allowed}",
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

_at_site if {
	not _authorizing
	is_object(input.site)
}

_site_active(site) if site.state == "active"

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
# title: The node's TEE is simulated, and the asset or this broker demands hardware
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

_hardware_sufficient if {
	input.asset.require_hardware == false
	data.settings.allow_simulated == true
}

_attested if {
	not _authorizing
	is_object(input.attestation)
}
