package lint

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
)

// TestCapTable holds the table itself to what can be said of it.
func TestCapTable(t *testing.T) {
	for _, c := range allCaps() {
		if c.name == "" || c.source == "" || len(c.types) == 0 || c.burst < 1 || c.every <= 0 {
			t.Errorf("%+v", c)
		}
		if c.most(time.Nanosecond) != c.burst || c.most(c.every) != c.burst || c.most(c.every+1) != c.burst+1 || c.most(3*c.every) != c.burst+2 {
			t.Errorf("%s: %d, %d, %d", c.name, c.most(1), c.most(c.every), c.most(3*c.every))
		}
		for _, typ := range c.types {
			text := "title: t\nid: a\ndetection:\n  s: {type: " + typ + "}\n  condition: s\n"
			for _, f := range Run(rules.Settings{}, fstest.MapFS{"rule.yml": &fstest.MapFile{Data: []byte(text)}}) {
				if f.Check == "type" {
					t.Errorf("%s: %+v", c.name, f)
				}
			}
		}
	}
}
