package appraisal_test

import data.appraisal

_cpu := {
	"slot": "cpu0",
	"scheme": "snp",
	"simulated": false,
	"identity": "amd-chip-id:00ff",
	"claims": {"debug": false, "measurement": "aa", "vmpl": 0},
	"findings": [],
	"collateral_age": {"crl": 60},
}

_gpu := {
	"slot": "gpu0",
	"scheme": "nvgpu",
	"simulated": false,
	"identity": "nvidia-gpu:4100",
	"claims": {"driver": "570.1"},
	"findings": [],
	"collateral_age": {},
}

_node := {
	"now": 1000,
	"binding_level": "key-and-devices",
	"node_findings": [],
	"devices": [_cpu, _gpu],
}

_finding := {
	"code": "SNP_CHAIN",
	"severity": "fail",
	"field": "VCEK",
	"expected": "signed by ASK",
	"actual": "another signature",
	"title": "The chain does not hold",
	"remedy": "Send the right certificates.",
	"reference": "AMD 57230, revision 1.2, section 3",
}

_affirmed := {
	"instance-identity": 2,
	"configuration": 2,
	"executables": 0,
	"hardware": 2,
	"runtime-opaque": 2,
}

_patched(document, path, value) := json.patch(document, [{"op": "add", "path": path, "value": value}])

_codes(document) := codes if {
	deny := appraisal.deny with input as document
	codes := {denial.code | some denial in deny}
}

_codes_with(document, changes) := codes if {
	settings := object.union(data.settings, changes)
	deny := appraisal.deny with input as document with data.settings as settings
	codes := {denial.code | some denial in deny}
}

# --- Yes --------------------------------------------------------------------------------------------------------------

test_a_sound_node_is_allowed if {
	decision := appraisal.decision with input as _node
	decision == {
		"allow": true,
		"deny": set(),
		"obligations": set(),
		"policy_version": "appraisal/1.0.0",
		"trust_vectors": {"cpu0": _affirmed, "gpu0": _affirmed},
	}
}

test_an_approved_measurement_affirms_executables if {
	settings := object.union(data.settings, {"measurements": ["bb", "aa"]})
	decision := appraisal.decision with input as _node with data.settings as settings
	decision.allow
	decision.trust_vectors.cpu0.executables == 2
	decision.trust_vectors.gpu0.executables == 0
}

test_an_informing_finding_warns if {
	document := _patched(_node, "/devices/1/findings/-", object.union(_finding, {"severity": "inform"}))
	decision := appraisal.decision with input as document
	decision.allow
	decision.trust_vectors.gpu0 == object.union(_affirmed, {"hardware": 32, "runtime-opaque": 32})
	decision.trust_vectors.cpu0 == _affirmed
}

test_an_unproven_identity_is_no_claim if {
	decision := appraisal.decision with input as _patched(_node, "/devices/0/identity", null)
	decision.allow
	decision.trust_vectors.cpu0["instance-identity"] == 0
}

# --- No: what is malformed --------------------------------------------------------------------------------------------

test_empty_inputs_are_denied if {
	every document in [{}, [], null, true, 7, "node"] {
		decision := appraisal.decision with input as document
		not decision.allow
		count(decision.deny) > 0
		decision.trust_vectors == {}
	}
}

test_no_input_is_denied if {
	not appraisal.decision.allow
	count(appraisal.decision.deny) > 0
}

_full := json.patch(_node, [
	{"op": "add", "path": "/node_findings/-", "value": object.union(_finding, {"severity": "inform"})},
	{"op": "add", "path": "/devices/0/findings/-", "value": object.union(_finding, {"severity": "inform"})},
])

test_the_full_input_is_allowed if {
	appraisal.allow with input as _full
}

# Every member down to a claim that policy reads; elements of arrays are taken away as wholes elsewhere.
_members contains path if {
	walk(_full, [path, _])
	count(path) > 0
	is_string(path[count(path) - 1])
	not _unread(path)
}

_unread(path) if {
	"claims" in path
	not path[count(path) - 1] in {"claims", "debug"}
}

# A scheme without a debug state need not claim one, and a collateral that was not used has no age.
_unread(path) if {
	path[count(path) - 2] == "collateral_age"
}

_pointer(path) := concat("/", array.concat([""], [$"{part}" | some part in path]))

