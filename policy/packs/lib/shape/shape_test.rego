package shape_test

import data.lib.shape

_shape := {
	"a.name": "name",
	"a.text": "text",
	"integer": "integer",
	"boolean": "boolean",
	"object": "object",
	"array": "array",
	"texts": "texts",
	"integers": "integers",
	"choice": ["x", "y"],
}

_right := {
	"a": {"name": "n", "text": ""},
	"integer": 3,
	"boolean": false,
	"object": {},
	"array": [1],
	"texts": ["t"],
	"integers": {"k": 1},
	"choice": "y",
}

test_right if {
	shape.mismatches(_right, _shape) == {}
}

test_nothing_is_right_in_another_document if {
	every document in [{}, [], null, 7, "x", {"a": 1}, {"a": {"name": null}}] {
		count(shape.mismatches(document, _shape)) == count(_shape)
	}
}

test_wrong if {
	wrong := {
		"a": {"name": "", "text": 1},
		"integer": 1.5,
		"boolean": "true",
		"object": [],
		"array": {},
		"texts": ["t", 1],
		"integers": {"k": "1"},
		"choice": "z",
	}
	shape.mismatches(wrong, _shape) == {path: $"{kind}" | some path, kind in _shape}
}

test_found if {
	shape.found(_right, "a.name") == "string"
	shape.found(_right, "a.none") == "nothing"
	shape.found(_right, "integer.none") == "nothing"
	shape.found([], "a") == "nothing"
	shape.found({"a": null}, "a") == "null"
}
