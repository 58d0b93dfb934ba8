package main

import (
	"cmp"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/rulefiles"
	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/scanner/probe"
	"github.com/tenantwatch/tenantwatch/scanner/silence"
	"github.com/tenantwatch/tenantwatch/scanner/stream"
)

// described is a Registerer that collects the descriptions of metrics: also of those that
// have no series yet.
type described struct {
	rows [][]string
}

// descriptionParts splits the text of a prometheus.Desc, which has no other way to its parts.
var descriptionParts = regexp.MustCompile(
	`^Desc{fqName: "(.*?)", help: "(.*?)", (?:unit: "", )?constLabels: {}, variableLabels: {(.*)}}$`)

func (d *described) Register(c prometheus.Collector) error {
	kind := "gauge"
	switch c.(type) {
	case *prometheus.GaugeVec, prometheus.Gauge: // which has the methods of a Counter
	case *prometheus.CounterVec, prometheus.Counter:
		kind = "counter"
	case *prometheus.HistogramVec, prometheus.Histogram:
		kind = "histogram"
	}

	list := make(chan *prometheus.Desc)
	go func() {
		c.Describe(list)
		close(list)
	}()
	for desc := range list {
		parts := descriptionParts.FindStringSubmatch(desc.String())
		var labels []string
		for _, label := range strings.FieldsFunc(parts[3], func(r rune) bool { return r == ',' }) {
			labels = append(labels, code(label))
		}
		d.rows = append(d.rows, []string{code(parts[1]), kind, strings.Join(labels, ", "), parts[2]})
	}
	return nil
}

func (d *described) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		_ = d.Register(c)
	}
}

func (d *described) Unregister(prometheus.Collector) bool { return false }

// metricTable returns the table of metrics, as the parts of a process register them.
func metricTable(t *testing.T) string {
	reg, log := &described{}, slog.New(slog.DiscardHandler)
	engines.NewMetrics(reg)
	pull.NewMetrics(reg)
	reg.MustRegister(pull.NewCollector(nil))
	logstream.New(logstream.Config{Registerer: reg}, nil)
	write.NewWriter(nil, nil, log, reg)
	rulefiles.New(&config.Config{}, log, reg)
	stream.New(nil, scanner.Config{}, nil, nil, log, reg)
	history.NewLive(nil, nil, nil, nil, log, reg)
	silence.New(nil, silence.Sources{}, nil, log, reg)
	probe.NewMetrics(reg)
	alert.New(nil, nil, log, reg)

	// A metric of a part that is not above would be missing.
	for name := range sourceMetrics(t) {
		if !slices.ContainsFunc(reg.rows, func(row []string) bool { return row[0] == code(name) }) {
			t.Errorf("%s is registered by none of the parts above", name)
		}
	}

	slices.SortFunc(reg.rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return table([]string{"metric", "type", "labels", "meaning"}, reg.rows)
}

// registration matches the name of a metric where it is registered. Types of events have
// such names too.
var registration = regexp.MustCompile(`(?:Name:\s+|(?:counter|gauge|add)\()"(tenantwatch_[a-z_]+)"`)

// sourceMetrics returns the names of metrics in the source.
func sourceMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, metric := range registration.FindAllStringSubmatch(document(t, name), -1) {
			names[metric[1]] = true
		}
	})
	return names
}