test_each_absent_field_is_denied if {
	count(_members) > 30
	every path in _members {
		document := json.patch(_full, [{"op": "remove", "path": _pointer(path)}])
		not appraisal.allow with input as document
	}
}

test_each_wrong_type_is_denied if {
	every path in _members {
		every value in [null, true, 7, "text", [7], {"x": "7"}] {
			_wrong_type_denied(path, value)
		}
	}
}

_wrong_type_denied(path, value) if {
	walk(_full, [path, right])
	type_name(right) == type_name(value)
}

_wrong_type_denied(path, value) if {
	document := json.patch(_full, [{"op": "replace", "path": _pointer(path), "value": value}])
	not appraisal.allow with input as document
}

# An identity may be null: it was not proven.
_wrong_type_denied(path, null) if path[count(path) - 1] == "identity"

# A scheme without a debug state may claim anything else.
_wrong_type_denied(path, {"x": "7"}) if path[count(path) - 1] == "claims"

test_malformed_input_is_named if {
	deny := appraisal.deny with input as _patched(_node, "/devices/1/simulated", "no")
	some denial in deny
	denial.code == "INPUT_MALFORMED"
	denial.field == "devices.1.simulated"
	denial.expected == "boolean"
	denial.actual == "string"
}

test_malformed_settings_are_denied if {
	_codes_with(_node, {"measurements": "aa"}) == {"MEASUREMENT_NOT_APPROVED", "SETTINGS_MALFORMED"}
	_codes_with(_node, {"allow_simulated": "yes"}) == {"SETTINGS_MALFORMED"}
	deny := appraisal.deny with input as _node with data.settings as {}
	count([1 | some denial in deny; denial.code == "SETTINGS_MALFORMED"]) == 12
}

test_without_its_shapes_nothing_is_allowed if {
	appraisal.allow with input as _node
	every name in ["appraisal", "device", "finding", "settings"] {
		shapes := object.remove(data.shapes, [name])
		not appraisal.allow with input as _node with data.shapes as shapes
	}
}

# --- No: each rule ----------------------------------------------------------------------------------------------------

test_each_fault_alone_is_denied_by_its_code if {
	every code, change in {
		"SNP_CHAIN": ["/devices/1/findings/-", _finding],
		"BINDING_INCOMPLETE": ["/binding_level", "key"],
		"CPU_MISSING": ["/devices", [_gpu]],
		"SLOT_REPEATED": ["/devices/1/slot", "cpu0"],
		"SIMULATED_DEVICE": ["/devices/1/simulated", true],
		"DEBUG_NOT_EXCLUDED": ["/devices/0/claims/debug", true],
		"COLLATERAL_STALE": ["/devices/0/collateral_age/crl", 2592001],
	} {
		document := _patched(_node, change[0], change[1])
		_codes(document) == {code}
		not appraisal.allow with input as document
	}
}

test_a_finding_keeps_its_words if {
	on_device := appraisal.deny with input as _patched(_node, "/devices/0/findings/-", _finding)
	on_device == {{
		"code": "SNP_CHAIN",
		"message": "The chain does not hold",
		"field": "cpu0 VCEK",
		"expected": "signed by ASK",
		"actual": "another signature",
		"remedy": "Send the right certificates.",
		"reference": "AMD 57230, revision 1.2, section 3",
	}}
	on_node := appraisal.deny with input as _patched(_node, "/node_findings/-", _finding)
	{denial.field | some denial in on_node} == {"node VCEK"}
}

# Two vectors of one slot would conflict, and a slot that is no string cannot name one.
test_slots_that_name_no_device_have_no_vector if {
	repeated := json.patch(_node, [
		{"op": "replace", "path": "/devices/1/slot", "value": "cpu0"},
		{"op": "replace", "path": "/devices/1/identity", "value": null},
	])
	decision := appraisal.decision with input as repeated
	not decision.allow
	decision.trust_vectors == {}
	unnamed := appraisal.trust_vectors with input as _patched(_node, "/devices/1/slot", 7)
	object.keys(unnamed) == {"cpu0"}
}

test_a_failing_finding_contraindicates if {
	vectors := appraisal.trust_vectors with input as _patched(_node, "/devices/0/findings/-", _finding)
	vectors.cpu0 == object.union(_affirmed, {"hardware": 96, "runtime-opaque": 96})
	vectors.gpu0 == _affirmed
}

