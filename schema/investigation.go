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

// Investigation is a saved query that answers what one asks next when an alert has
// come. Its parameters are those of ClickHouse: tenant (empty for all), since and
// until (DateTime64), and value where it has Fields.
type Investigation struct {
	Name   string
	About  string   // a sentence
	Fields []string // of an event, one of which value is; none where it is about the tenant
	SQL    string
}

// Investigations are the saved queries, by name.
func Investigations() []Investigation {
	files, err := investigations.ReadDir("investigations")
	if err != nil {
		panic(err) // they are part of the program
	}
	var list []Investigation
	for _, f := range files {
		if i, ok := FindInvestigation(strings.TrimSuffix(f.Name(), ".sql")); ok {
			list = append(list, i)
		}
	}
	return list
}

// FindInvestigation is the one of a name. Its file begins with the sentence and, where
// it has any, the fields, each in a comment.
func FindInvestigation(name string) (Investigation, bool) {
	text, err := investigations.ReadFile("investigations/" + name + ".sql")
	if err != nil {
		return Investigation{}, false
	}
	about, sql, _ := strings.Cut(strings.TrimPrefix(string(text), "-- "), "\n")
	i := Investigation{Name: name, About: about, SQL: sql}
	if rest, ok := strings.CutPrefix(sql, "-- value: "); ok {
		fields, sql, _ := strings.Cut(rest, "\n")
		i.Fields, i.SQL = strings.Split(fields, ", "), sql
	}
	return i, true
}

// around is how much more time than its alert's an investigation looks at.
const around = time.Hour

// InvestigationCommand is what to type to look into an alert: an investigation with
// the alert's group and time. It is empty where there is none of the name, or the
// group lacks what it wants.
func (a *Alert) InvestigationCommand(name string) string {
	i, ok := FindInvestigation(name)
	if !ok {
		return ""
	}
	command := "tenantwatch investigate " + i.Name
	if len(i.Fields) > 0 {
		k := slices.IndexFunc(a.Group, func(g GroupValue) bool { return slices.Contains(i.Fields, g.Field) && g.Value != "" })
		if k < 0 {
			return ""
		}
		command += " --value=" + ShellQuote(a.Group[k].Value)
	}
	since, until := a.StartsAt.Add(-time.Duration(a.Window)-around), a.UpdatedAt.Add(around)
	return fmt.Sprintf("%s --tenant %s --since %s --until %s", command, ShellQuote(a.Tenant), since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
}

// ShellQuote makes one word of a text for a shell.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_-./:@%+=,", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
