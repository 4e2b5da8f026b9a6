package shape_test

import data.lib.shape

_kinds := {
	"name": "name",
	"text": "text",
	"integer": "integer",
	"boolean": "boolean",
	"object": "object",
	"array": "array",
	"texts": "texts",
	"integers": "integers",
	"duties": "duties",
	"choice": ["x", "y"],
	"bound": "integer or null",
	"set": "texts or null",
}

_shape := {
	"required": [{"field": $"a.{name}", "path": ["a", name], "kind": kind} | some name, kind in _kinds],
	"nullable": {"b": [{"field": "b.c", "path": ["b", "c"], "kind": "name"}]},
}

_right := {
	"a": {
		"name": "n",
		"text": "",
		"integer": 3,
		"boolean": false,
		"object": {},
		"array": [1],
		"texts": ["t"],
		"integers": {"k": 1},
		"duties": {"d": {}, "e": {"k": 1}},
		"choice": "y",
		"bound": 4,
		"set": ["t"],
	},
	"b": {"c": "n"},
}

test_right if {
	shape.problems(_right, _shape) == set()
	shape.problems(object.union(object.remove(_right, ["b"]), {"b": null}), _shape) == set()
}

test_null_is_right_where_it_may_stand if {
	shape.problems(object.union(_right, {"a": {"bound": null, "set": null}}), _shape) == set()
}

test_nothing_is_right_in_another_document if {
	every document in [{}, [], null, 7, "x", {"a": 1}, {"a": {"name": null}}] {
		count(shape.problems(document, _shape)) == count(_kinds) + 1
	}
}

test_wrong if {
	wrong := {"a": {
		"name": "",
		"text": 1,
		"integer": 1.5,
		"boolean": "true",
		"object": [],
		"array": {},
		"texts": ["t", 1],
		"integers": {"k": "1"},
		"duties": {"d": {"k": "1"}},
		"choice": "z",
		"bound": 1.5,
		"set": [1],
	}}
	problems := shape.problems(wrong, _shape)
	{problem.field | some problem in problems} == {"b.c"} | {$"a.{name}" | some name, _ in _kinds}
	{"field": "a.choice", "expected": `["x", "y"]`, "actual": "string"} in problems
	{"field": "a.integer", "expected": "integer", "actual": "number"} in problems
	{"field": "b.c", "expected": "name", "actual": "nothing"} in problems
}

test_null_is_something if {
	some problem in shape.problems(json.patch(_right, [{"op": "replace", "path": "a/name", "value": null}]), _shape)
	problem == {"field": "a.name", "expected": "name", "actual": "null"}
}
