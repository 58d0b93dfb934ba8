package lint

import "github.com/tenantwatch/tenantwatch/rules"

// checkName finds names that several documents have.
func checkName(run *run, p *rules.Parsed) []Finding {
	first := run.named[p.Name]

	// The first of them is not at fault.
	if p.Name == "" || first == p {
		return nil
	}
	return []Finding{found(p, SeverityWarning, p.LineOf("name"),
		"%s:%d also has the name %s: references from other files mean that one", first.File, first.Line, p.Name)}
}

// firstByName returns the first document with each name.
func firstByName(list []*rules.Parsed) map[string]*rules.Parsed {
	first := map[string]*rules.Parsed{}
	for _, document := range list {
		if first[document.Name] == nil {
			first[document.Name] = document
		}
	}
	return first
}
