package schema

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"time"
)

//go:embed investigations/*.sql
var investigations embed.FS

// Investigation is a saved query that answers the next question after an alert. It has
// the ClickHouse query parameters tenant (empty for all), since and
// until (DateTime64) and, if it has Fields, value.
type Investigation struct {
	Name   string
	About  string   // a sentence
	Fields []string // the fields of an event whose value it takes; none if it is about the tenant
	SQL    string
}

// Investigations returns the saved queries, sorted by name.
func Investigations() []Investigation {
	files, err := investigations.ReadDir("investigations")
	if err != nil {
		panic(err) // the files are embedded
	}

	var list []Investigation
	for _, file := range files {
		if found, ok := FindInvestigation(strings.TrimSuffix(file.Name(), ".sql")); ok {
			list = append(list, found)
		}
	}
	return list
}

// FindInvestigation returns the saved query with a name. Its file starts with the sentence and
// the fields, if any, each in a comment.
func FindInvestigation(name string) (Investigation, bool) {
	text, err := investigations.ReadFile("investigations/" + name + ".sql")
	if err != nil {
		return Investigation{}, false
	}

	// The first line is the sentence; the second one may name the fields.
	about, sql, _ := strings.Cut(strings.TrimPrefix(string(text), "-- "), "\n")
	found := Investigation{Name: name, About: about, SQL: sql}
	if rest, ok := strings.CutPrefix(sql, "-- value: "); ok {
		fields, sql, _ := strings.Cut(rest, "\n")
		found.Fields, found.SQL = strings.Split(fields, ", "), sql
	}
	return found, true
}

// investigationMargin is how much time before and after its alert an investigation covers.
const investigationMargin = time.Hour

// InvestigationCommand returns the command that runs an investigation for the alert's
// group and time. It is empty if there is no investigation with the name, or if the
// group lacks the field that it takes.
func (a *Alert) InvestigationCommand(name string) string {
	query, ok := FindInvestigation(name)
	if !ok {
		return ""
	}

	command := "tenantwatch investigate " + query.Name
	if len(query.Fields) > 0 {
		fits := func(g GroupValue) bool { return slices.Contains(query.Fields, g.Field) && g.Value != "" }
		at := slices.IndexFunc(a.Group, fits)
		if at < 0 {
			return ""
		}

		// With "=", a value that starts with a dash is not read as a flag.
		command += " --value=" + ShellQuote(a.Group[at].Value)
	}

	// The window of the first event reaches back before the start of the alert.
	since := a.StartsAt.Add(-time.Duration(a.Window) - investigationMargin)
	until := a.UpdatedAt.Add(investigationMargin)
	return fmt.Sprintf("%s --tenant %s --since %s --until %s", command, ShellQuote(a.Tenant),
		since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
}

// ShellQuote quotes a text as one word for a shell, if necessary.
func ShellQuote(s string) string {
	special := func(r rune) bool {
		alphanumeric := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !alphanumeric && !strings.ContainsRune("_-./:@%+=,", r)
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
