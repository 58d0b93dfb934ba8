package tosql

import "strings"

// helpers are the functions that a query may define at its start, each after those that it
// calls. They are listed with a comment for the query.
var helpers = []struct{ name, about, text string }{
	{"unfold", "arrays stand for their members, three deep",
		"list -> arrayFold((l, _) -> arrayFlatten(arrayMap(v -> " +
			"if(startsWith(v, '['), JSONExtractArrayRaw(v), [v]), l)), [1, 2, 3], list)"},
	{"values_at", "the JSON at a path of an object, or of each object in an array",
		"(json, path) -> arrayFold((found, step) -> arrayFilter(v -> v != '', " +
			"arrayMap(v -> JSONExtractRaw(v, step), unfold(found))), path, [json])"},
	{"scalars", "the texts of strings, numbers and booleans",
		`list -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), ` +
			`arrayFilter(v -> v NOT IN ('', 'null') AND left(v, 1) NOT IN ('{', '['), list))`},
	{"texts", "",
		"(json, path) -> scalars(unfold(values_at(json, path)))"},
	{"member", "a value that is not text, such as a number, is not in the column but elsewhere",
		"(column, elsewhere, name) -> if(column = '', texts(elsewhere, [name]), [toString(column)])"},
	{"present", "any value, including null",
		"(json, path) -> notEmpty(values_at(json, path))"},
	{"missing", "no value, or null",
		"(json, path) -> empty(values_at(json, path)) OR has(unfold(values_at(json, path)), 'null')"},
	{"everywhere", "the texts of all strings, numbers and booleans at any depth, without keys",
		`json -> arrayMap(v -> if(startsWith(v, '"'), JSONExtractString(v), v), ` +
			`arrayFilter(v -> NOT endsWith(v, ':') AND left(v, 1) != 'n',` + "\n" +
			`    extractAll(json, '"(?:[^"\\\\]|\\\\.)*"\\s*:?|[^\\s{}\\[\\],:"]+')))`},
	{"number", "nan for a text that is not a number: it is neither equal, greater nor less",
		`x -> if(match(x, '^-?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') ` +
			`AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"amount", "",
		`x -> if(match(x, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') ` +
			`AND isFinite(toFloat64OrZero(x)), toFloat64OrZero(x), nan)`},
	{"same_number", "whole numbers by their digits, others by their value",
		`(x, n) -> x = n OR number(x) = toFloat64(n) AND NOT (match(x, '^-?[0-9]+$') AND match(n, '^-?[0-9]+$'))`},
	{"order", "the sign of a number minus a large whole number; nan for a text that is not a number",
		`(x, n) -> if(match(x, '^-?[0-9]{1,76}$'), toFloat64(multiIf(` +
			`toInt256OrZero(x) = toInt256OrZero(n), 0, toInt256OrZero(x) < toInt256OrZero(n), -1, 1)), ` +
			`number(x) - toFloat64(n))`},
	{"time_of", "",
		`x -> if(match(x, '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?` +
			`(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'), parseDateTime64BestEffortOrNull(x, 3, 'UTC'), NULL)`},
}

// helpersOf lists the helpers that a helper calls itself.
var helpersOf = map[string][]string{
	"values_at": {"unfold"}, "texts": {"scalars", "values_at"}, "member": {"texts"}, "present": {"values_at"},
	"missing": {"values_at"}, "same_number": {"number"}, "order": {"number"},
}

// use adds a helper to the query, with those that it calls, and returns its name.
func (b *builder) use(name string) string {
	if b.used[name] {
		return name
	}

	b.used[name] = true

	// A helper also needs the helpers that it calls.
	for _, other := range helpersOf[name] {
		b.use(other)
	}

	if name == "unfold" || name == "everywhere" {
		b.note(noteJSON)
	}
	return name
}

// with returns the start of a query, up to its SELECT: the helpers and subqueries.
func (b *builder) with(subqueries ...string) string {
	var parts []string

	// Define the helpers in an order in which each follows those that it calls.
	for _, helper := range helpers {
		if !b.used[helper.name] {
			continue
		}
		about := ""
		if helper.about != "" {
			about = "  -- " + helper.about + "\n"
		}
		parts = append(parts, about+"  "+helper.text+" AS "+helper.name)
	}

	parts = append(parts, subqueries...)
	if len(parts) == 0 {
		return ""
	}
	return "WITH\n" + strings.Join(parts, ",\n") + "\n"
}
