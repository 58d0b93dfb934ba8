package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// document returns a file of the project.
func document(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestDocumentedCommands compares the commands with the table of README.md.
func TestDocumentedCommands(t *testing.T) {
	readme := document(t, "README.md")
	if lines := strings.Count(readme, "\n"); lines > 200 {
		t.Errorf("README.md has %d lines; each folder has its own", lines)
	}
	parser, err := kong.New(&cli{}, flagDefaults())
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(true) {
		path := strings.Fields(leaf.Path()) // without the program
		name := path[len(path)-1]

		// A row may have several subcommands.
		row := "(?m)^\\| `tenantwatch " + path[0] + "\\b.*"
		if len(path) > 1 {
			row += `\b` + name + `\b`
		}
		if !leaf.Hidden && !regexp.MustCompile(row).MatchString(readme) {
			t.Errorf("README.md lacks %s", leaf.Path())
		}
	}
}

// TestDocumentedMetrics compares the metrics that the documents name with those that
// there are.
func TestDocumentedMetrics(t *testing.T) {
	known := map[string]bool{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			for _, metric := range regexp.MustCompile(`"(tenantwatch_[a-z_]+)"`).FindAllStringSubmatch(document(t, name), -1) {
				known[metric[1]] = true
			}
		}
	})
	walk(t, func(name string) {
		if filepath.Ext(name) != ".md" {
			return
		}
		for _, found := range regexp.MustCompile("`(tenantwatch_[a-z_]+)[`{]").FindAllStringSubmatch(document(t, name), -1) {
			if !known[found[1]] {
				t.Errorf("%s: there is no %s", name, found[1])
			}
		}
	})
}

// TestLinks finds links between documents that lead nowhere.
func TestLinks(t *testing.T) {
	walk(t, func(name string) {
		if filepath.Ext(name) != ".md" {
			return
		}
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(document(t, name), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), link[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	for _, folder := range []string{"ingest", "scanner", "rules", "schema", "deploy"} {
		if !strings.Contains(document(t, "README.md"), "("+folder+"/README.md)") {
			t.Errorf("README.md does not lead to that of %s", folder)
		}
	}
}
