package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/tenantwatch/tenantwatch/"
)

// mayImport is the architecture: what the packages below a folder may import of
// ours, themselves not counted. Imports point down only; ingest and scanner meet
// in Kafka, ClickHouse and schema.
var mayImport = map[string][]string{
	"cmd/tenantwatch":                    nil, // everything
	"cmd/tenantwatch/internal/config":    {"ingest/auth0", "rules", "schema/chlocal"},
	"cmd/tenantwatch/internal/demo":      {"cmd/tenantwatch/internal/engines", "ingest/auth0sim", "scanner/alert", "schema"},
	"cmd/tenantwatch/internal/engines":   {"cmd/tenantwatch/internal/config", "cmd/tenantwatch/internal/version", "ingest/kafka", "ingest/kafkalocal", "ingest/sleep", "ingest/write", "schema", "schema/chlocal"},
	"cmd/tenantwatch/internal/golden":    {},
	"cmd/tenantwatch/internal/logger":    {"cmd/tenantwatch/internal/config"},
	"cmd/tenantwatch/internal/output":    {"rules", "rules/expr", "scanner/explain", "scanner/history", "schema"},
	"cmd/tenantwatch/internal/rulefiles": {"cmd/tenantwatch/internal/config", "rules", "rules/builtin"},
	"cmd/tenantwatch/internal/version":   {},
	"cmd/tenantwatch/internal/web":       {},
	"scanner":                            {"rules", "rules/correlation", "rules/expr", "rules/tosql", "schema"},
	"scanner/explain":                    {"rules", "rules/correlation", "rules/expr", "rules/tosql", "scanner", "schema"},
	"scanner/scannertest":                {"rules", "rules/builtin", "schema"},
	"scanner/stream":                     {"rules", "scanner", "schema"},
	"scanner/probe":                      {"schema"},
	"scanner/alert":                      {"schema"},
	"scanner/silence":                    {"schema"},
	"scanner/history":                    {"rules", "rules/tosql", "scanner", "scanner/explain", "scanner/stream", "schema"},
	"scanner/timeline":                   {"rules", "scanner", "schema"},
	"rules":                              {"rules/correlation", "rules/expr"},
	"rules/correlation":                  {},
	"rules/expr":                         {},
	"rules/lint":                         {"rules", "rules/expr", "schema"},
	"rules/tosql":                        {"rules", "rules/correlation", "rules/expr", "schema"},
	"rules/builtin":                      {},
	"ingest":                             {},
	"ingest/audit":                       {"ingest/auth0", "ingest/checkpoint", "ingest/pace", "ingest/sleep", "schema"},
	"ingest/auth0":                       {"schema"},
	"ingest/auth0sim":                    {},
	"ingest/checkpoint":                  {"schema"},
	"ingest/deadletter":                  {"ingest/kafka", "schema"},
	"ingest/eventfile":                   {"ingest/logstream", "schema"},
	"ingest/kafka":                       {"ingest/sleep", "schema"},
	"ingest/kafka/kafkatest":             {},
	"ingest/kafkalocal":                  {"schema", "schema/datadir"},
	"ingest/lead":                        {"ingest/checkpoint", "ingest/kafka", "ingest/pull", "schema"},
	"ingest/logstream":                   {"schema"},
	"ingest/pace":                        {"ingest/auth0"},
	"ingest/pull":                        {"ingest/audit", "ingest/auth0", "ingest/checkpoint", "ingest/pace", "ingest/sleep", "schema"},
	"ingest/sleep":                       {},
	"ingest/write":                       {"ingest/sleep", "schema"},
	"schema":                             {},
	"schema/chlocal":                     {"schema/datadir"},
	"schema/datadir":                     {},
	"schema/chlocal/chlocaltest":         {"schema", "schema/chlocal"},
}

// TestLayout holds the source against the architecture.
func TestLayout(t *testing.T) {
	seen := map[string]bool{}
	documented := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err = filepath.Rel(root, name)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if e.IsDir() {
			if name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || name == "bin" || name == "data") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir := path.Dir(name)
		seen[dir] = true
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, "_test.go") {
			return nil
		}
		documented[dir] = documented[dir] || file.Doc != nil && !isDirective(file.Doc)
		allowed, known := mayImport[dir]
		if !known {
			t.Errorf("%s: the architecture has no package %s", name, dir)
			return nil
		}
		for _, imp := range file.Imports {
			ours, ok := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
			if ok && allowed != nil && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s; %s may import %v", name, ours, dir, allowed)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range mayImport {
		if !seen[dir] {
			t.Errorf("%s is gone; take it out of the architecture", dir)
		}
		if !documented[dir] {
			t.Errorf("%s has no package comment", dir)
		}
	}
	for _, name := range []string{"util", "utils", "common", "helpers", "misc"} {
		for dir := range seen {
			if path.Base(dir) == name {
				t.Errorf("%s: a package is called by what it is about", dir)
			}
		}
	}
}

func isDirective(c *ast.CommentGroup) bool { return strings.TrimSpace(c.Text()) == "" }

// TestTopLevel keeps the list of folders short.
func TestTopLevel(t *testing.T) {
	known := []string{"cmd", "ingest", "scanner", "rules", "schema", "deploy", "go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "bin", "data"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(known, e.Name()) {
			t.Errorf("%s has no place at the top level", e.Name())
		}
	}
	for _, name := range []string{"README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".ci/run"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
}
