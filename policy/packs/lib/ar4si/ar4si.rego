# METADATA
# title: AR4SI
# description: The numbers of trustworthiness claims, named once.
# related_resources:
#   - ref: https://datatracker.ietf.org/doc/draft-ietf-rats-ar4si/
#     description: draft-ietf-rats-ar4si, section 2.3.2 (tiers)
package lib.ar4si

# METADATA
# title: None
# description: No claim is made about this.
none := 0

# METADATA
# title: Affirming
# description: The Verifier affirms this aspect of the Attester.
affirming := 2

# METADATA
# title: Warning
# description: Needs attention, and does not by itself deny.
warning := 32

# METADATA
# title: Contraindicated
# description: The Verifier asserts that this aspect is not to be trusted.
contraindicated := 96
