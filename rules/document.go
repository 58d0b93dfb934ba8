package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds of documents.
const (
	kindDetection   = "detection"
	kindCorrelation = "correlation"
	kindFilter      = "filter"
)

// The keys of our own. Other Sigma tools keep unknown top-level keys aside.
const (
	keyPrefix      = "x-tenantwatch-"
	keyAlert       = keyPrefix + "alert"
	keyCorrelation = keyPrefix + "correlation"
	keyVars        = keyPrefix + "vars"
)

// document is one YAML document as written, not yet compiled.
type document struct {
	source int // from 1 on, that it is from
	file   string
	line   int
	index  int // among the documents of its file
	kind   string
	keys   map[string]*yaml.Node

	id, name, title string
	key             string    // of its id, see idKey
	replacedBy      *document // of the same id, in a later source, or as an overlay says
	overlay         *overlay  // what changed it; nil for nothing
}

// errorf makes an error that carries the place of n.
func (d *document) errorf(n *yaml.Node, format string, args ...any) error {
	line := d.line
	if n != nil && n.Line > 0 {
		line = n.Line
	}
	return fmt.Errorf("%s:%d: %w", d.file, line, fmt.Errorf(format, args...))
}

// parseFile splits a file into its documents. With an error come those before
// the fault.
func parseFile(file string, data []byte) ([]*document, error) {
	var docs []*document
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			// yaml's errors name the line, in a form of their own.
			return docs, fmt.Errorf("%s: %v", file, err)
		}
		if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Tag == "!!null" {
			continue // nothing between two ---
		}
		d, err := parseDocument(file, len(docs), root.Content[0])
		if err != nil {
			return docs, err
		}
		docs = append(docs, d)
	}
}

func parseDocument(file string, index int, n *yaml.Node) (*document, error) {
	d := &document{file: file, line: n.Line, index: index, keys: map[string]*yaml.Node{}}
	if line := aliasLine(n); line > 0 {
		return nil, fmt.Errorf("%s:%d: YAML aliases are not supported", file, line)
	}
	entries, err := mapping(n)
	if err != nil {
		return nil, d.errorf(n, "%w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.key, keyPrefix) && e.key != keyAlert && e.key != keyCorrelation && e.key != keyVars {
			return nil, fmt.Errorf("%s:%d: unknown key %q", file, e.line, e.key)
		}
		d.keys[e.key] = e.value
	}
	d.title, d.id, d.name = d.text("title"), d.text("id"), d.text("name")
	kinds := 0
	for key, kind := range map[string]string{"detection": kindDetection, "correlation": kindCorrelation,
		keyCorrelation: kindCorrelation, "filter": kindFilter} {
		if d.keys[key] != nil {
			d.kind = kind
			kinds++
		}
	}
	if kinds != 1 {
		return nil, d.errorf(n, "want exactly one of detection, correlation, %s, filter", keyCorrelation)
	}
	return d, nil
}

// aliasLine finds an alias. An alias may stand for an alias, so a few lines can
// spell out gigabytes; no rule needs that.
func aliasLine(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		return n.Line
	}
	for _, c := range n.Content {
		if line := aliasLine(c); line > 0 {
			return line
		}
	}
	return 0
}

// entry is a key of a map with its value and line.
type entry struct {
	key   string
	value *yaml.Node
	line  int
}

// mapping returns the entries of a map in the order written.
func mapping(n *yaml.Node) ([]entry, error) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, errors.New("want a map")
	}
	seen := map[string]bool{}
	var list []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key must be text", k.Line)
		}
		if seen[k.Value] {
			return nil, fmt.Errorf("line %d: key %q is repeated", k.Line, k.Value)
		}
		seen[k.Value] = true
		list = append(list, entry{k.Value, v, k.Line})
	}
	return list, nil
}

// text returns a scalar top-level value.
func (d *document) text(key string) string {
	if n := d.keys[key]; n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return strings.TrimSpace(n.Value)
	}
	return ""
}

// guid is the form of the ids that Sigma recommends.
var guid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// idKey is what two spellings of one id have in common: of a UUID case, braces and
// urn:uuid: do not matter.
func idKey(id string) string {
	base, number, numbered := strings.Cut(id, "#") // see loader.read
	bare := base
	if len(bare) > len("urn:uuid:") && strings.EqualFold(bare[:len("urn:uuid:")], "urn:uuid:") {
		bare = bare[len("urn:uuid:"):]
	}
	if strings.HasPrefix(bare, "{") && strings.HasSuffix(bare, "}") {
		bare = bare[1 : len(bare)-1]
	}
	if !guid.MatchString(bare) {
		return id
	}
	if bare = strings.ToLower(bare); numbered {
		bare += "#" + number
	}
	return bare
}

// SameID reports whether two ids are spellings of one.
func SameID(a, b string) bool { return a == b || idKey(a) == idKey(b) }

// isCalled reports whether a reference by id or name means the document.
func (d *document) isCalled(ref string) bool { return ref == d.name || idKey(ref) == d.key }

// product is the log source's product, in lower case; empty where it has none.
func (d *document) product() string {
	entries, _ := mapping(d.keys["logsource"])
	for _, e := range entries {
		if e.key == "product" && e.value.Tag != "!!null" {
			return strings.ToLower(strings.TrimSpace(e.value.Value))
		}
	}
	return ""
}

// productAuth0 is the product of the rules for a tenant's events, ours among them.
const productAuth0 = "auth0"

// forAuth0 reports whether a rule is for a tenant's events. One without any log source,
// which no rule of others is, is for ours.
func (d *document) forAuth0() bool {
	return d.keys["logsource"] == nil || d.product() == productAuth0
}

// list returns a top-level value that is text or a list of texts.
func (d *document) list(key string) []string {
	list, _ := texts(d.keys[key])
	return list
}

// texts reads text or a list of texts; nothing for null.
func texts(n *yaml.Node) ([]string, error) {
	switch {
	case n == nil || n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []string{strings.TrimSpace(n.Value)}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("line %d: want text or a list of texts", n.Line)
	}
	list := []string{}
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode || c.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: want text", c.Line)
		}
		list = append(list, strings.TrimSpace(c.Value))
	}
	return list, nil
}

// extra returns the top-level keys that Sigma does not define and we do not
// read, as YAML decodes them.
func (d *document) extra() map[string]any {
	out := map[string]any{}
	for key, n := range d.keys {
		switch key {
		case "title", "id", "name", "status", "description", "author", "date", "modified", "references", "logsource",
			"detection", "correlation", "filter", "falsepositives", "level", "tags", "generate", "taxonomy", "related",
			"license", "fields", "scope", keyAlert, keyCorrelation, keyVars:
			continue
		}
		var v any
		if n.Decode(&v) == nil {
			out[key] = v
		}
	}
	return out
}
