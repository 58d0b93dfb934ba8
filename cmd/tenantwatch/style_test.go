package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxColumns is the width of a line, with tabs of four columns.
const maxColumns = 120

// left are phrases that we left behind, and what to write. Each is a regular expression.
var left = map[string]string{
	`\banew\b`:                "again, or re-",
	`\bgoes on with\b`:        "continues, resumes",
	`\bgone on with\b`:        "resumed",
	`\bheld against\b`:        "compared with",
	`\bis told (of|about)\b`:  "is notified of, or the other way round: reports",
	`\bwhoever\b`:             "the process that, the user who",
	`\bbut for\b`:             "except",
	`( is | are )as a rule\b`: "usually",
	`\bis no more\b`:          "was deleted",
	`\bis wanted\b`:           "is required",
	`\blets go\b`:             "releases",
	`\baffairs?\b`:            "responsibility",
	`\bwhat came of\b`:        "the result of",
	`\bgone wrong\b`:          "failed",
	`\btakes? up again\b`:     "resumes",
	`\bby halves\b`:           "by bisection",
}

// prose calls yield for each text of ours that people read: comments and literals of Go
// files, documents, and the texts of rules.
func prose(t *testing.T, yield func(name string, line int, text string)) {
	t.Helper()
	walk(t, func(name string) {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		switch filepath.Ext(name) {
		case ".md":
		case ".sql":
			if strings.Contains(name, "migrations") { // their hashes are compared
				return
			}
		case ".yml":
			if !strings.HasPrefix(name, "rules/builtin") {
				return
			}
		case ".go":
			if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "auth0sim/catalog") {
				return
			}
		default:
			return
		}
		for i, line := range strings.Split(string(data), "\n") {
			yield(name, i+1, line)
		}
	})
}

// walk calls yield for each file of the project, by its name below the root.
func walk(t *testing.T, yield func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, err = filepath.Rel(root, name); err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if name != "." && strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			return nil // also a link to a folder
		}
		if e.IsDir() {
			if name != "." && (strings.HasPrefix(e.Name(), ".") || slices.Contains([]string{"testdata", "bin", "data"}, e.Name())) {
				return fs.SkipDir
			}
			return nil
		}
		yield(name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPhrases finds what we no longer write.
func TestPhrases(t *testing.T) {
	if testing.Short() {
		t.Skip("other tests run the same code under the race detector")
	}
	patterns := map[*regexp.Regexp]string{}
	for phrase, instead := range left {
		patterns[regexp.MustCompile(`(?i)`+phrase)] = instead
	}
	prose(t, func(name string, line int, text string) {
		for pattern, instead := range patterns {
			if found := pattern.FindString(text); found != "" {
				t.Errorf("%s:%d: %q: write %s", name, line, found, instead)
			}
		}
	})
}

// TestDensity counts what makes bodies readable: blank lines and comments in them, names
// of one letter, and the length of lines and functions.
func TestDensity(t *testing.T) {
	var body, blank, comments, names, letters, long int
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(data), "\n")
		for i, line := range lines {
			columns := len([]rune(strings.ReplaceAll(line, "\t", "    ")))
			if columns > maxColumns && !isData(name) && !strings.Contains(line, "//go:embed") {
				t.Errorf("%s:%d: a line of %d columns", name, i+1, columns)
			}
		}

		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, data, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			begin, end := files.Position(f.Pos()).Line, files.Position(f.Body.Rbrace).Line
			if length := end - begin + 1; length > 80 && !isData(name) {
				long++
				t.Logf("%s:%d: %s has %d lines", name, begin, f.Name.Name, length)
				if length > 100 {
					t.Errorf("%s:%d: %s has %d lines", name, begin, f.Name.Name, length)
				}
			}
			for _, line := range lines[files.Position(f.Body.Lbrace).Line:max(end-1, files.Position(f.Body.Lbrace).Line)] {
				body++
				switch line = strings.TrimSpace(line); {
				case line == "":
					blank++
				case strings.HasPrefix(line, "//"):
					comments++
				}
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				assign, ok := n.(*ast.AssignStmt)
				if !ok || assign.Tok != token.DEFINE {
					return true
				}
				for _, left := range assign.Lhs {
					if id, ok := left.(*ast.Ident); ok && id.Name != "_" {
						names++
						if len(id.Name) == 1 {
							letters++
						}
					}
				}
				return true
			})
		}
	})

	share := func(part, whole int) float64 { return 100 * float64(part) / float64(whole) }
	t.Logf("of %d lines in bodies %.1f %% are blank, %.1f %% comments; %.1f %% of %d names have one letter; %d functions have more than 80 lines",
		body, share(blank, body), share(comments, body), share(letters, names), names, long)
	if air := share(blank, body); air < 5 || air > 12 {
		t.Errorf("%.1f %% of the lines in bodies are blank: 5 to 12 make paragraphs", air)
	}
	if share(comments, body) < 4 {
		t.Errorf("%.1f %% of the lines in bodies are comments: at least 4 say why", share(comments, body))
	}
	if share(letters, names) >= 15 {
		t.Errorf("%.1f %% of the local names have one letter: write words", share(letters, names))
	}
	if long > 5 {
		t.Errorf("%d functions have more than 80 lines", long)
	}
}

// isData reports whether a file is a table of data.
func isData(name string) bool {
	return strings.Contains(name, "auth0sim/catalog") || strings.HasSuffix(name, "auth0sim/pools.go")
}
