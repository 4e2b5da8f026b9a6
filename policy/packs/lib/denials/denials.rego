# METADATA
# title: Denials
# description: Turns the annotations of a rule and two texts into one entry of `deny`.
package lib.denials

# METADATA
# title: A denial
# description: |
#   `rule` is `rego.metadata.rule()` of the denying rule, whose annotations hold title, code, field and remedy.
denial(rule, expected, actual) := {
	"code": rule.custom.code,
	"message": rule.title,
	"field": rule.custom.field,
	"expected": expected,
	"actual": actual,
	"remedy": rule.custom.remedy,
}

# METADATA
# title: A denial about one thing among several
# description: As `denial`; `field` says which one instead of the annotation.
denial_at(rule, field, expected, actual) := {
	"code": rule.custom.code,
	"message": rule.title,
	"field": field,
	"expected": expected,
	"actual": actual,
	"remedy": rule.custom.remedy,
}
