package ar4si_test

import data.lib.ar4si

# draft-ietf-rats-ar4si, section 2.3.2: none is -1 to 1, affirming 2 to 31, warning 32 to 95, contraindicated from 96.
test_tiers if {
	[ar4si.none, ar4si.affirming, ar4si.warning, ar4si.contraindicated] == [0, 2, 32, 96]
}
