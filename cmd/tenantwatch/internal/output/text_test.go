package output

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/golden"
	"github.com/tenantwatch/tenantwatch/scanner/history"
)

// TestTexts prints results for people. NAME.json is what the command prints with --output json,
// and NAME.txt what it prints without.
func TestTexts(t *testing.T) {
	backtest := func(w io.Writer, list []*history.Report) error { return Backtest(w, list, 7) }
	t.Run("backtest", func(t *testing.T) { compareText(t, "testdata/backtest", backtest) })
	t.Run("backtest_rule", func(t *testing.T) { compareText(t, "testdata/backtest_rule", backtest) })
	t.Run("explanation", func(t *testing.T) { compareText(t, "testdata/explanation", Explanation) })
}

// compareText prints the result in a JSON file, and compares the text with the file beside it.
func compareText[T any](t *testing.T, name string, write func(io.Writer, T) error) {
	data, err := os.ReadFile(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var result T
	if err := json.Unmarshal(data, &result); err != nil {
		t.Fatal(err)
	}

	var text strings.Builder
	if err := write(&text, result); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, name+".txt", text.String())
}
