package release_test

import data.release

_grant := {
	"grant_id": "grant-1",
	"tenant": "acme",
	"job_uid": "job-1",
	"scheduler": "slurm",
	"assets": ["acme/llm@3"],
	"purposes": ["train", "evaluate"],
	"nodes": ["node-1", "node-2"],
	"sites": ["munich"],
	"node_ceiling": 2,
	"not_before": 1000,
	"not_after": 9000,
}

_asset := {
	"asset": "acme/llm",
	"version": 3,
	"tenant": "acme",
	"kind": "model",
	"state": "active",
	"classification": 2,
	"purposes": ["evaluate", "train"],
	"residency": {"allowed": ["EU"], "forbidden": ["FR"]},
	"require_hardware": true,
}

_node := {"node_id": "node-1", "state": "active", "claimed_node_id": "node-1", "device_set_matches": true}

_site := {"site_id": "munich", "jurisdiction": "DE-BY", "state": "active", "valid_until": 8000}

_attestation := {
	"allow": true,
	"status": 2,
	"simulated": false,
	"policy_digest": "ab",
	"codes": [],
	"age": 10,
}

_acquire := {
	"stage": "acquire",
	"now": 2000,
	"grant": _grant,
	"job": {"state": "open", "live_nodes": ["node-2"]},
	"asset": _asset,
	"node": _node,
	"site": _site,
	"attestation": _attestation,
	"candidate_sites": null,
}

_authorize := object.union(_acquire, {
	"stage": "authorize",
	"node": null,
	"site": null,
	"attestation": null,
	"candidate_sites": [_site],
})

_patched(document, path, value) := json.patch(document, [{"op": "replace", "path": path, "value": value}])

_codes(document) := codes if {
	deny := release.deny with input as document
	codes := {denial.code | some denial in deny}
}

_codes_with(document, changes) := codes if {
	settings := object.union(data.settings, changes)
	deny := release.deny with input as document with data.settings as settings
	codes := {denial.code | some denial in deny}
}

# --- Yes --------------------------------------------------------------------------------------------------------------

test_acquire_allows if {
	decision := release.decision with input as _acquire
	decision == {
		"allow": true,
		"deny": set(),
		"obligations": {
			{"code": "lease_ceiling", "params": {"seconds": 3600}},
			{"code": "re_attest", "params": {"seconds": 900}},
			{"code": "zeroise_on_end", "params": {}},
		},
		"policy_version": "release/1.0.0",
	}
}

test_renew_allows if {
	release.allow with input as _patched(_acquire, "/stage", "renew")
}

test_authorize_allows_without_obligations if {
	decision := release.decision with input as _authorize
	decision.allow
	decision.obligations == set()
}

test_authorize_allows_where_sites_are_not_known if {
	release.allow with input as _patched(_authorize, "/candidate_sites", null)
}

test_a_grant_that_names_no_node_and_no_site_reaches_all if {
	release.allow with input as object.union(_acquire, {"grant": {"nodes": [], "sites": []}})
}

test_a_lease_ends_with_the_grant_and_the_site_record if {
	late := release.obligations with input as _patched(_acquire, "/now", 7700)
	late == {
		{"code": "lease_ceiling", "params": {"seconds": 300}},
		{"code": "re_attest", "params": {"seconds": 300}},
		{"code": "zeroise_on_end", "params": {}},
	}
	short := release.obligations with input as _patched(_acquire, "/grant/not_after", 2060)
	{"code": "lease_ceiling", "params": {"seconds": 60}} in short
}

# --- No: what is malformed --------------------------------------------------------------------------------------------

test_empty_inputs_are_denied if {
	every document in [{}, [], null, true, 7, "acquire"] {
		decision := release.decision with input as document
		not decision.allow
		count(decision.deny) > 0
		decision.obligations == set()
	}
}

test_no_input_is_denied if {
	not release.decision.allow
	count(release.decision.deny) > 0
}

_fields contains path if {
	some document in [_acquire, _authorize]
	walk(document, [path, _])
	count(path) > 0
	every name in path {
		is_string(name)
	}
}

test_each_absent_field_is_denied if {
	every path in _fields {
		every document in [_acquire, _authorize] {
			_absent_denied(document, path)
		}
	}
}

_absent_denied(document, path) if {
	walk(document, [path, _])
	not release.allow with input as json.remove(document, [concat("/", path)])
}

