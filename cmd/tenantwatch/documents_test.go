package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/golden"
)

// generated are the parts of documents that are written from the code. In its document, a
// part is between the lines <!-- generated: NAME --> and <!-- end -->.
var generated = []struct {
	document, name string
	text           func(t *testing.T) string
}{
	{"README.md", "commands", commandTable},
	{"deploy/README.md", "settings", settingTable},
	{"deploy/README.md", "metrics", metricTable},
	{"rules/README.md", "rules", ruleTables},
}

// TestDocuments compares the generated parts of the documents with the code. With -update it
// writes them.
func TestDocuments(t *testing.T) {
	for _, part := range generated {
		t.Run(part.name, func(t *testing.T) {
			before, old, after := cutPart(t, part.document, part.name)
			text := "\n" + part.text(t) + "\n"
			if golden.Update() {
				whole := before + text + after
				if err := os.WriteFile(filepath.Join(root, part.document), []byte(whole), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(old, text); diff != "" {
				t.Errorf("%s differs from the code: run make docs, and read the difference\n-document +code\n%s",
					part.document, diff)
			}
		})
	}

	if lines := strings.Count(document(t, "README.md"), "\n"); lines > 200 {
		t.Errorf("README.md has %d lines; each folder has its own", lines)
	}
}

// cutPart splits a document at a generated part. The markers are in before and after.
func cutPart(t *testing.T, name, part string) (before, text, after string) {
	t.Helper()
	begin, end := "<!-- generated: "+part+" -->\n", "<!-- end -->\n"
	before, rest, found := strings.Cut(document(t, name), begin)
	text, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no part from %q to %q", name, begin, end)
	}
	return before + begin, text, end + after
}

// table returns a table in Markdown.
func table(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for _, cell := range cells {
			b.WriteString("| " + strings.ReplaceAll(cell, "|", `\|`) + " ")
		}
		b.WriteString("|\n")
	}

	line(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		line(row)
	}
	return b.String()
}

// code returns a text in the form of code, and an empty one as it is.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
