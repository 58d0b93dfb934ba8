package tosql

import (
	"fmt"

	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// A column holds a member if that is text; otherwise the column is empty. Only raw shows
// whether it is empty because the member is an empty text.

// located returns, as SQL, the JSON that has a field with any value, and the path in it.
func located(place Place) (json, path string) {
	if place.Own() {
		return "raw", "[" + schema.Literal(place.Column) + "]"
	}
	return place.Column, place.Path()
}

// texts returns the list of the texts that an event has at a field. empty says that empty texts
// must be included.
func (b *builder) texts(f expr.Field, empty bool) string {
	if f == expr.Anywhere() {
		return b.use("everywhere") + "(raw)"
	}
	elsewhere := "rest"
	if empty {
		elsewhere = "raw" // which takes longer to read
	}

	// The first type counts, and a member of an array is not a type.
	if f.Path == expr.TypeField {
		b.use("scalars")
		return "if(type = '', scalars([JSONExtractRaw(" + elsewhere + ", 'type')]), [toString(type)])"
	}
	if f.Path == "details" {
		b.use("scalars")
		return "scalars(" + b.use("unfold") + "([details]))"
	}
	place := Locate(f.Path)
	if place.Plain() {
		b.use("member")

		// For an array, the column has its texts joined.
		name := place.Column
		if name == "scope" {
			name = "if(JSONHas(rest, 'scope'), '', scope)"
		}
		return fmt.Sprintf("member(%s, %s, %s)", name, elsewhere, schema.Literal(f.Path))
	}
	json, path := located(place)
	return fmt.Sprintf("%s(%s, %s)", b.use("texts"), json, path)
}

// present returns the condition that a field is present, with any value.
func (b *builder) present(f expr.Field) string {
	switch f.Path {
	case expr.TypeField:
		return "(type != '' OR JSONHas(raw, 'type'))"
	case "details":
		return "(details != '')"
	}

	place := Locate(f.Path)
	json, path := located(place)
	text := fmt.Sprintf("%s(%s, %s)", b.use("present"), json, path)
	if place.Plain() && place.Column != "scope" {
		text = "(" + place.Column + " != '' OR " + text + ")"
	}
	return text
}

// absent returns the condition that a field is absent or null.
func (b *builder) absent(f expr.Field) string {
	switch f.Path {
	case expr.TypeField:
		return "type = '' AND JSONExtractRaw(raw, 'type') IN ('', 'null')"
	case "details":
		return "has(" + b.use("unfold") + "([if(details = '', 'null', details)]), 'null')"
	}

	place := Locate(f.Path)
	json, path := located(place)
	b.use("unfold")
	text := fmt.Sprintf("%s(%s, %s)", b.use("missing"), json, path)
	if place.Plain() && place.Column != "scope" {
		text = place.Column + " = '' AND " + text
	}
	return text
}
