# METADATA
# title: Appraisal
# description: |
#   Is this node's verified evidence good enough? Carries every failing finding through, demands a CPU TEE, full binding,
#   debug off and fresh collateral, and states an AR4SI trust vector for every device.
# schemas:
#   - input: schema.appraisal
#   - data.settings: schema.settings
# custom:
#   policy_version: appraisal/1.0.0
package appraisal

import data.lib.ar4si
import data.lib.denials
import data.lib.shape

# METADATA
# title: Decision
# description: The decision document.
# entrypoint: true
decision := {
	"allow": allow,
	"deny": deny,
	"obligations": set(),
	"policy_version": policy_version,
	"trust_vectors": trust_vectors,
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
# description: True only where a CPU TEE was verified and nothing denies.
default allow := false

# Without its shapes a pack checks no types, and must not allow.
allow if {
	count(data.shapes.appraisal.required) > 0
	count(data.shapes.device.required) > 0
	count(data.shapes.finding.required) > 0
	count(data.shapes.settings.required) > 0
	some device in input.devices
	_cpu(device)
	count(deny) == 0
}

# --- Is the question well formed? -------------------------------------------------------------------------------------

# METADATA
# title: The input is not what this pack decides about
# custom:
#   code: INPUT_MALFORMED
#   field: input
#   remedy: Build the input with policy.inputs.AppraisalInput of the same release as this pack.
deny contains denial if {
	some problem in _problems
	denial := denials.denial_at(rego.metadata.rule(), problem.field, problem.expected, problem.actual)
}

_problems contains problem if some problem in shape.problems(input, data.shapes.appraisal)

_problems contains object.union(problem, {"field": $"devices.{number}.{problem.field}"}) if {
	some number, device in input.devices
	some problem in shape.problems(device, data.shapes.device)
}

_problems contains object.union(problem, {"field": $"{entry.where} {problem.field}"}) if {
	some entry in _all_findings
	some problem in shape.problems(entry.finding, data.shapes.finding)
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

# --- What the verifier found ------------------------------------------------------------------------------------------

# A finding brings its own code, title, remedy and reference: a verifier's rules are not repeated here.
deny contains denial if {
	some entry in _all_findings
	not _informs(entry.finding)
	denial := {
		"code": entry.finding.code,
		"message": entry.finding.title,
		"field": $"{entry.where} {entry.finding.field}",
		"expected": entry.finding.expected,
		"actual": entry.finding.actual,
		"remedy": entry.finding.remedy,
		"reference": entry.finding.reference,
	}
}

_informs(finding) if finding.severity == "inform"

_all_findings contains {"where": "node", "finding": finding} if some finding in input.node_findings

_all_findings contains {"where": $"{device.slot}", "finding": finding} if {
	some device in input.devices
	some finding in device.findings
}

# --- The node as a whole ----------------------------------------------------------------------------------------------

# METADATA
# title: No CPU TEE vouches for this node
# custom:
#   code: CPU_MISSING
#   field: devices
#   remedy: Send evidence of the CPU's TEE in slot cpu0.
deny contains denial if {
	not _has_cpu
	denial := denials.denial(
		rego.metadata.rule(),
		$"a device in slot cpu0 of a scheme in {data.settings.cpu_schemes}",
		$"{[$"{device.slot} {device.scheme}" | some device in input.devices]}",
	)
}

_has_cpu if {
	some device in input.devices
	_cpu(device)
}

_cpu(device) if {
	device.slot == "cpu0"
	device.scheme in data.settings.cpu_schemes
}

# METADATA
# title: Two devices are in one slot
# custom:
#   code: SLOT_REPEATED
#   field: devices
#   remedy: Send each device's evidence once, in a slot of its own.
deny contains denial if {
	not _slots_distinct
	denial := denials.denial(rego.metadata.rule(), "every slot once", $"{[device.slot | some device in input.devices]}")
}

_slots_distinct if {
	is_array(input.devices)
	count({device.slot | some device in input.devices}) == count(input.devices)
}

# METADATA
# title: The evidence does not bind the node's keys and devices
# custom:
#   code: BINDING_INCOMPLETE
#   field: binding_level
#   remedy: Let the agent put the runtime data, with the digest of every device's evidence, into the CPU's evidence.
deny contains denial if {
	not _binding_accepted
	denial := denials.denial(rego.metadata.rule(), $"one of {data.settings.binding_levels}", $"{input.binding_level}")
}

_binding_accepted if input.binding_level in data.settings.binding_levels

# --- Each device ------------------------------------------------------------------------------------------------------

# METADATA
# title: The device is simulated
# custom:
#   code: SIMULATED_DEVICE
#   field: simulated
#   remedy: Use hardware; simulated TEEs are for demonstrations, and need data.settings.allow_simulated.
deny contains denial if {
	some device in input.devices
	not _origin_accepted(device)
	denial := denials.denial_at(rego.metadata.rule(), $"{device.slot} simulated", "false", $"{device.simulated}")
}

_origin_accepted(device) if device.simulated == false

_origin_accepted(_) if data.settings.allow_simulated == true

# METADATA
# title: Debugging is not shown to be off
# custom:
#   code: DEBUG_NOT_EXCLUDED
#   field: claims.debug
#   remedy: Start the TEE with debugging disabled.
deny contains denial if {
	some device in input.devices
	not _debug_excluded(device)
	denial := denials.denial_at(
		rego.metadata.rule(),
		$"{device.slot} claims.debug",
		"false",
		$"{device.claims.debug}",
	)
}

# A scheme that has no debug state may not claim one that is on either.
_debug_excluded(device) if device.claims.debug == false

_debug_excluded(device) if {
	device.scheme in data.settings.schemes_without_debug
	is_object(device.claims)
	object.get(device.claims, "debug", false) == false
}

# METADATA
# title: The launch measurement is not an approved one
# custom:
#   code: MEASUREMENT_NOT_APPROVED
#   field: claims.measurement
#   remedy: Start an approved image, or approve this one's measurement in data.settings.measurements.
deny contains denial if {
	some device in input.devices
	_cpu(device)
	not _measurement_accepted(device)
	denial := denials.denial_at(
		rego.metadata.rule(),
		$"{device.slot} claims.measurement",
		$"one of {data.settings.measurements}",
		$"{device.claims.measurement}",
	)
}

_measurement_accepted(device) if _measurement_approved(device)

_measurement_accepted(_) if data.settings.measurements == []

_measurement_approved(device) if device.claims.measurement in data.settings.measurements

# METADATA
# title: Collateral is older than accepted
# custom:
#   code: COLLATERAL_STALE
#   field: collateral_age
#   remedy: Import fresh collateral into the broker.
deny contains denial if {
	some device in input.devices
	some name, age in device.collateral_age
	not _collateral_fresh(name, age)
	denial := denials.denial_at(
		rego.metadata.rule(),
		$"{device.slot} collateral_age.{name}",
		$"at most {_age_ceiling(name)} seconds",
		$"{age}",
	)
}

_collateral_fresh(name, age) if {
	age >= 0
	age <= _age_ceiling(name)
}

_age_ceiling(name) := ceiling if {
	ceilings := data.settings.collateral_age_ceiling
	ceiling := object.get(ceilings, name, ceilings["*"])
}

# --- Trust vectors ----------------------------------------------------------------------------------------------------

# METADATA
# title: Trust vectors
# description: |
#   AR4SI claims of each device by its slot. What is not appraised is none, never affirming: executables without approved
#   measurements, and an identity that is not proven.
trust_vectors[slot] := vector if {
	some device in input.devices
	slot := device.slot
	is_string(slot)
	_slots_distinct
	vector := {
		"instance-identity": _identity_claim(device),
		"configuration": _configuration_claim(device),
		"executables": _executables_claim(device),
		"hardware": _hardware_claim(device),
		"runtime-opaque": _hardware_claim(device),
	}
}

_identity_claim(device) := ar4si.affirming if {
	is_string(device.identity)
} else := ar4si.none

_configuration_claim(device) := ar4si.affirming if {
	_debug_excluded(device)
} else := ar4si.contraindicated

_executables_claim(device) := ar4si.affirming if {
	_cpu(device)
	_measurement_approved(device)
} else := ar4si.none if {
	_measurement_accepted(device)
} else := ar4si.none if {
	not _cpu(device)
} else := ar4si.contraindicated

# Genuine, current hardware keeps memory confidential: `runtime-opaque` follows `hardware`.
_hardware_claim(device) := ar4si.contraindicated if {
	not _sound(device)
} else := ar4si.warning if {
	_warned(device)
} else := ar4si.affirming

_sound(device) if {
	is_array(device.findings)
	every finding in device.findings {
		_informs(finding)
	}
	_origin_accepted(device)
	is_object(device.collateral_age)
	every name, age in device.collateral_age {
		_collateral_fresh(name, age)
	}
}

_warned(device) if device.simulated == true

_warned(device) if count(device.findings) > 0
