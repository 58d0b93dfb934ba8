package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
