package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Need says which settings a command requires. The others may be absent, but those that are set must be
// valid.
type Need struct {
	Tenant  bool // a tenant with credentials
	Receive bool // the token of its log stream
}

// Faults is an error with all invalid settings, one "VARIABLE: reason" each.
type Faults []string

func (f *Faults) add(variable, format string, args ...any) {
	*f = append(*f, variable+": "+fmt.Sprintf(format, args...))
}

// withoutConsequences drops "is not set" for a secret whose file could not be read.
func (f Faults) withoutConsequences() Faults {
	return slices.DeleteFunc(slices.Clone(f), func(fault string) bool {
		name, reason, _ := strings.Cut(fault, ": ")
		fileFailed := slices.ContainsFunc(f, func(other string) bool {
			return strings.HasPrefix(other, name+"_FILE: ")
		})
		return fileFailed && strings.HasPrefix(reason, "is not set")
	})
}

// Error lists the faults, one a line.
func (f Faults) Error() string {
	return "invalid settings:\n  " + strings.Join(f, "\n  ")
}

// Load reads and checks the environment. Its error is Faults with every invalid setting.
func Load(environ []string, required Need) (*Config, error) {
	var cfg Config
	var wrong Faults

	// An empty value counts as not set.
	vars := map[string]string{}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); value != "" {
			vars[name] = value
		}
	}

	// Clean the variables before they are parsed, so that each fault is reported once.
	names, secrets := settingNames(reflect.TypeFor[Config](), "", vars)
	trimValues(vars, names, secrets, &wrong)
	readSecretFiles(vars, secrets, &wrong)
	reportUnknown(vars, names, secrets, &wrong)
	cfg.parse(vars, &wrong)

	// Every check runs, whatever the others found: all faults are reported at once.
	cfg.checkTenants(vars, required, &wrong)
	cfg.checkPull(&wrong)
	cfg.checkKafka(&wrong)
	cfg.checkClickHouse(&wrong)
	cfg.checkProcess(&wrong)

	if len(wrong) > 0 {
		// Some checks go through maps; the order of the faults must not change from run to run.
		slices.Sort(wrong)
		return nil, wrong.withoutConsequences()
	}
	return &cfg, nil
}

// parse fills the fields from the variables.
func (c *Config) parse(vars map[string]string, wrong *Faults) {
	err := env.ParseWithOptions(c, env.Options{Environment: vars})
	if err == nil {
		return
	}

	var several env.AggregateError
	if !errors.As(err, &several) {
		wrong.add("settings", "%v", err)
		return
	}

	// One fault for each variable that cannot be parsed.
	for _, err := range several.Errors {
		wrong.add("settings", "%v", err)
	}
}

// settingNames returns the variables of a config type, by its tags. A list has an entry for each index that
// the environment uses, from 0 to the first gap, and at least one.
func settingNames(t reflect.Type, prefix string, vars map[string]string) (names, secrets []string) {
	add := func(t reflect.Type, prefix string) {
		nestedNames, nestedSecrets := settingNames(t, prefix, vars)
		names, secrets = append(names, nestedNames...), append(secrets, nestedSecrets...)
	}

	for i := range t.NumField() {
		field := t.Field(i)

		// A nested struct, or a list of them.
		if nested, ok := field.Tag.Lookup("envPrefix"); ok {
			if field.Type.Kind() != reflect.Slice {
				add(field.Type, prefix+nested)
				continue
			}
			for n := 0; ; n++ {
				entry := fmt.Sprintf("%s%s_%d_", prefix, nested, n)
				if n > 0 && !anyWithPrefix(vars, entry) {
					break
				}
				add(field.Type.Elem(), entry)
			}
			continue
		}

		// A single variable. Fields without a tag are not settings.
		name, ok := field.Tag.Lookup("env")
		if !ok {
			continue
		}
		names = append(names, prefix+name)
		if field.Type == reflect.TypeFor[Secret]() {
			secrets = append(secrets, prefix+name)
		}
	}
	return names, secrets
}

