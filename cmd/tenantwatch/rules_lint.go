package main

import (
	"fmt"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/rules/lint"
)

type rulesLintCmd struct {
	ruleSources
	output.Format
	FailLevel string `enum:"error,warning" default:"error" help:"Least severity for exit code 3: error or warning."`
}

// Run prints the findings. Its error is a foundError when one is of the fail level or above.
func (c *rulesLintCmd) Run(a *app) error {
	settings, sources, err := c.sources(a)
	if err != nil {
		return err
	}
	columns := []string{"severity", "check", "file", "line", "id", "title", "finding"}
	rows, err := c.Rows(a.stdout, columns...)
	if err != nil {
		return err
	}

	// All findings are printed; --fail-level only decides about the exit code.
	failing := 0
	for _, f := range lint.Run(settings, sources...) {
		if f.Severity.AtLeast(lint.Severity(c.FailLevel)) {
			failing++
		}
		if err := rows.Row(string(f.Severity), f.Check, f.File, f.Line, f.ID, f.Title, f.Text); err != nil {
			return err
		}
	}
	if err := rows.End(); err != nil {
		return err
	}

	if failing > 0 {
		return foundError(fmt.Sprintf("%d findings of severity %s or above", failing, c.FailLevel))
	}
	return nil
}
