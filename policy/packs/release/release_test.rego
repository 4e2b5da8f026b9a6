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
	"project": "llm-de",
	"user": "alice",
	"stage": "training",
	"image": "c0de",
	"network": "fabric",
}

_asset := {
	"asset": "acme/llm",
	"version": 3,
	"tenant": "acme",
	"kind": "model",
	"state": "active",
	"classification": 2,
	"purposes": ["evaluate", "train"],
	"residency": {"allowed": [["EU"], ["DE", "NO"]], "forbidden": ["FR"]},
	"exposure": {"allowed": [["EEA"]], "forbidden": ["US"]},
	"sites": ["munich", "oslo"],
	"retain_until": 7000,
	"assurance": "cpu-and-devices",
	"node_ceiling": 5,
	"copy_ceiling": 9,
	"projects": ["llm-de"],
	"users": ["alice", "bob"],
	"stages": ["training"],
	"images": ["c0de"],
	"networks": ["none", "fabric"],
	"obligations": {"no_logits": {}, "output_ceiling": {"tokens": 4000}, "lease_ceiling": {"seconds": 4500}},
}

_node := {"node_id": "node-1", "state": "active", "custody": "installed", "claimed_node_id": "node-1", "device_set_matches": true}

_site := {
	"site_id": "munich",
	"jurisdiction": "DE-BY",
	"exposures": ["DE", "NO"],
	"certifications": ["iso-27001"],
	"network_zone": "zone-1",
	"state": "active",
	"valid_from": 1000,
	"valid_until": 8000,
}

_attestation := {
	"allow": true,
	"status": 2,
	"simulated": false,
	"policy_digest": "ab",
	"codes": [],
	"age": 10,
	"assurance": "cpu-and-devices",
	"host_data": "c0de",
}

_acquire := {
	"stage": "acquire",
	"now": 2000,
	"grant": _grant,
	"job": {"state": "open", "live_nodes": ["node-2"]},
	"asset": _asset,
	"holders": {"nodes": 5, "leases": 9},
	"budgets": [],
	"reporting": null,
	"node": _node,
	"site": _site,
	"attestation": _attestation,
	"candidate_sites": null,
}

_authorize := object.union(_acquire, {
	"stage": "authorize",
	"holders": null,
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
			{"code": "no_logits", "params": {}},
			{"code": "output_ceiling", "params": {"tokens": 4000}},
			{"code": "re_attest", "params": {"seconds": 900}},
			{"code": "zeroise_on_end", "params": {}},
		},
		"policy_version": "release/2.1.0",
	}
}

test_renew_allows if {
	release.allow with input as _patched(_acquire, "/stage", "renew")
}

