"""Reference values and advisories: what an operator accepts, who signed it, and what is held against it."""
