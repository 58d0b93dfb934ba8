package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/schema"
)

// ruleTables returns a table for each folder of built-in rules, with those that alert.
func ruleTables(t *testing.T) string {
	set, report := rules.Load(nil, builtin.FS())
	if n := report.Count(rules.StatusRefused, rules.StatusWaiting); n > 0 {
		t.Fatalf("%d built-in rules do not run", n)
	}

	tables := map[string][][]string{}
	var families []string
	for _, rule := range set.Rules() {
		if rule.Alert == nil {
			continue
		}
		family := path.Dir(rule.File)
		if !slices.Contains(families, family) {
			families = append(families, family)
		}
		tables[family] = append(tables[family], []string{
			fmt.Sprintf("[%s](builtin/%s)", rule.Title, rule.File), code(rule.Name), levelWords(rule),
			string(rule.Alert.Class), countWords(set, rule),
		})
	}

	var text strings.Builder
	slices.Sort(families)
	for _, family := range families {
		title := strings.NewReplacer("_", " ", "api", "API").Replace(family)
		slices.SortStableFunc(tables[family], func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
		fmt.Fprintf(&text, "### %s%s\n\n", strings.ToUpper(title[:1]), title[1:])
		text.WriteString(table([]string{"rule", "name", "level", "class", "alerts at"}, tables[family]) + "\n")
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// levelWords returns the levels of a rule, the higher ones with their count.
func levelWords(rule *rules.Rule) string {
	words := rule.Level
	for _, level := range rule.Alert.Levels[1:] {
		words += fmt.Sprintf(", %s from %s", level.Name, correlation.Number(level.Count))
	}
	return words
}

// countWords returns what a rule counts, in words.
func countWords(set *rules.Set, rule *rules.Rule) string {
	if rule.Correlation == nil {
		return "an event that matches" + typeWords(rule)
	}

	var names []string
	for _, source := range rule.Correlation.Sources {
		names = append(names, "“"+set.Rules()[source.Rule].Title+"”")
	}

	// The types that are about rules have their names in the condition.
	words := "in " + schema.ShortDuration(rule.Correlation.Timespan)
	if !rule.Correlation.Type.Traits().Rules {
		words = strings.Join(names, ", ") + " " + words
	}
	if by := groupWords(rule); by != "" {
		words += ", by " + by
	}
	return words + ": " + rule.Correlation.Words(names)
}

// typeWords returns the types of a detection's events.
func typeWords(rule *rules.Rule) string {
	var types []string
	for _, name := range slices.Compact(slices.Clone(rule.Types)) {
		types = append(types, code(name))
	}
	words := ""
	if len(types) > 0 {
		words = ", of type " + strings.Join(types, ", ")
	}
	if by := groupWords(rule); by != "" {
		words += ", one alert by " + by
	}
	return words
}

// groupWords returns the fields of a rule's groups.
func groupWords(rule *rules.Rule) string {
	var fields []string
	for _, field := range rule.Alert.GroupBy {
		fields = append(fields, code(field.Path))
	}
	return strings.Join(fields, ", ")
}
