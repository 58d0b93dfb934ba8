package lint

import (
	"io/fs"
	"path"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
)

// checkTimeline finds alerting rules without a timeline test.
func checkTimeline(run *run, p *rules.Parsed) []Finding {
	if p.Rule.Alert == nil || run.tested[inSource{p.Source, p.File}] {
		return nil
	}
	return []Finding{found(p, SeverityInfo, p.Line, "it has no timeline test beside it")}
}

// inSource is a file of a source.
type inSource struct {
	source int // index among the sources
	file   string
}

// testedIn returns the rule files that have timeline tests beside them.
func testedIn(sources []fs.FS) map[inSource]bool {
	tested := map[inSource]bool{}
	for i, source := range sources {
		// Ignore errors: Load has reported them.
		_ = rules.Walk(source, func(name string) error {
			if rules.IsTest(name) {
				ext := path.Ext(name)
				tested[inSource{i, strings.TrimSuffix(name, ".test"+ext) + ext}] = true
			}
			return nil
		})
	}
	return tested
}
