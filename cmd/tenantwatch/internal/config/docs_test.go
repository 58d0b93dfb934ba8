package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedSettings compares the settings with the operator's manual.
func TestDocumentedSettings(t *testing.T) {
	manual, err := os.ReadFile("../../../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	inTable := false
	for _, line := range strings.Split(string(manual), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			inTable = line == "## Settings"
		case inTable && strings.HasPrefix(line, "| `"):
			cells := strings.Split(line, "|")
			for _, name := range regexp.MustCompile("`([A-Z0-9_]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented = append(documented, name[1])
			}
		}
	}

	names, secrets := settingNames(reflect.TypeFor[Config](), "", map[string]string{})
	for _, name := range append(names, secrets...) {
		if !strings.HasPrefix(name, "TENANTS_") && !strings.HasSuffix(name, "_FILE") && !slices.Contains(documented, name) {
			t.Errorf("deploy/README.md lacks the setting %s", name)
		}
	}
	for _, name := range documented {
		if !strings.HasPrefix(name, "TENANTS_") && !slices.Contains(names, name) && !slices.Contains(secrets, name) {
			t.Errorf("deploy/README.md has %s, which is not a setting", name)
		}
	}
}
