package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// settingReader collects the settings from the source of the package config.
type settingReader struct {
	t     *testing.T
	types map[string]*ast.StructType
	rows  [][]string
}

// settingTable returns the table of all settings, from the tags and the paragraphs of the
// fields of Config.
func settingTable(t *testing.T) string {
	reader := &settingReader{t: t, types: map[string]*ast.StructType{}}
	names, err := filepath.Glob("internal/config/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if fields, ok := spec.Type.(*ast.StructType); ok {
					reader.types[spec.Name.Name] = fields
				}
			}
			return true
		})
	}

	reader.read("Config", "")
	return table([]string{"variable", "meaning", "default"}, reader.rows)
}

// read adds the settings of a struct.
func (r *settingReader) read(name, prefix string) {
	for _, field := range r.types[name].Fields.List {
		if field.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
		nested, isNested := tag.Lookup("envPrefix")
		list, isList := field.Type.(*ast.ArrayType)

		switch {
		case isNested && isList:
			r.readList(field, list.Elt.(*ast.Ident).Name, nested)
		case isNested:
			r.read(field.Type.(*ast.Ident).Name, prefix+nested)
		default:
			r.add(code(prefix+tag.Get("env")), field, tag.Get("envDefault"), "")
		}
	}
}

// readList adds one row for a list of structs: its members are as other settings.
func (r *settingReader) readList(field *ast.Field, element, prefix string) {
	members := &settingReader{t: r.t, types: r.types}
	members.read(element, "")
	var names []string
	for _, row := range members.rows {
		names = append(names, row[0])
	}

	variable := code(prefix+"_0_…") + ", " + code(prefix+"_1_…")
	r.add(variable, field, "", " Each has "+strings.Join(names, ", ")+".")
}

var (
	// defaultSentence is the sentence of a paragraph with the default.
	defaultSentence = regexp.MustCompile(` ?Default: (.+?)\.( |$)`)
	// requiredSentence says that there is none.
	requiredSentence = regexp.MustCompile(` ?Required(.*?)\.( |$)`)
	// inCode matches what is set in the font of code: variables, and addresses that are no links.
	inCode = regexp.MustCompile(`[A-Z0-9]+_[A-Z0-9_]*[A-Z0-9…]|[a-z]+://[^ ,]*[^ ,.]`)
)

// add adds a setting. Its field must have a paragraph with its default, which must agree
// with the tag.
func (r *settingReader) add(variable string, field *ast.Field, tagged, more string) {
	name := field.Names[0].Name
	paragraph, _, _ := strings.Cut(field.Doc.Text(), "\n\n") // the rest is for readers of the code
	text := strings.Join(strings.Fields(paragraph), " ")
	_, meaning, ok := strings.Cut(text, name+" is ")
	if !ok {
		if _, meaning, ok = strings.Cut(text, name+" are "); !ok {
			r.t.Fatalf("%s: its field needs a paragraph that begins with %q", variable, name+" is")
		}
	}

	// The default has a column.
	var value string
	if found := defaultSentence.FindStringSubmatch(meaning); found != nil {
		value, meaning = strings.Trim(found[1], `"`), strings.Replace(meaning, found[0], found[2], 1)
	} else if found := requiredSentence.FindStringSubmatch(meaning); found != nil {
		value, meaning = "required"+found[1], strings.Replace(meaning, found[0], found[2], 1)
	} else {
		r.t.Fatalf("%s: its paragraph needs a sentence that is \"Default: …\" or \"Required.\"", variable)
	}
	rest, agrees := strings.CutPrefix(value, tagged)
	if !agrees {
		r.t.Fatalf("%s: the paragraph has the default %q, and the tag %q", variable, value, tagged)
	}

	if kind, ok := field.Type.(*ast.Ident); ok && kind.Name == "Secret" {
		variable += " (secret)"
	}
	meaning = strings.ToUpper(meaning[:1]) + meaning[1:] + more
	for _, cell := range []*string{&meaning, &rest} {
		*cell = inCode.ReplaceAllStringFunc(*cell, code)
	}
	r.rows = append(r.rows, []string{variable, strings.ReplaceAll(meaning, "``", "`"), code(tagged) + rest})
}
