package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/schema"
)

// A column holds a member if that is text; otherwise the column is empty. Only raw shows
// whether it is empty because the member is an empty text.

// column returns the column of a field.
func column(f Field) (name string, ok bool) {
	i := slices.Index(schema.TextColumns[:], f.Path)
	return f.Path, i >= schema.FirstText
}

// located returns, as SQL, the JSON that has a field and the path in it.
func located(f Field) (json, path string) {
	steps := strings.Split(f.Path, ".")
	json = "rest"
	switch {
	case slices.Contains(schema.TextColumns[:], f.Path):
		json = "raw"
	case steps[0] == "details" && len(steps) > 1:
		json, steps = "details", steps[1:]
	}

	for i, step := range steps {
		steps[i] = schema.Literal(step)
	}
	return json, "[" + strings.Join(steps, ", ") + "]"
}

// texts returns the list of the texts that an event has at a field. empty says that empty texts
// must be included.
func (b *sqlBuilder) texts(f Field, empty bool) string {
	if f.slot == everywhere {
		return b.use("everywhere") + "(raw)"
	}
	elsewhere := "rest"
	if empty {
		elsewhere = "raw" // which takes longer to read
	}

	// The first type counts, and a member of an array is not a type.
	if f.Path == typeField {
		b.use("scalars")
		return "if(type = '', scalars([JSONExtractRaw(" + elsewhere + ", 'type')]), [toString(type)])"
	}
	if f.Path == "details" {
		b.use("scalars")
		return "scalars(" + b.use("unfold") + "([details]))"
	}
	if name, ok := column(f); ok {
		b.use("member")

		// For an array, the column has its texts joined.
		if name == "scope" {
			name = "if(JSONHas(rest, 'scope'), '', scope)"
		}
		return fmt.Sprintf("member(%s, %s, %s)", name, elsewhere, schema.Literal(f.Path))
	}
	json, path := located(f)
	return fmt.Sprintf("%s(%s, %s)", b.use("texts"), json, path)
}

// present returns the condition that a field is present, with any value.
func (b *sqlBuilder) present(f Field) string {
	switch f.Path {
	case typeField:
		return "(type != '' OR JSONHas(raw, 'type'))"
	case "details":
		return "(details != '')"
	}

	json, path := located(f)
	text := fmt.Sprintf("%s(%s, %s)", b.use("present"), json, path)
	if name, ok := column(f); ok && name != "scope" {
		text = "(" + name + " != '' OR " + text + ")"
	}
	return text
}

// absent returns the condition that a field is absent or null.
func (b *sqlBuilder) absent(f Field) string {
	switch f.Path {
	case typeField:
		return "type = '' AND JSONExtractRaw(raw, 'type') IN ('', 'null')"
	case "details":
		return "has(" + b.use("unfold") + "([if(details = '', 'null', details)]), 'null')"
	}

	json, path := located(f)
	b.use("unfold")
	text := fmt.Sprintf("%s(%s, %s)", b.use("missing"), json, path)
	if name, ok := column(f); ok && name != "scope" {
		text = name + " = '' AND " + text
	}
	return text
}
