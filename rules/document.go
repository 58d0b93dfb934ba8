package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// Kinds of documents.
const (
	kindDetection   = "detection"
	kindCorrelation = "correlation"
	kindFilter      = "filter"
)

// The top-level keys of our own. Other Sigma tools ignore unknown top-level keys.
const (
	keyPrefix = "x-tenantwatch-"
	keyAlert  = keyPrefix + "alert"
	keyVars   = keyPrefix + "vars"
)

// document is one YAML document as written, not yet compiled.
type document struct {
	source int // number of the source it is from, starting at 1
	file   string
	line   int
	index  int // among the documents of its file
	kind   string
	keys   map[string]*yaml.Node

	id, name, title string
	key             string    // canonical form of the id; see idKey
	replacedBy      *document // a document with the same id in a later source, or as an overlay says
	overlay         *overlay  // that changed it; nil for none
}

// errorf returns an error that begins with the file and line of n.
func (d *document) errorf(n *yaml.Node, format string, args ...any) error {
	line := d.line
	if n != nil && n.Line > 0 {
		line = n.Line
	}
	return fmt.Errorf("%s:%d: %w", d.file, line, fmt.Errorf(format, args...))
}

// parseFile splits a file into its documents. With an error it also returns the documents
// before the one at fault.
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
			// The yaml package puts the line into the text, in its own form; errorLine finds it.
			return docs, fmt.Errorf("%s: %v", file, err)
		}
		if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Tag == "!!null" {
			continue // nothing between two ---
		}

		// Documents are numbered by their position in the file, for ids.
		doc, err := parseDocument(file, len(docs), root.Content[0])
		if err != nil {
			return docs, err
		}
		docs = append(docs, doc)
	}
}

func parseDocument(file string, index int, node *yaml.Node) (*document, error) {
	doc := &document{file: file, line: node.Line, index: index, keys: map[string]*yaml.Node{}}
	if line := aliasLine(node); line > 0 {
		return nil, fmt.Errorf("%s:%d: YAML aliases are not supported", file, line)
	}
	entries, err := mapping(node)
	if err != nil {
		return nil, doc.errorf(node, "%w", err)
	}

	// A typo in one of our keys would go unnoticed, since unknown keys are allowed.
	for _, entry := range entries {
		ours := entry.key == keyAlert || entry.key == correlation.OwnKey || entry.key == keyVars
		if strings.HasPrefix(entry.key, keyPrefix) && !ours {
			return nil, fmt.Errorf("%s:%d: unknown key %q", file, entry.line, entry.key)
		}
		doc.keys[entry.key] = entry.value
	}

	doc.title, doc.id, doc.name = doc.text("title"), doc.text("id"), doc.text("name")

	// The kind follows from the one key that only this kind has.
	kinds := 0
	for key, kind := range map[string]string{"detection": kindDetection, "correlation": kindCorrelation,
		correlation.OwnKey: kindCorrelation, "filter": kindFilter} {
		if doc.keys[key] != nil {
			doc.kind = kind
			kinds++
		}
	}

	if kinds != 1 {
		return nil, doc.errorf(node, "want exactly one of detection, correlation, %s, filter", correlation.OwnKey)
	}
	return doc, nil
}

// aliasLine returns the line of the first YAML alias, or 0. Aliases are refused because they
// can refer to other aliases, so that a few lines expand to gigabytes; no rule needs them.
func aliasLine(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		return n.Line
	}

	for _, child := range n.Content {
		if line := aliasLine(child); line > 0 {
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
func mapping(node *yaml.Node) ([]entry, error) {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil, errors.New("want a map")
	}

	// YAML forbids repeated keys, but the yaml package accepts them in nodes.
	seen := map[string]bool{}
	var entries []entry
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key must be text", key.Line)
		}
		if seen[key.Value] {
			return nil, fmt.Errorf("line %d: key %q is repeated", key.Line, key.Value)
		}
		seen[key.Value] = true
		entries = append(entries, entry{key.Value, value, key.Line})
	}
	return entries, nil
}

// text returns a scalar top-level value.
func (d *document) text(key string) string {
	if node := d.keys[key]; node != nil && node.Kind == yaml.ScalarNode && node.Tag != "!!null" {
		return strings.TrimSpace(node.Value)
	}
	return ""
}

// guid is the form of the ids that Sigma recommends.
var guid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// idKey returns the canonical form of an id: of a UUID it ignores case, braces and urn:uuid:.
func idKey(id string) string {
	// loader.addFile appends #1, #2 and so on.
	base, number, numbered := strings.Cut(id, "#")
	bare := base
	if len(bare) > len("urn:uuid:") && strings.EqualFold(bare[:len("urn:uuid:")], "urn:uuid:") {
		bare = bare[len("urn:uuid:"):]
	}

	// Some tools write UUIDs in braces.
	if strings.HasPrefix(bare, "{") && strings.HasSuffix(bare, "}") {
		bare = bare[1 : len(bare)-1]
	}

	// Only UUIDs have several spellings.
	if !guid.MatchString(bare) {
		return id
	}
	if bare = strings.ToLower(bare); numbered {
		bare += "#" + number
	}
	return bare
}

// SameID reports whether two texts are spellings of the same id.
func SameID(a, b string) bool { return a == b || idKey(a) == idKey(b) }

// isCalled reports whether a reference by id or name means the document.
func (d *document) isCalled(ref string) bool { return ref == d.name || idKey(ref) == d.key }

// product returns the product of the log source in lower case, or "" if there is none.
func (d *document) product() string {
	entries, _ := mapping(d.keys["logsource"])
	for _, entry := range entries {
		if entry.key == "product" && entry.value.Tag != "!!null" {
			return strings.ToLower(strings.TrimSpace(entry.value.Value))
		}
	}
	return ""
}

// productAuth0 is the product of rules for a tenant's events, including the built-in rules.
const productAuth0 = "auth0"

// forAuth0 reports whether a rule is for a tenant's events. A rule without a log source
// counts as one: every rule for another product has a log source.
func (d *document) forAuth0() bool {
	return d.keys["logsource"] == nil || d.product() == productAuth0
}

// list returns a top-level value that is text or a list of texts.
func (d *document) list(key string) []string {
	list, _ := texts(d.keys[key])
	return list
}

// texts reads text or a list of texts. It returns nil for null.
func texts(node *yaml.Node) ([]string, error) {
	switch {
	case node == nil || node.Tag == "!!null":
		return nil, nil
	case node.Kind == yaml.ScalarNode:
		return []string{strings.TrimSpace(node.Value)}, nil
	case node.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("line %d: want text or a list of texts", node.Line)
	}

	// Not nil: an empty list is not the same as null.
	list := []string{}
	for _, child := range node.Content {
		if child.Kind != yaml.ScalarNode || child.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: want text", child.Line)
		}
		list = append(list, strings.TrimSpace(child.Value))
	}
	return list, nil
}
