package lint

import (
	"regexp"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
)

// The form of all tags, and of the tags of MITRE ATT&CK: a technique, group, software or the like
// by number, or a tactic by name.
var (
	tagForm    = regexp.MustCompile(`^[a-z0-9_-]+\.[a-z0-9._-]+$`)
	attackForm = regexp.MustCompile(`^attack\.([tgscm][0-9]{4}(\.[0-9]{3})?|[a-z]+(-[a-z]+)*)$`)
)

// checkTags finds tags that other tools will not understand.
func checkTags(_ *run, p *rules.Parsed) (list []Finding) {
	warn := func(format string, args ...any) {
		list = append(list, found(p, SeverityWarning, p.LineOf("tags"), format, args...))
	}
	for _, tag := range p.Texts("tags") {
		better := strings.ReplaceAll(strings.ToLower(tag), "_", "-")
		isAttack := strings.HasPrefix(strings.ToLower(tag), "attack.")
		switch {
		case isAttack && !attackForm.MatchString(tag) && attackForm.MatchString(better):
			warn("the tag %s should be %s", tag, better)
		case isAttack && !attackForm.MatchString(tag):
			warn("the tag %s is neither a technique, such as attack.t1110 or attack.t1110.004, "+
				"nor a tactic, such as attack.credential-access", tag)
		case !tagForm.MatchString(tag):
			warn("the tag %q does not have Sigma's form, namespace.name in lower case", tag)
		}
	}
	return list
}