# Where a stage has no such field there is nothing to take away.
_absent_denied(document, path) if {
	not _there(document, path)
}

_there(document, path) if walk(document, [path, _])

test_each_wrong_type_is_denied if {
	every path in _fields {
		every value in [null, true, 7, "text", [], [7], {}] {
			_wrong_type_denied(path, value)
		}
	}
}

_wrong_type_denied(path, value) if {
	walk(_acquire, [path, right])
	type_name(right) == type_name(value)
	not _holds_numbers(value)
}

_wrong_type_denied(path, value) if {
	not release.allow with input as _patched(_acquire, concat("/", array.concat([""], path)), value)
}

# At this stage the list of candidates is not used, and any list of them may stand there.
_wrong_type_denied(["candidate_sites"], value) if is_array(value)

_holds_numbers([7])

test_malformed_input_is_named if {
	deny := release.deny with input as _patched(_acquire, "/grant/node_ceiling", "two")
	some denial in deny
	denial.code == "INPUT_MALFORMED"
	denial.field == "grant.node_ceiling"
	denial.expected == "integer"
	denial.actual == "string"
}

test_an_unknown_stage_is_denied if {
	_codes(_patched(_acquire, "/stage", "peek")) == {"INPUT_MALFORMED"}
}

test_malformed_settings_are_denied if {
	_codes_with(_acquire, {"allow_simulated": "no"}) == {"SETTINGS_MALFORMED"}
	_codes_with(_acquire, {"attestation_age_ceiling": "900"}) == {"SETTINGS_MALFORMED"}
	deny := release.deny with input as _acquire with data.settings as {}
	count([1 | some denial in deny; denial.code == "SETTINGS_MALFORMED"]) == 10
}

test_without_its_shapes_nothing_is_allowed if {
	release.allow with input as _acquire
	every name in ["release", "settings"] {
		shapes := object.remove(data.shapes, [name])
		not release.allow with input as _acquire with data.shapes as shapes
	}
}

# --- No: each rule ----------------------------------------------------------------------------------------------------

_one_fault := {
	"GRANT_NOT_YET_VALID": {"/grant/not_before": 2001},
	"GRANT_EXPIRED": {"/grant/not_after": 2000},
	"JOB_CLOSED": {"/job/state": "closed"},
	"TENANT_MISMATCH": {"/grant/tenant": "other"},
	"ASSET_NOT_GRANTED": {"/asset/version": 4},
	"ASSET_REVOKED": {"/asset/state": "revoked"},
	"PURPOSE_MISSING": {"/grant/purposes": []},
	"PURPOSE_NOT_PERMITTED": {"/asset/purposes": ["train"]},
	"JURISDICTION_NOT_PERMITTED": {"/asset/residency/allowed": ["FR", "EEA-X", "DE-BE"]},
	"JURISDICTION_FORBIDDEN": {"/asset/residency/forbidden": ["DE"]},
	"SITE_NOT_ACTIVE": {"/site/state": "suspended"},
	"SITE_EXPIRED": {"/site/valid_until": 2000},
	"SITE_NOT_GRANTED": {"/grant/sites": ["paris"]},
	"SITE_MISSING": {"/site": null},
	"NODE_MISSING": {"/node": null},
	"NODE_NOT_ACTIVE": {"/node/state": "quarantined"},
	"NODE_CLAIM_MISMATCH": {"/node/claimed_node_id": "node-2"},
	"DEVICE_SET_MISMATCH": {"/node/device_set_matches": false},
	"NODE_NOT_GRANTED": {"/grant/nodes": ["node-2"]},
	"NODE_CEILING_REACHED": {"/grant/node_ceiling": 1},
	"ATTESTATION_MISSING": {"/attestation": null},
	"ATTESTATION_DENIED": {"/attestation/allow": false},
	"ATTESTATION_STALE": {"/attestation/age": 901},
	"HARDWARE_REQUIRED": {"/attestation/simulated": true},
}

test_each_fault_alone_is_denied_by_its_code if {
	every code, changes in _one_fault {
		document := json.patch(_acquire, [{"op": "replace", "path": path, "value": value} | some path, value in changes])
		_codes(document) - {"AREA_UNKNOWN"} == {code}
		not release.allow with input as document
	}
}

