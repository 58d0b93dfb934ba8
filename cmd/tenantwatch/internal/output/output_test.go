package output

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRows prints the same rows in each format.
func TestRows(t *testing.T) {
	rows := [][]any{
		{"a", 1, nil, []any{"x", 2}},
		{"an \x1b[31m\u202e \"escape\"", 2.5, math.NaN(), map[string]any{"k": "v"}},
	}
	for format, want := range map[string]string{
		"table": `┌──────────────────────────────┬─────┬─────┬───────────┐
│ name                         │ n   │ no  │ more      │
├──────────────────────────────┼─────┼─────┼───────────┤
│ a                            │ 1   │     │ ["x",2]   │
│ an \u001b[31m\u202e "escape" │ 2.5 │ NaN │ {"k":"v"} │
└──────────────────────────────┴─────┴─────┴───────────┘
2 rows
`,
		"json": `[
{"name":"a","n":1,"no":null,"more":["x",2]},
{"name":"an \u001b[31m` + "\u202e" + ` \"escape\"","n":2.5,"no":null,"more":{"k":"v"}}
]
`,
		"ndjson": `{"name":"a","n":1,"no":null,"more":["x",2]}
{"name":"an \u001b[31m` + "\u202e" + ` \"escape\"","n":2.5,"no":null,"more":{"k":"v"}}
`,
		"csv": "name,n,no,more\na,1,,\"[\"\"x\"\",2]\"\n\"an \x1b[31m\u202e \"\"escape\"\"\",2.5,NaN,\"{\"\"k\"\":\"\"v\"\"}\"\n",
	} {
		t.Run(format, func(t *testing.T) {
			var out strings.Builder
			printed, err := newRows(&out, format, []string{"name", "n", "no", "more"})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				if err := printed.Row(row...); err != nil {
					t.Fatal(err)
				}
			}
			if err := printed.End(); err != nil {
				t.Fatal(err)
			}
			if out.String() != want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), want)
			}
		})
	}

	// Without rows, each format says so in its way.
	for format, want := range map[string]string{"json": "[]\n", "ndjson": "", "csv": "name\n"} {
		var out strings.Builder
		printed, err := newRows(&out, format, []string{"name"})
		if err != nil {
			t.Fatal(err)
		}
		if err := printed.End(); err != nil || out.String() != want {
			t.Errorf("%s without rows: %q, %v", format, out.String(), err)
		}
	}
}

// TestSections prints a long table in sections, and the rows that were left out.
func TestSections(t *testing.T) {
	var out strings.Builder
	rows := newTable(&out, []string{"n"})
	for n := range sectionSize + 1 {
		if err := rows.Row(n); err != nil {
			t.Fatal(err)
		}
	}
	rows.total = 20_000
	if err := rows.End(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "│ n "); n != 2 {
		t.Errorf("%d headers, want 2", n)
	}
	if want := "\n10,001 of 20,000 rows; --limit, --output\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("it ends with %q, want %q", out.String()[out.Len()-60:], want)
	}
}

// TestProgressLines prints a line every ten seconds where there is no terminal.
func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		progress := NewConsole(&out).StartProgress("backfill")
		for n := range 25 {
			progress.Show(State{Done: uint64(n) * 1000, Share: float64(n) / 100, Calls: 3, Rate: 4}, 0)
			time.Sleep(time.Second)
		}
		progress.Done()
		progress.Done()
		want := "backfill 11,000 events, 1,000/s, 75 % of our limit, 1m29s left, 11 %\n" +
			"backfill 22,000 events, 1,000/s, 75 % of our limit, 1m18s left, 22 %\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := Thousands(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
