# METADATA
# title: Shapes
# description: |
#   Is a document of the types that a pack reads? Rego orders values of different types instead of failing, so that a
#   comparison with a wrong type can hold; every pack therefore denies what has not its shape. The shapes stand in
#   `data.shapes`, generated from the models that make the documents (`policy.inputs`).
package lib.shape

# METADATA
# title: Problems
# description: |
#   Every member of `document` that is not of the kind that `shape` gives, as `{field, expected, actual}`. Kinds are `name`
#   (a string that is not empty), `text`, `integer`, `boolean`, `object`, `array`, `texts` (an array of strings),
#   `integers` (an object whose values are integers), `duties` (an object whose values are `integers`), and a list for one of these texts; `integer or null` and
#   `texts or null` may also be null.
problems(document, shape) := _required_problems(document, shape) | _nullable_problems(document, shape)

_required_problems(document, shape) := {_problem(document, entry) |
	some entry in shape.required
	not _matches(document, entry)
}

_nullable_problems(document, shape) := {_problem(document, entry) |
	some name, entries in shape.nullable
	not document[name] == null
	some entry in entries
	not _matches(document, entry)
}

_problem(document, entry) := {
	"field": entry.field,
	"expected": $"{entry.kind}",
	"actual": _found(document, entry.path),
}

_found(document, path) := type_name(_at(document, path)) if {
	_at(document, path) != {"absent"}
} else := "nothing"

# A set is no JSON value: it marks what is not there.
_at(document, path) := object.get(document, path, {"absent"}) if {
	is_object(document)
} else := {"absent"}

_matches(document, entry) if {
	is_object(document)
	_is(entry.kind, object.get(document, entry.path, {"absent"}))
}

_is("name", value) if {
	is_string(value)
	value != ""
}

_is("text", value) if is_string(value)

_is("integer", value) if _integer(value)

_is("boolean", value) if is_boolean(value)

_is("object", value) if is_object(value)

_is("array", value) if is_array(value)

_is("texts", value) if _texts(value)

_is("integers", value) if _integers(value)

_is("duties", value) if {
	is_object(value)
	every item in value {
		_integers(item)
	}
}

_is("integer or null", value) if _integer(value)

_is("integer or null", value) if value == null

_is("texts or null", value) if _texts(value)

_is("texts or null", value) if value == null

_is(kind, value) if {
	is_array(kind)
	value in kind
}

_texts(value) if {
	is_array(value)
	every item in value {
		is_string(item)
	}
}

_integers(value) if {
	is_object(value)
	every item in value {
		_integer(item)
	}
}

_integer(value) if {
	is_number(value)
	floor(value) == value
}
