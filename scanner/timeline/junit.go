package timeline

import "encoding/xml"

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

// JUnit returns results as JUnit XML, with a suite for each file of tests.
func JUnit(results []Result) ([]byte, error) {
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
		return nil, err
	}
	return append(append([]byte(xml.Header), out...), '\n'), nil
}
