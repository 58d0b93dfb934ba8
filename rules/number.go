package rules

import (
	"math"
	"strconv"
	"strings"
)

// number is equality with a number, however the event spells it.
type number struct {
	text string
	f    float64
}

func (c number) member(_ *Matcher, v *value) bool {
	if string(v.text) == c.text {
		return true
	}
	if integer(v.text) && integer([]byte(c.text)) {
		return false // 0200 is not how anything spells 200
	}
	f, ok := v.number()
	return ok && compareNumbers(string(v.text), f, c.text, c.f) == 0
}

// ordering is one of lt, lte, gt, gte.
type ordering struct {
	op    string
	text  string // of the limit
	limit float64
}

func (c ordering) member(_ *Matcher, v *value) bool {
	f, ok := v.number()
	return ok && c.holds(compareNumbers(string(v.text), f, c.text, c.limit))
}

// holds reports whether a value that compares so to the limit is as the rule wants it.
func (c ordering) holds(order int) bool {
	switch c.op {
	case "lt":
		return order < 0
	case "lte":
		return order <= 0
	case "gt":
		return order > 0
	case "gte":
		return order >= 0
	}
	return order == 0
}

// number reads a number, or a string that is one.
func (v *value) number() (float64, bool) {
	if v.kind == kindBool || len(v.text) == 0 || len(v.text) > 400 {
		return 0, false
	}
	if c := v.text[0]; c != '-' && (c < '0' || c > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v.text), 64)
	return f, err == nil && !math.IsNaN(f)
}

// compareNumbers orders two numbers as they are written. As floating-point numbers they
// are in the same order or, where they have more digits than those hold, equal.
func compareNumbers(a string, fa float64, b string, fb float64) int {
	switch {
	case fa < fb:
		return -1
	case fa > fb:
		return 1
	case a == b || fa == 0:
		return 0
	}
	order := compareDigits(a, b)
	if fa < 0 {
		return -order
	}
	return order
}

// compareDigits orders the amounts of two numbers that are not 0.
func compareDigits(a, b string) int {
	wholeA, restA, pointA, okA := digits(a)
	wholeB, restB, pointB, okB := digits(b)
	switch {
	case !okA || !okB:
		return 0 // hexadecimal, as no JSON has it: the floating-point numbers have decided
	case pointA != pointB:
		if pointA < pointB {
			return -1
		}
		return 1
	}
	for i := range max(len(wholeA)+len(restA), len(wholeB)+len(restB)) {
		x, y := digitAt(wholeA, restA, i), digitAt(wholeB, restB, i)
		if x != y {
			return int(x) - int(y)
		}
	}
	return 0
}

// digits splits a number into its digits before and behind the point, without zeros in
// front, and says where the point of 0.DIGITS is to go.
func digits(text string) (whole, rest string, point int, ok bool) {
	text = strings.TrimPrefix(text, "-")
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		exponent, err := strconv.Atoi(text[i+1:])
		if err != nil {
			return "", "", 0, false
		}
		point, text = exponent, text[:i]
	}
	whole, rest, _ = strings.Cut(text, ".")
	if strings.Trim(whole+rest, "0123456789") != "" {
		return "", "", 0, false
	}
	whole = strings.TrimLeft(whole, "0")
	if point += len(whole); whole == "" {
		begun := strings.TrimLeft(rest, "0")
		point -= len(rest) - len(begun)
		rest = begun
	}
	return whole, rest, point, true
}

func digitAt(whole, rest string, i int) byte {
	switch {
	case i < len(whole):
		return whole[i]
	case i-len(whole) < len(rest):
		return rest[i-len(whole)]
	}
	return '0'
}

// integer reports whether a text is a whole number in digits.
func integer(text []byte) bool {
	for i, c := range text {
		if (c < '0' || c > '9') && (i > 0 || c != '-') {
			return false
		}
	}
	return len(text) > 0 && string(text) != "-"
}