test_a_finding_of_unknown_severity_fails if {
	document := _patched(_node, "/devices/0/findings/-", object.union(_finding, {"severity": "note"}))
	_codes(document) == {"INPUT_MALFORMED", "SNP_CHAIN"}
}

test_debug_must_be_shown_to_be_off if {
	unclaimed := json.remove(_node, ["devices/0/claims/debug"])
	_codes(unclaimed) == {"DEBUG_NOT_EXCLUDED"}
	vectors := appraisal.trust_vectors with input as unclaimed
	vectors.cpu0.configuration == 96

	# A scheme without a debug state may not claim one that is on.
	_codes(_patched(_node, "/devices/1/claims/debug", true)) == {"DEBUG_NOT_EXCLUDED"}
	_codes(_patched(_node, "/devices/1/claims/debug", false)) == set()
	_codes_with(_node, {"schemes_without_debug": []}) == {"DEBUG_NOT_EXCLUDED"}
}

test_simulated_devices_need_the_setting if {
	document := _patched(_node, "/devices/0/simulated", true)
	vectors := appraisal.trust_vectors with input as document
	vectors.cpu0.hardware == 96
	settings := object.union(data.settings, {"allow_simulated": true})
	decision := appraisal.decision with input as document with data.settings as settings
	decision.allow
	decision.trust_vectors.cpu0.hardware == 32
}

test_only_approved_measurements_pass_where_some_are_named if {
	_codes_with(_node, {"measurements": ["bb"]}) == {"MEASUREMENT_NOT_APPROVED"}
	settings := object.union(data.settings, {"measurements": ["bb"]})
	vectors := appraisal.trust_vectors with input as _node with data.settings as settings
	vectors.cpu0.executables == 96
	vectors.gpu0.executables == 0
	unmeasured := json.remove(_node, ["devices/0/claims/measurement"])
	_codes_with(unmeasured, {"measurements": ["bb"]}) == {"MEASUREMENT_NOT_APPROVED"}
}

test_the_cpu_is_of_an_accepted_scheme_in_its_slot if {
	_codes_with(_node, {"cpu_schemes": ["tdx"]}) == {"CPU_MISSING"}
	_codes(_patched(_node, "/devices/0/slot", "cpu1")) == {"CPU_MISSING"}
}

test_collateral_has_ceilings_by_name if {
	_codes_with(_node, {"collateral_age_ceiling": {"*": 2592000, "crl": 59}}) == {"COLLATERAL_STALE"}
	_codes_with(_node, {"collateral_age_ceiling": {"*": 1, "crl": 60}}) == set()
	_codes(_patched(_node, "/devices/0/collateral_age/crl", -1)) == {"COLLATERAL_STALE"}
	vectors := appraisal.trust_vectors with input as _patched(_node, "/devices/0/collateral_age/crl", -1)
	vectors.cpu0.hardware == 96
}

# Without a ceiling for other names, what has none of its own is refused.
test_collateral_without_a_ceiling_is_stale if {
	settings := object.union(object.remove(data.settings, ["collateral_age_ceiling"]), {"collateral_age_ceiling": {}})
	deny := appraisal.deny with input as _node with data.settings as settings
	{denial.code | some denial in deny} == {"COLLATERAL_STALE"}
}

test_all_faults_are_denied_at_once if {
	document := json.patch(_node, [
		{"op": "add", "path": "/node_findings/-", "value": object.union(_finding, {"code": "NODE_NONCE"})},
		{"op": "add", "path": "/devices/0/findings/-", "value": _finding},
		{"op": "replace", "path": "/binding_level", "value": "none"},
		{"op": "replace", "path": "/devices/0/claims/debug", "value": true},
		{"op": "replace", "path": "/devices/0/simulated", "value": true},
		{"op": "replace", "path": "/devices/0/collateral_age/crl", "value": 9999999},
	])
	_codes_with(document, {"measurements": ["bb"]}) == {
		"BINDING_INCOMPLETE",
		"COLLATERAL_STALE",
		"DEBUG_NOT_EXCLUDED",
		"MEASUREMENT_NOT_APPROVED",
		"NODE_NONCE",
		"SIMULATED_DEVICE",
		"SNP_CHAIN",
	}
}
