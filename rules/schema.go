package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	fault "github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// Schemas are Sigma's official JSON Schemas, by kind of document.
type Schemas map[string]*jsonschema.Schema

// LoadSchemas reads the schemas from the folder json-schema of Sigma's specification,
// or from the one that has it.
func LoadSchemas(dir fs.FS) (Schemas, error) {
	if _, err := fs.Stat(dir, "json-schema"); err == nil {
		if dir, err = fs.Sub(dir, "json-schema"); err != nil {
			return nil, err
		}
	}
	schemas := Schemas{}
	for kind, name := range map[string]string{kindDetection: "detection-rule", kindCorrelation: "correlation-rules", kindFilter: "filters"} {
		file := "sigma-" + name + "-schema.json"
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource(file, doc); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if schemas[kind], err = c.Compile(file); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return schemas, nil
}

// check validates the files of a source.
func (s Schemas) check(source fs.FS) (list []Finding) {
	_ = Walk(source, func(name string) error { // what cannot be read, Load has said
		if IsTest(name) || strings.HasSuffix(name, overlaySuffix+path.Ext(name)) {
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

// Check validates the documents of a file. Those that are ours alone have no schema;
// nor have conditions in words, which are pySigma's.
func (s Schemas) Check(file string, data []byte) (list []Finding) {
	docs, _ := parseFile(file, data)
	for _, d := range docs {
		schema := s[d.kind]
		if schema == nil || d.keys[keyCorrelation] != nil {
			continue
		}
		if c := d.keys[kindCorrelation]; c != nil && c.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(c.Content); i += 2 {
				if value := c.Content[i+1]; c.Content[i].Value == "condition" && value.Kind == yaml.ScalarNode {
					c.Content[i+1] = &yaml.Node{Kind: yaml.MappingNode, Line: value.Line, Content: []*yaml.Node{
						{Kind: yaml.ScalarNode, Tag: "!!str", Value: "gte", Line: value.Line}, {Kind: yaml.ScalarNode, Tag: "!!int", Value: "1", Line: value.Line}}}
				}
			}
		}
		whole := map[string]any{}
		for key, n := range d.keys {
			whole[key] = plainYAML(n)
		}
		var wrong *jsonschema.ValidationError
		if errors.As(schema.Validate(whole), &wrong) {
			for _, cause := range faults(wrong) {
				// Alternatives are lines of their own, each with the place once more.
				text, rest, _ := strings.Cut(cause.Error(), "\n")
				if place, _, ok := strings.Cut(text, ": "); ok {
					rest = strings.ReplaceAll(rest, "- "+place+": ", "")
				}
				if rest != "" {
					text += ": " + strings.ReplaceAll(rest, "\n", ", ")
				}
				list = append(list, d.found(Error, "schema", d.lineAt(cause.InstanceLocation), "%s", text))
			}
		}
	}
	return list
}

// faults are the causes that say what is wrong: where something of several would
// have done, that none did.
func faults(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	switch e.ErrorKind.(type) {
	case *fault.OneOf, *fault.AnyOf:
		return []*jsonschema.ValidationError{e}
	}
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var list []*jsonschema.ValidationError
	for _, cause := range e.Causes {
		list = append(list, faults(cause)...)
	}
	return list
}

// lineAt is the line of what is at a path in the document, or of what is nearest.
func (d *document) lineAt(path []string) int {
	if len(path) == 0 || d.keys[path[0]] == nil {
		return d.line
	}
	n := d.keys[path[0]]
	line := n.Line
	for _, step := range path[1:] {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return line
}

// plainYAML is a node as JSON would have it.
func plainYAML(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plainYAML(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, plainYAML(c))
		}
		return list
	}
	var v any
	if n.Tag != "!!timestamp" && n.Decode(&v) == nil { // JSON has no dates but as text
		return v
	}
	return n.Value
}