func anyWithPrefix(vars map[string]string, prefix string) bool {
	for name := range vars {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// trimValues removes white space around values. Quotes around a value come from an env file whose reader
// does not remove them: they are reported.
func trimValues(vars map[string]string, names, secrets []string, wrong *Faults) {
	for _, name := range names {
		value, ok := vars[name]
		if !ok || slices.Contains(secrets, name) {
			continue
		}
		if value = strings.TrimSpace(value); value == "" {
			delete(vars, name)
			continue
		}
		vars[name] = value

		first, last := value[0], value[len(value)-1]
		if len(value) > 1 && first == last && (first == '"' || first == '\'') {
			wrong.add(name, "%s has quotes around it, which are part of the value: remove them", value)
			vars[name] = value[1 : len(value)-1] // report other faults of the value as well
		}
	}
}

// trimmed returns a list without empty members and without white space around the others.
func trimmed(list []string) []string {
	var out []string
	for _, member := range list {
		if member = strings.TrimSpace(member); member != "" {
			out = append(out, member)
		}
	}
	return out
}

// readSecretFiles sets each secret NAME from the file of NAME_FILE.
func readSecretFiles(vars map[string]string, secrets []string, wrong *Faults) {
	for _, name := range secrets {
		file, ok := vars[name+"_FILE"]
		if !ok {
			continue
		}

		// Which of the two is meant cannot be known.
		if _, both := vars[name]; both {
			wrong.add(name+"_FILE", "%s is set too; keep one of them", name)
			continue
		}

		data, err := os.ReadFile(file)
		if err != nil {
			wrong.add(name+"_FILE", "%v", err)
			continue
		}
		if vars[name] = strings.TrimSpace(string(data)); vars[name] == "" {
			wrong.add(name+"_FILE", "%s is empty", file)
		}
	}
}

// settingPrefixes start the names of settings. Unknown variables with one of them are an error, so that a
// typo cannot go unnoticed.
var settingPrefixes = [...]string{
	"AUTH0_", "TENANTWATCH_", "KAFKA_", "CLICKHOUSE_", "PROBE_", "RECEIVE_", "ALERT_", "TENANTS_",
}

// serviceVar matches the variables that Kubernetes sets for services named kafka or clickhouse.
var serviceVar = regexp.MustCompile(`^(KAFKA|CLICKHOUSE)_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT.*)|PORT(_.*)?)$`)

// testVars are the variables of our tests.
var testVars = [...]string{"TENANTWATCH_TEST_ENGINE", "TENANTWATCH_TEST_KAFKA"}

// reportUnknown reports variables that look like settings and are none.
func reportUnknown(vars map[string]string, names, secrets []string, wrong *Faults) {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		hasPrefix := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if !slices.ContainsFunc(settingPrefixes[:], hasPrefix) || serviceVar.MatchString(name) {
			continue
		}

		// NAME_FILE is a setting for each secret NAME.
		secret, isFile := strings.CutSuffix(name, "_FILE")
		secretFile := isFile && slices.Contains(secrets, secret)
		if secretFile || slices.Contains(names, name) || slices.Contains(testVars[:], name) {
			continue
		}

		// Probably a typo.
		if near := nearest(name, names); near != "" {
			wrong.add(name, "unknown setting; did you mean %s?", near)
		} else {
			wrong.add(name, "unknown setting; the README lists all settings")
		}
	}
}

// nearest returns the setting whose name shares most parts with a name, and at least two; else "".
func nearest(name string, names []string) string {
	best, score := "", 1
	for _, candidate := range names {
		common := 0
		parts := strings.Split(candidate, "_")
		for part := range strings.SplitSeq(name, "_") {
			if slices.Contains(parts, part) {
				common++
			}
		}
		if common > score {
			best, score = candidate, common
		}
	}
	return best
}
