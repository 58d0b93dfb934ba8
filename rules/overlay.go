package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// overlaySuffix ends the name of a file that changes rules of other files.
const overlaySuffix = ".overlay"

const kindOverlay = "overlay"

// overlay is what is to be different about the rules with an id, and about the
// correlation that follows a detection with it in its file.
type overlay struct {
	file        string
	line        int
	fate        *Document // of the file
	id          string
	off         bool
	reason      string
	level       string
	replacedBy  string
	vars        Vars
	correlation *yaml.Node
	alert       *yaml.Node
	optional    bool // nothing is said where no rule has the id
}

func (o *overlay) place() string { return fmt.Sprintf("%s:%d", o.file, o.line) }

// readOverlay parses one overlay file:
//
//	optional: true            # its rules may be absent
//	vars: {name: [value]}     # for all rules
//	rules:
//	    ID:
//	        enabled: false    # or any of the following
//	        reason: Why.
//	        replaced_by: ID
//	        level: high
//	        vars: {name: value}
//	        correlation: {…}  # instead of the rule's own, or over a detection
//	        alert: {…}        # as x-tenantwatch-alert
func readOverlay(file string, data []byte) (list []*overlay, vars Vars, err error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, nil, fmt.Errorf("%s: %v", file, err)
	}
	if len(root.Content) == 0 {
		return nil, nil, nil
	}
	if line := aliasLine(&root); line > 0 {
		return nil, nil, fmt.Errorf("%s:%d: YAML aliases are not supported", file, line)
	}
	fail := func(n *yaml.Node, key string, err error) error {
		return fmt.Errorf("%s:%d: %s: %w", file, n.Line, key, err)
	}
	entries, err := mapping(root.Content[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	optional := false
	for _, e := range entries {
		switch e.key {
		case "optional":
			err = e.value.Decode(&optional)
		case "vars":
			vars, err = readVars(e.value)
		case "rules":
			var all []entry
			all, err = mapping(e.value)
			for _, r := range all {
				o, err := readOverlayRule(r)
				if err != nil {
					return nil, nil, fail(r.value, e.key+"."+r.key, err)
				}
				o.file = file
				list = append(list, o)
			}
		default:
			err = errors.New("unknown key")
		}
		if err != nil {
			return nil, nil, fail(e.value, e.key, err)
		}
	}
	for _, o := range list {
		o.optional = optional
	}
	return list, vars, nil
}

func readOverlayRule(r entry) (*overlay, error) {
	entries, err := mapping(r.value)
	if err != nil {
		return nil, err
	}
	o := &overlay{id: r.key, line: r.line}
	for _, e := range entries {
		switch e.key {
		case "enabled":
			on := true
			err = e.value.Decode(&on)
			o.off = !on
		case "reason":
			o.reason = strings.Join(strings.Fields(e.value.Value), " ")
		case "level":
			if o.level = e.value.Value; !slices.Contains(levelNames[:], o.level) {
				err = fmt.Errorf("unknown level %q", o.level)
			}
		case "replaced_by":
			o.replacedBy = e.value.Value
		case "vars":
			o.vars, err = readVars(e.value)
		case "correlation":
			o.correlation = e.value
			_, err = mapping(e.value)
		case "alert":
			o.alert = e.value
		default:
			err = errors.New("unknown key")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.key, err)
		}
	}
	if (o.off || o.replacedBy != "") && o.reason == "" {
		return nil, errors.New("what does not run needs a reason")
	}
	return o, nil
}

func readVars(n *yaml.Node) (Vars, error) {
	entries, err := mapping(n)
	if err != nil {
		return nil, err
	}
	vars := Vars{}
	for _, e := range entries {
		if vars[e.key], err = texts(e.value); err != nil {
			return nil, fmt.Errorf("%s: %w", e.key, err)
		}
	}
	return vars, nil
}