test_plan_answers_as_acquire_does if {
	plan := release.decision with input as _patched(_acquire, "/stage", "plan")
	acquire := release.decision with input as _acquire
	plan == acquire
	every changes in _one_fault {
		patches := [{"op": "add", "path": path, "value": value} | some path, value in changes]
		spoiled := json.patch(_acquire, patches)
		_codes(_patched(spoiled, "/stage", "plan")) == _codes(_patched(spoiled, "/stage", "acquire"))
	}
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

_seconds(document) := {obligation.code: obligation.params.seconds | some obligation in obligations} if {
	all := release.obligations with input as document
	obligations := [obligation | some obligation in all; obligation.code in {"lease_ceiling", "re_attest"}]
}

test_a_lease_ends_with_the_first_of_its_bounds if {
	_seconds(_acquire) == {"lease_ceiling": 3600, "re_attest": 900}
	_seconds(_patched(_acquire, "/site/valid_until", 2300)) == {"lease_ceiling": 300, "re_attest": 300}
	_seconds(_patched(_acquire, "/grant/not_after", 2060)) == {"lease_ceiling": 60, "re_attest": 60}
	_seconds(_patched(_acquire, "/asset/retain_until", 2050)) == {"lease_ceiling": 50, "re_attest": 50}
	_seconds(_patched(_acquire, "/asset/obligations/lease_ceiling/seconds", 70)) == {"lease_ceiling": 70, "re_attest": 70}
	_seconds(_patched(_acquire, "/asset/obligations", {"re_attest": {"seconds": 30}})) == {"lease_ceiling": 3600, "re_attest": 30}
}

# An asset that adds nothing gets what every lease gets, and each duty once.
test_the_asset_adds_duties_and_takes_none_away if {
	every duties in [{}, {"zeroise_on_end": {}}, {"lease_ceiling": {"seconds": 99999}, "re_attest": {"seconds": 99999}}] {
		obligations := release.obligations with input as _patched(_acquire, "/asset/obligations", duties)
		obligations == {
			{"code": "lease_ceiling", "params": {"seconds": 3600}},
			{"code": "re_attest", "params": {"seconds": 900}},
			{"code": "zeroise_on_end", "params": {}},
		}
	}
}

_unrestricted := object.union(_acquire, {
	"holders": null,
	"grant": {"project": "", "user": "", "stage": "", "image": "", "network": ""},
	"site": {"exposures": []},
	"attestation": {"assurance": "simulated", "host_data": ""},
	"asset": {
		"residency": {"allowed": [["*"]], "forbidden": []},
		"exposure": {"allowed": [], "forbidden": []},
		"sites": null,
		"retain_until": null,
		"assurance": "simulated",
		"node_ceiling": null,
		"copy_ceiling": null,
		"projects": null,
		"users": null,
		"stages": null,
		"images": null,
		"networks": null,
	},
})

test_an_asset_that_restricts_nothing_needs_nothing_declared if {
	release.allow with input as _unrestricted
}

# Each restriction by itself refuses the job that declares nothing and the site of which nothing is known.
test_what_is_not_declared_satisfies_no_restriction if {
	every name, code in {
		"projects": "PROJECT_NOT_PERMITTED",
		"users": "USER_NOT_PERMITTED",
		"stages": "STAGE_NOT_PERMITTED",
		"networks": "NETWORK_NOT_PERMITTED",
	} {
		_codes(_patched(_unrestricted, $"/asset/{name}", ["some"])) == {code}
		_codes(_patched(_unrestricted, $"/asset/{name}", [])) == {code}
	}
	_codes(_patched(_unrestricted, "/asset/images", ["c0de"])) == {"IMAGE_NOT_PERMITTED", "IMAGE_NOT_ATTESTED"}
	_codes(_patched(_unrestricted, "/asset/images", [""])) == {"IMAGE_NOT_ATTESTED"}
	_codes(_patched(_unrestricted, "/asset/exposure/allowed", [["*"]])) == {"EXPOSURE_UNKNOWN"}
	_codes(_patched(_unrestricted, "/asset/exposure/forbidden", ["US"])) == {"EXPOSURE_UNKNOWN"}
	_codes(_patched(_unrestricted, "/asset/assurance", "cpu")) == {"ASSURANCE_TOO_LOW"}
	_codes(_patched(_unrestricted, "/asset/residency/allowed", [])) == {"JURISDICTION_NOT_PERMITTED"}
	_codes(_patched(_unrestricted, "/asset/node_ceiling", 1)) == {"ASSET_NODE_CEILING_REACHED"}
	_codes(_patched(_unrestricted, "/asset/copy_ceiling", 1)) == {"ASSET_COPY_CEILING_REACHED"}
	_codes(_patched(_unrestricted, "/asset/obligations", {"no_egress": {}})) == {"EGRESS_NOT_PERMITTED"}
}

test_no_egress_is_kept_by_jobs_that_are_inside if {
	inside := _patched(_unrestricted, "/asset/obligations", {"no_egress": {}})
	release.allow with input as _patched(inside, "/grant/network", "none")
	release.allow with input as _patched(inside, "/grant/network", "fabric")
	_codes(_patched(inside, "/grant/network", "egress")) == {"EGRESS_NOT_PERMITTED"}
}

test_an_image_may_be_bound_by_approved_measurements if {
	other := _patched(_acquire, "/attestation/host_data", "")
	_codes(other) == {"IMAGE_NOT_ATTESTED"}
	_codes_with(other, {"image_binding": "measurement-only"}) == {"IMAGE_NOT_ATTESTED"}
	_codes_with(other, {"image_binding": "measurement-only", "measurements": ["aa"]}) == set()
	_codes_with(other, {"measurements": ["aa"]}) == {"IMAGE_NOT_ATTESTED"}
}

test_a_higher_assurance_meets_a_lower_one if {
	release.allow with input as _patched(_acquire, "/asset/assurance", "cpu")
	release.allow with input as _patched(_acquire, "/asset/assurance", "simulated")
	_codes(_patched(_acquire, "/attestation/assurance", "cpu")) == {"ASSURANCE_TOO_LOW"}
}

# Every jurisdiction whose law reaches the site must satisfy the exposure, and each that does not is named.
test_every_exposure_is_judged if {
	deny := release.deny with input as _patched(_acquire, "/site/exposures", ["DE", "US", "JP"])
	{[denial.code, denial.actual] | some denial in deny} == {
		["EXPOSURE_NOT_PERMITTED", "JP"],
		["EXPOSURE_NOT_PERMITTED", "US"],
		["EXPOSURE_FORBIDDEN", "US"],
	}
}

# What two parents demand must hold at once: one clause of each.
test_every_clause_of_residency_is_judged if {
	release.allow with input as _patched(_acquire, "/asset/residency/allowed", [["EU"], ["DE"], ["DE-BY"]])
	_codes(_patched(_acquire, "/asset/residency/allowed", [["EU"], ["NO"]])) == {"JURISDICTION_NOT_PERMITTED"}
	_codes(_patched(_acquire, "/asset/residency/allowed", [["EU"], []])) == {"JURISDICTION_NOT_PERMITTED"}
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

	# Duties are for the broker to understand, or to refuse.
	not array.slice(path, 0, count(path) - 1) in {["asset", "obligations"], ["asset", "obligations", path[2]]}
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

# Null stands for "no restriction" here.
_wrong_type_denied(["asset", name], null) if name in _nullable

_wrong_type_denied(path, value) if {
	not release.allow with input as _patched(_acquire, concat("/", array.concat([""], path)), value)
}

# At this stage the list of candidates is not used, and any list of them may stand there.
_wrong_type_denied(["candidate_sites"], value) if is_array(value)

_nullable := {
	"sites", "retain_until", "node_ceiling", "copy_ceiling", "projects", "users", "stages", "images", "networks",
}

_holds_numbers([7])

test_malformed_input_is_named if {
	deny := release.deny with input as _patched(_acquire, "/grant/node_ceiling", "two")
	some denial in deny
	denial.code == "INPUT_MALFORMED"
	denial.field == "grant.node_ceiling"
	denial.expected == "integer"
	denial.actual == "string"
}

test_malformed_duties_are_denied if {
	every duties in [{"no_logits": null}, {"no_logits": true}, {"output_ceiling": {"tokens": "4"}}, [], {"x": [1]}] {
		_codes(_patched(_acquire, "/asset/obligations", duties)) == {"INPUT_MALFORMED"}
	}
}

test_an_unknown_stage_is_denied if {
	_codes(_patched(_acquire, "/stage", "peek")) == {"INPUT_MALFORMED"}
}

test_malformed_settings_are_denied if {
	_codes_with(_acquire, {"allow_simulated": "no"}) == {"SETTINGS_MALFORMED"}
	_codes_with(_acquire, {"attestation_age_ceiling": "900"}) == {"SETTINGS_MALFORMED"}
	deny := release.deny with input as _acquire with data.settings as {}
	count([1 | some denial in deny; denial.code == "SETTINGS_MALFORMED"]) == 12
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
	"JOB_PREEMPTED": {"/job/state": "preempted"},
	"BUDGET_SPENT": {"/budgets": [{"name": "opens", "scope": "asset", "limit": 3, "spent": 3}]},
	"USAGE_REPORT_MISSING": {"/stage": "renew", "/reporting": {"every": 60, "age": 121}},
	"TENANT_MISMATCH": {"/grant/tenant": "other"},
	"ASSET_NOT_GRANTED": {"/asset/version": 4},
	"ASSET_REVOKED": {"/asset/state": "revoked"},
	"PURPOSE_MISSING": {"/grant/purposes": []},
	"PURPOSE_NOT_PERMITTED": {"/asset/purposes": ["train"]},
	"PROJECT_NOT_PERMITTED": {"/grant/project": "llm-fr"},
	"USER_NOT_PERMITTED": {"/asset/users": ["bob"]},
	"STAGE_NOT_PERMITTED": {"/grant/stage": "inference"},
	"NETWORK_NOT_PERMITTED": {"/asset/networks": ["none"]},
	"EGRESS_NOT_PERMITTED": {"/asset/obligations/no_egress": {}, "/asset/networks": null, "/grant/network": "egress"},
	"IMAGE_NOT_PERMITTED": {"/asset/images": ["beef"]},
	"IMAGE_NOT_ATTESTED": {"/attestation/host_data": "beef"},
	"RETENTION_ENDED": {"/asset/retain_until": 2000},
	"ASSURANCE_TOO_LOW": {"/attestation/assurance": "cpu"},
	"SITE_NOT_PERMITTED": {"/asset/sites": ["oslo"]},
	"EXPOSURE_UNKNOWN": {"/site/exposures": []},
	"EXPOSURE_NOT_PERMITTED": {"/site/exposures/0": "JP"},
	"EXPOSURE_FORBIDDEN": {"/asset/exposure/forbidden": ["NO"]},
	"ASSET_NODE_CEILING_REACHED": {"/holders/nodes": 6},
	"ASSET_COPY_CEILING_REACHED": {"/asset/copy_ceiling": 8},
	"JURISDICTION_NOT_PERMITTED": {"/asset/residency/allowed": [["EU"], ["FR", "EEA-X", "DE-BE"]]},
	"JURISDICTION_FORBIDDEN": {"/asset/residency/forbidden": ["DE"]},
	"SITE_NOT_ACTIVE": {"/site/state": "suspended"},
	"SITE_EXPIRED": {"/site/valid_until": 2000},
	"SITE_NOT_YET_VALID": {"/site/valid_from": 2001},
	"SITE_NOT_GRANTED": {"/grant/sites": ["paris"]},
	"SITE_MISSING": {"/site": null},
	"NODE_MISSING": {"/node": null},
	"NODE_NOT_ACTIVE": {"/node/state": "quarantined"},
	"NODE_CUSTODY": {"/node/custody": "maintenance"},
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
		document := json.patch(_acquire, [{"op": "add", "path": path, "value": value} | some path, value in changes])
		_codes(document) - {"AREA_UNKNOWN"} == {code}
		not release.allow with input as document
	}
}

test_all_faults_are_denied_at_once if {
	apart := {
		"EXPOSURE_UNKNOWN", "ATTESTATION_MISSING", "NODE_MISSING", "SITE_MISSING", "PURPOSE_MISSING",
		# A renewal opens nothing again, and a job is in one state.
		"USAGE_REPORT_MISSING", "JOB_PREEMPTED",
	}
	patches := [{"op": "add", "path": path, "value": value} |
		some code, changes in _one_fault
		not code in apart
		some path, value in changes
	]
	{code | some code, _ in _one_fault} - apart == _codes(json.patch(_acquire, patches)) - {"AREA_UNKNOWN"}
}

_budget(name, limit, spent) := {"name": name, "scope": "asset", "limit": limit, "spent": spent}

_budgeted(stage, budgets) := json.patch(_acquire, [
	{"op": "replace", "path": "/stage", "value": stage},
	{"op": "replace", "path": "/budgets", "value": budgets},
])

test_every_budget_that_is_spent_is_named if {
	budgets := [
		_budget("opens", 4, 4),
		_budget("tokens_served", 4, 3),
		_budget("bytes_served", 4, 9),
		{"name": "key_seconds", "scope": "job", "limit": 7, "spent": 7},
	]
	deny := release.deny with input as _budgeted("acquire", budgets)
	{[denial.code, denial.field, denial.expected, denial.actual] | some denial in deny} == {
		["BUDGET_SPENT", "budgets.asset.opens", "less than 4", "4"],
		["BUDGET_SPENT", "budgets.asset.bytes_served", "less than 4", "9"],
		["BUDGET_SPENT", "budgets.job.key_seconds", "less than 7", "7"],
	}
}

test_a_renewal_opens_nothing_again if {
	_codes(_budgeted("acquire", [_budget("opens", 1, 1)])) == {"BUDGET_SPENT"}
	release.allow with input as _budgeted("renew", [_budget("opens", 1, 1)])
	_codes(_budgeted("renew", [_budget("tokens_served", 1, 1)])) == {"BUDGET_SPENT"}
}

test_a_budget_that_cannot_be_read_is_spent if {
	every budget in [{}, "opens", null, _budget("opens", "9", 1), _budget("opens", 9, "1"), _budget("opens", 9, null)] {
		"BUDGET_SPENT" in _codes(_budgeted("acquire", [budget]))
	}
}

test_a_lease_is_no_longer_than_the_seconds_that_are_left if {
	_seconds(_budgeted("acquire", [_budget("key_seconds", 100, 58)])) == {"lease_ceiling": 42, "re_attest": 42}
	job := {"name": "key_seconds", "scope": "job", "limit": 30, "spent": 5}
	_seconds(_budgeted("renew", [_budget("key_seconds", 100, 58), job])) == {"lease_ceiling": 25, "re_attest": 25}
}

_reports(document) := {obligation.params.every |
	obligations := release.obligations with input as document
	some obligation in obligations
	obligation.code == "report_usage"
}

test_reports_are_asked_for_where_a_budget_rests_on_them if {
	_reports(_acquire) == set()
	_reports(_budgeted("acquire", [_budget("opens", 9, 1), _budget("key_seconds", 9, 1)])) == set()
	every name in ["bytes_opened", "tokens_served", "bytes_served"] {
		_reports(_budgeted("acquire", [_budget(name, 9, 1)])) == {60}
	}
	_reports(_patched(_acquire, "/asset/obligations", {"report_usage": {"every": 7}})) == {7}
	_reports(_patched(_acquire, "/asset/obligations", {"report_usage": {"every": 700}})) == {60}
}

test_one_report_may_be_lost if {
	in_time := json.patch(_budgeted("renew", []), [{"op": "replace", "path": "/reporting", "value": {"every": 60, "age": 120}}])
	release.allow with input as in_time
	late := _patched(in_time, "/reporting/age", 121)
	deny := release.deny with input as late
	{[denial.code, denial.expected, denial.actual] | some denial in deny} == {
		["USAGE_REPORT_MISSING", "a report every 60 seconds", "none for 121 seconds"],
	}
	release.allow with input as _patched(late, "/stage", "acquire")
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
	_codes(_patched(_acquire, "/asset/residency/allowed", [["EU", "EUROPE"]])) == {"AREA_UNKNOWN"}
	_codes(_patched(_acquire, "/asset/exposure/allowed", [["EEA", "EUROPE"]])) == {"AREA_UNKNOWN"}
	_codes(_patched(_acquire, "/asset/exposure/forbidden", ["UK"])) == {"AREA_UNKNOWN", "EXPOSURE_FORBIDDEN"}
	deny := release.deny with input as _patched(_acquire, "/asset/residency/allowed", [["EU"], ["DE", "EUROPE"]])
	{denial.field | some denial in deny} == {"asset.residency.allowed[1][1]"}
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
	lenient := _patched(_unrestricted, "/attestation/simulated", true)
	strict := _patched(lenient, "/asset/assurance", "cpu")
	_codes(lenient) == {"HARDWARE_REQUIRED"}
	_codes_with(strict, {"allow_simulated": true}) == {"ASSURANCE_TOO_LOW"}
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
		"/asset/residency/allowed": [["EU"], ["NO"]],
		"/asset/sites": ["oslo"],
		"/candidate_sites/0/exposures": [],
		"/candidate_sites/0/exposures/0": "JP",
		"/asset/exposure/forbidden": ["NO"],
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
