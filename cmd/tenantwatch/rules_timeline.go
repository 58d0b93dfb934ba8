package main

import (
	"encoding/xml"
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
		if err := writeJUnit(c.JUnit, all); err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if failed > 0 {
		return foundError(fmt.Sprintf("%d cases failed", failed))
	}
	return notRunning
}

// The elements of JUnit's XML.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     float64     `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    float64       `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes a suite for each file of tests.
func writeJUnit(name string, results []timeline.Result) error {
	var all junitSuites
	for _, result := range results {
		// Results come file by file.
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != result.File {
			all.Suites = append(all.Suites, junitSuite{Name: result.File})
		}
		suite := &all.Suites[len(all.Suites)-1]

		test := junitCase{Name: result.Case, Class: result.File, Time: result.Took.Seconds()}
		if result.Failure != "" {
			suite.Failures++
			test.Failure = &junitFailure{"other alerts than expected", result.Failure}
		}
		suite.Tests++
		suite.Time += test.Time
		suite.Cases = append(suite.Cases, test)
	}

	out, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(append([]byte(xml.Header), out...), '\n'), 0o644)
}
