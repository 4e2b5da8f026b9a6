# METADATA
# title: Shapes
# description: |
#   Is a document of the types that a pack reads? Rego orders values of different types instead of failing, so that a
#   comparison with a wrong type can hold; every pack therefore denies what has not its shape.
package lib.shape

# METADATA
# title: Mismatches
# description: |
#   The paths of `document` (names joined by dots) whose value is not of the kind that `shape` gives, each with that
#   kind. Kinds are `name` (a string that is not empty), `text`, `integer`, `boolean`, `object`, `array`, `texts`
#   (an array of strings), `integers` (an object whose values are integers), and a list for one of these texts.
mismatches(document, shape) := {path: $"{kind}" |
	some path, kind in shape
	not _matches(document, path, kind)
}

# METADATA
# title: What stands at a path
# description: The type of the value at `path` in words for a denial's `actual`.
found(document, path) := type_name(_at(document, path)) if {
	_at(document, path) != {"absent"}
} else := "nothing"

_matches(document, path, kind) if _is(kind, _at(document, path))

# A set is no JSON value: it marks what is not there.
_at(document, path) := object.get(document, split(path, "."), {"absent"}) if {
	is_object(document)
} else := {"absent"}

_is("name", value) if {
	is_string(value)
	value != ""
}

_is("text", value) if is_string(value)

_is("integer", value) if _integer(value)

_is("boolean", value) if is_boolean(value)

_is("object", value) if is_object(value)

_is("array", value) if is_array(value)

_is("texts", value) if {
	is_array(value)
	every item in value {
		is_string(item)
	}
}

_is("integers", value) if {
	is_object(value)
	every item in value {
		_integer(item)
	}
}

_is(kind, value) if {
	is_array(kind)
	value in kind
}

_integer(value) if {
	is_number(value)
	floor(value) == value
}
