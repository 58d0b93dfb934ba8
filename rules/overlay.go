package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// overlay holds the changes to the rules with an id, which leave the files of those rules as they
// are. They also apply to the correlation that follows a detection with that id in its file.
type overlay struct {
	file        string
	line        int
	report      *Document // of the file
	id          string
	off         bool
	reason      string
	level       string
	replacedBy  string
	vars        Vars
	correlation *yaml.Node
	alert       *yaml.Node
	optional    bool // no warning if no rule has the id
}

// position returns the file and line of the overlay.
func (o *overlay) position() string { return fmt.Sprintf("%s:%d", o.file, o.line) }

// overlays are the overlays of all sources.
type overlays struct {
	byID    map[string]*overlay // by the canonical form of the id that they change; see idKey
	vars    Vars                // for all rules
	reports []*Document         // one for each file
}

func newOverlays() *overlays { return &overlays{byID: map[string]*overlay{}, vars: Vars{}} }

const kindOverlay = "overlay"

// overlaySuffix ends the name of a file with overlays, before the extension.
const overlaySuffix = ".overlay"

// isOverlay reports whether a file has overlays, not rules.
func isOverlay(name string) bool { return strings.HasSuffix(name, overlaySuffix+path.Ext(name)) }

// add reads a file. For the same rule, an overlay of a later source replaces that of an earlier one.
func (o *overlays) add(source fs.FS, name string) error {
	data, err := fs.ReadFile(source, name)
	if err != nil {
		return err
	}

	// A broken overlay does not stop the loading: the report has the error.
	list, vars, err := readOverlay(name, data)
	report := &Document{File: name, Line: 1, Kind: kindOverlay, Title: "changes of rules", Status: StatusEnabled}
	o.reports = append(o.reports, report)
	if err != nil {
		report.Status, report.Reason, report.Line = StatusRefused, reason(err), errorLine(err, name)
		return nil
	}

	for _, overlay := range list {
		overlay.report = report
		o.byID[idKey(overlay.id)] = overlay
	}

	maps.Copy(o.vars, vars)
	return nil
}

// applyOverlays changes the documents as the overlays say.
func (l *loader) applyOverlays() {
	// In a fixed order, so that warnings are stable.
	for _, id := range slices.Sorted(maps.Keys(l.overlays.byID)) {
		overlay := l.overlays.byID[id]
		i := l.indexOf(id)
		if i < 0 {
			if !overlay.optional {
				overlay.report.warn("%s: no rule has the id %s", overlay.position(), overlay.id)
			}
			continue
		}
		if err := l.applyOverlay(overlay, i); err != nil {
			overlay.report.warn("%s: %v", overlay.position(), err)
		}
	}
}

// indexOf returns the index of the document with an id that no other replaces, or -1.
func (l *loader) indexOf(key string) int {
	return slices.IndexFunc(l.docs, func(d *document) bool { return d.key == key && d.replacedBy == nil })
}

// applyOverlay changes the document at i, and the correlation that follows it.
func (l *loader) applyOverlay(change *overlay, i int) error {
	doc := l.docs[i]
	changed := []*document{doc}

	// Find the correlation that belongs to the detection, or create the one that the overlay adds.
	switch {
	case i+1 < len(l.docs) && l.docs[i+1].id == doc.id+"#1" && l.docs[i+1].kind == kindCorrelation:
		changed = append(changed, l.docs[i+1])
	case change.correlation != nil && doc.kind == kindDetection:
		changed = append(changed, l.addCorrelation(i))
	}

	// The replacement must exist and must not be one of the replaced documents.
	if change.replacedBy != "" {
		other := l.indexOf(idKey(change.replacedBy))
		if other < 0 || slices.Contains(changed, l.docs[other]) {
			return fmt.Errorf("replaced_by: no rule has the id %s", change.replacedBy)
		}
		for _, doc := range changed {
			doc.replacedBy = l.docs[other]
		}
	}

	for _, doc := range changed {
		doc.overlay = change
		if change.level != "" {
			doc.keys["level"] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: change.level, Line: doc.line}
		}
	}

	// The alert is that of the correlation, if there is one.
	last := changed[len(changed)-1]
	if change.correlation != nil {
		if last.kind != kindCorrelation || last.keys[correlation.OwnKey] != nil {
			return errors.New("correlation: only a detection or a correlation of Sigma can be given another one")
		}
		last.keys["correlation"] = withRules(change.correlation, last.keys["correlation"], doc.id)
	}
	if change.alert != nil {
		last.keys[keyAlert] = change.alert
	}

	return nil
}

// addCorrelation inserts an empty correlation after the detection at i, with the same texts.
func (l *loader) addCorrelation(i int) *document {
	doc := l.docs[i]
	added := &document{source: doc.source, file: doc.file, line: doc.line, index: doc.index, kind: kindCorrelation,
		keys: maps.Clone(doc.keys), id: doc.id + "#1", title: doc.title}
	added.key = idKey(added.id)
	delete(added.keys, "detection")
	delete(added.keys, "id")
	delete(added.keys, "name")

	l.docs = slices.Insert(l.docs, i+1, added)
	l.reports[added] = &Document{File: added.file, Line: added.line, Kind: added.kind, ID: added.id,
		Title: added.title}
	return added
}

// withRules returns a correlation with the rules that it counts. If it does not name them, they
// are those of the correlation before it or, without one, the detection with the id.
func withRules(node, before *yaml.Node, id string) *yaml.Node {
	isRules := func(e entry) bool { return e.key == "rules" }
	entries, _ := mapping(node)
	if slices.ContainsFunc(entries, isRules) {
		return node
	}

	// By default, count the detection itself.
	counted := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: id, Line: node.Line}
	if old, err := mapping(before); err == nil {
		if i := slices.IndexFunc(old, isRules); i >= 0 {
			counted = old[i].value
		}
	}

	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "rules", Line: node.Line}
	whole := *node
	whole.Content = append(slices.Clone(node.Content), key, counted)
	return &whole
}
