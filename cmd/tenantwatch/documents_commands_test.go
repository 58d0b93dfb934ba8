package main

import (
	"cmp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// commandTable returns the table of commands, from their fields and tags.
func commandTable(t *testing.T) string {
	parser, err := kong.New(&cli{}, flagDefaults())
	if err != nil {
		t.Fatal(err)
	}

	var rows [][]string
	for _, leaf := range parser.Model.Leaves(true) {
		usage := "tenantwatch " + leaf.Path() // without the program
		for _, arg := range leaf.Positional {
			usage += " " + arg.Summary()
		}

		// Required flags are part of the command.
		var flags []string
		for _, group := range leaf.AllFlags(true) {
			for _, flag := range group {
				switch {
				case flag.Name == "help":
				case flag.Required:
					usage += " --" + flag.Name + " " + cmp.Or(flag.PlaceHolder, "…")
				case flag.Tag.Negatable != "":
					flags = append(flags, code("--[no-]"+flag.Name))
				default:
					flags = append(flags, code("--"+flag.Name))
				}
			}
		}
		rows = append(rows, []string{code(usage), leaf.Help, strings.Join(flags, " ")})
	}
	return table([]string{"command", "what it does", "flags"}, rows)
}
