package rules_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/rules"
)

const catalogDir = "../../shared/data/auth0-detections"

func TestCatalog(t *testing.T) {
	if _, err := os.Stat(catalogDir); err != nil {
		t.Skipf("Auth0's catalog is not here: %v", err)
	}
	_, report := rules.Load(nil, os.DirFS(catalogDir))
	for _, d := range report.Documents {
		t.Logf("%-9s %s:%d %s %s %s", d.Status, d.File, d.Line, d.Kind, d.Reason, strings.Join(d.Warnings, "; "))
	}
}