// readOverlayFile keeps the overlays of a file. Those of later sources go before
// earlier ones for the same rule.
func (l *loader) readOverlayFile(source fs.FS, name string) error {
	data, err := fs.ReadFile(source, name)
	if err != nil {
		return err
	}
	list, vars, err := readOverlay(name, data)
	fate := &Document{File: name, Line: 1, Kind: kindOverlay, Title: "changes of rules", Status: Enabled}
	l.overlayFates = append(l.overlayFates, fate)
	if err != nil {
		fate.Status, fate.Reason, fate.Line = Refused, reason(err), errorLine(err, name)
		return nil
	}
	for _, o := range list {
		o.fate = fate
		l.overlays[idKey(o.id)] = o
	}
	maps.Copy(l.common, vars)
	return nil
}

// overlay changes the documents as the overlays say.
func (l *loader) overlay() {
	for _, id := range slices.Sorted(maps.Keys(l.overlays)) {
		o := l.overlays[id]
		i := slices.IndexFunc(l.docs, func(d *document) bool { return d.key == id && d.replacedBy == nil })
		if i < 0 {
			if !o.optional {
				o.fate.Warnings = append(o.fate.Warnings, fmt.Sprintf("%s: no rule has the id %s", o.place(), o.id))
			}
			continue
		}
		if err := l.overlayOne(o, i); err != nil {
			o.fate.Warnings = append(o.fate.Warnings, fmt.Sprintf("%s: %v", o.place(), err))
		}
	}
}

// overlayOne changes the document at i, and the correlation that follows it.
func (l *loader) overlayOne(o *overlay, i int) error {
	d := l.docs[i]
	both := []*document{d}
	if i+1 < len(l.docs) && l.docs[i+1].id == d.id+"#1" && l.docs[i+1].kind == kindCorrelation {
		both = append(both, l.docs[i+1])
	} else if o.correlation != nil && d.kind == kindDetection {
		c := &document{source: d.source, file: d.file, line: d.line, index: d.index, kind: kindCorrelation, keys: maps.Clone(d.keys), id: d.id + "#1", title: d.title}
		c.key = idKey(c.id)
		delete(c.keys, "detection")
		delete(c.keys, "id")
		delete(c.keys, "name")
		l.docs = slices.Insert(l.docs, i+1, c)
		l.fates[c] = &Document{File: c.file, Line: c.line, Kind: c.kind, ID: c.id, Title: c.title}
		both = append(both, c)
	}
	if o.replacedBy != "" {
		k := slices.IndexFunc(l.docs, func(other *document) bool { return other.key == idKey(o.replacedBy) && other.replacedBy == nil })
		if k < 0 || slices.Contains(both, l.docs[k]) {
			return fmt.Errorf("replaced_by: no rule has the id %s", o.replacedBy)
		}
		for _, d := range both {
			d.replacedBy = l.docs[k]
		}
	}
	for _, d := range both {
		d.overlay = o
		if o.level != "" {
			d.keys["level"] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: o.level, Line: d.line}
		}
	}
	last := both[len(both)-1]
	if o.correlation != nil {
		if last.kind != kindCorrelation || last.keys[keyCorrelation] != nil {
			return errors.New("correlation: only a detection, or a correlation of Sigma's, can have another")
		}
		last.keys["correlation"] = counting(o.correlation, last.keys["correlation"], d.id)
	}
	if o.alert != nil {
		last.keys[keyAlert] = o.alert
	}
	return nil
}

// counting is a correlation with the rules that it counts, where it does not say
// so itself: those of the one it stands for, or the detection with an id.
func counting(n, before *yaml.Node, id string) *yaml.Node {
	entries, _ := mapping(n)
	if slices.ContainsFunc(entries, func(e entry) bool { return e.key == "rules" }) {
		return n
	}
	counted := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: id, Line: n.Line}
	if old, err := mapping(before); err == nil {
		if i := slices.IndexFunc(old, func(e entry) bool { return e.key == "rules" }); i >= 0 {
			counted = old[i].value
		}
	}
	whole := *n
	whole.Content = append(slices.Clone(n.Content), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "rules", Line: n.Line}, counted)
	return &whole
}
