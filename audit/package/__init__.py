"""Evidence packages: what the log says about a span of time, with everything that a stranger needs to check it.

`audit.package.build` writes one, `audit.package.verify` checks one, and `audit.package.stranger` holds what goes into
each package so that nobody has to have Keystead.
"""
