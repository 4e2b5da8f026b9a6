package residency_test

import data.lib.residency

test_permitted if {
	residency.permitted("DE", ["DE"])
	residency.permitted("DE-BY", ["DE"])
	residency.permitted("DE-BY", ["DE-BY"])
	residency.permitted("DE-BY", ["US", "EU"])
	residency.permitted("NO", ["EEA"])
	residency.permitted("JP", ["*"])
}

test_not_permitted if {
	not residency.permitted("DE", ["DE-BY"])
	not residency.permitted("DE-BY", ["DE-BE"])
	not residency.permitted("NO", ["EU"])
	not residency.permitted("GB", ["EEA"])
	not residency.permitted("CH", ["EEA"])
	not residency.permitted("de", ["de", "EU"])
	not residency.permitted("DE", [])
	not residency.permitted("DE", "EU")
	not residency.permitted("DE", {"x": "EU"})
	not residency.permitted("XX", ["*"])
	not residency.permitted("DE-XX", ["*"])
	not residency.permitted("FR-NC", ["FR", "EU", "*"])
	not residency.permitted("NO-21", ["EEA"])
	not residency.permitted("EU", ["EU", "*"])
	not residency.permitted("", ["", "*"])
	not residency.permitted(null, [null, "*"])
}

test_permitted_by_all if {
	residency.permitted_by_all("DE-BY", [])
	residency.permitted_by_all("DE-BY", [["EU"], ["FR", "DE"]])
	not residency.permitted_by_all("DE-BY", [["EU"], ["FR"]])
	not residency.permitted_by_all("DE-BY", [[]])
	not residency.permitted_by_all("DE-BY", ["EU"])
	not residency.permitted_by_all("DE-BY", {"x": ["EU"]})
	not residency.permitted_by_all("XX", [])
}

test_satisfied if {
	residency.satisfied("DE-BY", {"allowed": [["EU"], ["DE"]], "forbidden": ["FR"]})
	not residency.satisfied("DE-BY", {"allowed": [["EU"], ["FR"]], "forbidden": []})
	not residency.satisfied("DE-BY", {"allowed": [["EU"]], "forbidden": ["DE-BY"]})
	not residency.satisfied("DE-BY", {"allowed": [["EU"]]})
	not residency.satisfied("DE-BY", null)
}

test_clear if {
	residency.clear("DE-BY", [])
	residency.clear("DE-BY", ["US", "DE-BE", "FR"])
	residency.clear("NO", ["EU"])
}

test_not_clear if {
	not residency.clear("DE", ["DE"])
	not residency.clear("DE-BY", ["DE"])
	not residency.clear("DE-BY", ["EU"])
	not residency.clear("DE-BY", ["*"])
	not residency.clear("DE-BY", ["UK"])
	not residency.clear("DE-BY", [7])
	not residency.clear("DE-BY", "US")
	not residency.clear("XX", [])
	not residency.clear("DE-BY", ["DE-XX"])
	not residency.clear(null, [])
}

# Without its subdivision a site may stand in any part of its country.
test_a_country_is_not_clear_of_its_parts if {
	not residency.clear("US", ["US-CA"])
	residency.clear("US-NY", ["US-CA"])
}

test_known if {
	every area in ["*", "EU", "EEA", "DE", "DE-BY"] {
		residency.known(area)
	}
	every area in ["UK", "DE-XX", "XX-BY", "DE-", "DE-BY-1", "EUROPE", "eu", "", null, 7, []] {
		not residency.known(area)
	}
}

test_the_groups_hold_countries if {
	count(data.jurisdictions.groups.EU) == 27
	count(data.jurisdictions.groups.EEA) == 30
	count(data.jurisdictions.groups.EFTA) == 4
	count(data.jurisdictions.countries) == 249
	every subdivision, _ in data.jurisdictions.subdivisions {
		data.jurisdictions.countries[split(subdivision, "-")[0]]
	}
	every members in data.jurisdictions.groups {
		every member, _ in members {
			data.jurisdictions.countries[member] == true
		}
	}
	every group, _ in data.jurisdictions.groups {
		not data.jurisdictions.countries[group]
	}
}
