package denials_test

import data.lib.denials

_rule := {"title": "A title", "custom": {"code": "CODE", "field": "a.b", "remedy": "Mend it."}}

test_denial if {
	denials.denial(_rule, "x", "y") == {
		"code": "CODE",
		"message": "A title",
		"field": "a.b",
		"expected": "x",
		"actual": "y",
		"remedy": "Mend it.",
	}
}

test_denial_at if {
	denials.denial_at(_rule, "c", "x", "y") == object.union(denials.denial(_rule, "x", "y"), {"field": "c"})
}