test_all_faults_are_denied_at_once if {
	apart := {"ATTESTATION_MISSING", "NODE_MISSING", "SITE_MISSING", "PURPOSE_MISSING"}
	patches := [{"op": "replace", "path": path, "value": value} |
		some code, changes in _one_fault
		not code in apart
		some path, value in changes
	]
	{code | some code, _ in _one_fault} - apart == _codes(json.patch(_acquire, patches)) - {"AREA_UNKNOWN"}
}

test_each_purpose_is_denied_by_itself if {
	deny := release.deny with input as _patched(_acquire, "/grant/purposes", ["train", "sell", "distil"])
	{[denial.code, denial.expected, denial.actual] | some denial in deny} == {
		["PURPOSE_NOT_PERMITTED", `one of ["evaluate", "train"]`, "sell"],
		["PURPOSE_NOT_PERMITTED", `one of ["evaluate", "train"]`, "distil"],
	}
}

test_a_denial_carries_the_annotations if {
	deny := release.deny with input as _patched(_acquire, "/job/state", "closed")
	deny == {{
		"code": "JOB_CLOSED",
		"message": "The job has been closed",
		"field": "job.state",
		"expected": "open",
		"actual": "closed",
		"remedy": "Submit the job again; a closed job gets no key.",
	}}
}

test_unknown_areas_are_denied if {
	_codes(_patched(_acquire, "/asset/residency/forbidden", ["UK"])) == {"AREA_UNKNOWN", "JURISDICTION_FORBIDDEN"}
	_codes(_patched(_acquire, "/asset/residency/allowed", ["EU", "EUROPE"])) == {"AREA_UNKNOWN"}
	_codes(_patched(_acquire, "/asset/residency/allowed", [])) == {"JURISDICTION_NOT_PERMITTED"}
}

# A node that already holds a lease does not count twice.
test_the_ceiling_counts_nodes_once if {
	release.allow with input as _patched(_acquire, "/job/live_nodes", ["node-1", "node-2"])
	_codes(_patched(_acquire, "/job/live_nodes", ["node-2", "node-3"])) == {"NODE_CEILING_REACHED"}
}

test_the_status_must_affirm if {
	_codes(_patched(_acquire, "/attestation/status", 0)) == {"ATTESTATION_STATUS"}
	_codes(_patched(_acquire, "/attestation/status", 33)) == {"ATTESTATION_STATUS"}
	_codes(_patched(_acquire, "/attestation/status", 96)) == {"ATTESTATION_STATUS"}
	_codes(_patched(_acquire, "/attestation/status", -1)) == {"ATTESTATION_STATUS"}
	release.allow with input as _patched(_acquire, "/attestation/status", 32)
	_codes_with(_patched(_acquire, "/attestation/status", 32), {"attestation_status_ceiling": 2}) == {"ATTESTATION_STATUS"}
}

test_an_age_before_now_is_denied if {
	_codes(_patched(_acquire, "/attestation/age", -1)) == {"ATTESTATION_STALE"}
}

test_simulated_tees_need_the_setting_and_the_owner if {
	simulated := _patched(_acquire, "/attestation/simulated", true)
	lenient := _patched(simulated, "/asset/require_hardware", false)
	_codes(lenient) == {"HARDWARE_REQUIRED"}
	_codes_with(simulated, {"allow_simulated": true}) == {"HARDWARE_REQUIRED"}
	_codes_with(lenient, {"allow_simulated": true}) == set()
}

test_no_candidate_site_is_denied if {
	_codes(_patched(_authorize, "/candidate_sites", [])) == {"NO_SITE_PERMITTED"}
	every path, value in {
		"/candidate_sites/0/jurisdiction": "US",
		"/candidate_sites/0/state": "retired",
		"/candidate_sites/0/valid_until": 2000,
		"/candidate_sites/0/site_id": "paris",
		"/asset/residency/forbidden": ["DE"],
	} {
		_codes(_patched(_authorize, path, value)) == {"NO_SITE_PERMITTED"}
	}
	release.allow with input as _patched(_authorize, "/candidate_sites", [object.union(_site, {"state": "retired"}), _site])
}

test_node_rules_do_not_apply_at_authorisation if {
	release.allow with input as object.union(_authorize, {"node": object.union(_node, {"state": "retired"})})
}

test_renewal_after_the_job_closed_is_denied if {
	_codes(json.patch(_acquire, [
		{"op": "replace", "path": "/stage", "value": "renew"},
		{"op": "replace", "path": "/job/state", "value": "closed"},
	])) == {"JOB_CLOSED"}
}
