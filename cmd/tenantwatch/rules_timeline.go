package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/tenantwatch/tenantwatch/scanner/timeline"
)

type rulesTestCmd struct {
	ruleSources
	JUnit string `name:"junit" placeholder:"FILE" help:"Also write the results as JUnit XML."`
}

// Run runs the timeline tests and prints the failures.
func (c *rulesTestCmd) Run(a *app) error {
	set, report, sources, err := c.load(a)
	if err != nil {
		return err
	}
	notRunning := warnNotRunning(a.stderr, report)

	var all []timeline.Result
	for _, source := range sources {
		results, err := timeline.Run(set, source)
		if err != nil {
			return fmt.Errorf("read tests: %w", err)
		}
		all = append(all, results...)
	}

	// Passing cases are only counted.
	files, failed := map[string]bool{}, 0
	for _, result := range all {
		files[result.File] = true
		if result.Failure != "" {
			failed++
			failure := strings.TrimRight(result.Failure, "\n")
			fmt.Fprintf(a.stdout, "FAIL %s: %s\n%s\n", result.File, result.Case, failure)
		}
	}
	fmt.Fprintf(a.stdout, "%d of %d cases in %d files passed\n", len(all)-failed, len(all), len(files))

	if c.JUnit != "" {
		report, err := timeline.JUnit(all)
		if err == nil {
			err = os.WriteFile(c.JUnit, report, 0o644)
		}
		if err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if failed > 0 {
		return foundError(fmt.Sprintf("%d cases failed", failed))
	}
	return notRunning
}
