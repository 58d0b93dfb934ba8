package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	fault "github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// Schemas are Sigma's official JSON Schemas, by kind of document.
type Schemas map[string]*jsonschema.Schema

// LoadSchemas reads the schemas from the folder json-schema of Sigma's specification,
// or from the folder that contains it.
func LoadSchemas(dir fs.FS) (Schemas, error) {
	if _, err := fs.Stat(dir, "json-schema"); err == nil {
		if dir, err = fs.Sub(dir, "json-schema"); err != nil {
			return nil, err
		}
	}

	// The files keep the names that Sigma gives them.
	schemas := Schemas{}
	for kind, name := range map[string]string{kindDetection: "detection-rule", kindCorrelation: "correlation-rules",
		kindFilter: "filters"} {
		file := "sigma-" + name + "-schema.json"
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}

		// Each schema is self-contained, so each has its own compiler.
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource(file, doc); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if schemas[kind], err = compiler.Compile(file); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}

	return schemas, nil
}

// check validates the files of a source.
func (s Schemas) check(source fs.FS) (list []Finding) {
	// Ignore errors: Load has reported them.
	_ = Walk(source, func(name string) error {
		if IsTest(name) || isOverlay(name) {
			return nil
		}
		data, err := fs.ReadFile(source, name)
		if err == nil {
			list = append(list, s.Check(name, data)...)
		}
		return nil
	})
	return list
}

// Check validates the documents of a file. It skips correlations of our own types, which have no
// schema, and conditions in words, which are pySigma's.
func (s Schemas) Check(file string, data []byte) (list []Finding) {
	docs, _ := parseFile(file, data)
	for _, doc := range docs {
		schema := s[doc.kind]
		if schema == nil || doc.keys[correlation.OwnKey] != nil {
			continue
		}
		hideWords(doc.keys[kindCorrelation])

		// Validate the form that JSON would have.
		whole := map[string]any{}
		for key, node := range doc.keys {
			whole[key] = plainYAML(node)
		}

		var invalid *jsonschema.ValidationError
		if errors.As(schema.Validate(whole), &invalid) {
			for _, cause := range causes(invalid) {
				line := doc.lineAt(cause.InstanceLocation)
				list = append(list, doc.found(SeverityError, "schema", line, "%s", oneLine(cause)))
			}
		}
	}

	return list
}

// hideWords replaces a condition in words by a valid one, so that the rest can be validated.
func hideWords(correlation *yaml.Node) {
	if correlation == nil || correlation.Kind != yaml.MappingNode {
		return
	}

	for i := 0; i+1 < len(correlation.Content); i += 2 {
		value := correlation.Content[i+1]
		if correlation.Content[i].Value != "condition" || value.Kind != yaml.ScalarNode {
			continue
		}
		correlation.Content[i+1] = &yaml.Node{Kind: yaml.MappingNode, Line: value.Line, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: "gte", Line: value.Line},
			{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1", Line: value.Line},
		}}
	}
}

// oneLine returns the text of an error. The library puts alternatives on separate lines and
// repeats the location on each.
func oneLine(cause *jsonschema.ValidationError) string {
	text, rest, _ := strings.Cut(cause.Error(), "\n")
	if location, _, ok := strings.Cut(text, ": "); ok {
		rest = strings.ReplaceAll(rest, "- "+location+": ", "")
	}
	if rest != "" {
		text += ": " + strings.ReplaceAll(rest, "\n", ", ")
	}
	return text
}

// causes returns the innermost errors, which say what is wrong. Where one of several alternatives
// had to be valid, it returns the error that none is.
func causes(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	switch e.ErrorKind.(type) {
	case *fault.OneOf, *fault.AnyOf:
		return []*jsonschema.ValidationError{e}
	}

	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var list []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		list = append(list, causes(cause)...)
	}
	return list
}

// lineAt returns the line of the value at a path in the document or, if there is none, of the
// nearest value above it.
func (d *document) lineAt(path []string) int {
	if len(path) == 0 || d.keys[path[0]] == nil {
		return d.line
	}

	node := d.keys[path[0]]
	line := node.Line

	// Descend as far as the document has the path.
	for _, step := range path[1:] {
		var next *yaml.Node
		switch node.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == step {
					next, line = node.Content[i+1], node.Content[i].Line
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i < len(node.Content) {
				next = node.Content[i]
				line = next.Line
			}
		}

		if next == nil {
			break
		}
		node = next
	}

	return line
}

// plainYAML returns a node in the form in which JSON would have it.
func plainYAML(node *yaml.Node) any {
	switch node.Kind {
	case yaml.MappingNode:
		object := map[string]any{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			object[node.Content[i].Value] = plainYAML(node.Content[i+1])
		}
		return object
	case yaml.SequenceNode:
		list := []any{}
		for _, child := range node.Content {
			list = append(list, plainYAML(child))
		}
		return list
	}

	// JSON has no dates: they are texts.
	var value any
	if node.Tag != "!!timestamp" && node.Decode(&value) == nil {
		return value
	}
	return node.Value
}
