package main

import (
	"fmt"
	"os"

	"github.com/tenantwatch/tenantwatch/rules"
)

type rulesLintCmd struct {
	ruleSources
	Schemas   string `placeholder:"DIR" help:"The folder json-schema of SigmaHQ/sigma-specification, to validate the files against."`
	Output    string `enum:"table,json,csv" default:"table" help:"table, json (an array of objects) or csv (with a header)."`
	FailLevel string `enum:"error,warning" default:"error" help:"From which severity on a finding makes the exit code 3: error or warning."`
}

// Run prints what is found. Its error is a foundError when that is bad enough.
func (c *rulesLintCmd) Run(a *app) error {
	var schemas rules.Schemas
	if c.Schemas != "" {
		var err error
		if schemas, err = rules.LoadSchemas(os.DirFS(c.Schemas)); err != nil {
			return usageError(fmt.Sprintf("--schemas: %v", err))
		}
	}
	settings, sources, err := c.read(a)
	if err != nil {
		return err
	}
	rows, err := newPrinter(a.stdout, c.Output, []string{"severity", "check", "file", "line", "id", "title", "finding"})
	if err != nil {
		return err
	}
	found := 0
	for _, f := range settings.Lint(schemas, sources...) {
		if f.Severity.AtLeast(rules.Severity(c.FailLevel)) {
			found++
		}
		if err := rows.row([]any{string(f.Severity), f.Check, f.File, f.Line, f.ID, f.Title, f.Text}); err != nil {
			return err
		}
	}
	if err := rows.end(); err != nil {
		return err
	}
	if found > 0 {
		return foundError(fmt.Sprintf("%d findings of severity %s or above", found, c.FailLevel))
	}
	return nil
}
