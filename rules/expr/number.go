package expr

import (
	"math"
	"strconv"
	"strings"
)

// Number is equality with a number, however the event writes it.
type Number struct {
	Text string // as written in the rule
	f    float64
}

// NewNumber returns equality with a number. ok is false for a text that is not one, such as 0x10
// or 1_000, which are numbers to YAML alone.
func NewNumber(text string) (equal Number, ok bool) {
	num, err := strconv.ParseFloat(text, 64)
	return Number{Text: text, f: num}, err == nil
}

func (c Number) member(_ *Matcher, v *value) bool {
	if string(v.text) == c.Text {
		return true
	}
	if integer(v.text) && integer([]byte(c.Text)) {
		return false // two whole numbers with other digits; 0200 does not occur for 200
	}

	// Otherwise compare the values: 200.0 and 2e2 equal 200.
	num, ok := v.number()
	return ok && compareNumbers(string(v.text), num, c.Text, c.f) == 0
}

// Ordering is one of lt, lte, gt, gte.
type Ordering struct {
	Op    string
	Text  string // the limit as written in the rule
	Limit float64
}

// NewOrdering returns a comparison with a number; ok is false if the text is not one.
func NewOrdering(op, text string) (order Ordering, ok bool) {
	limit, ok := (&value{kind: kindString, text: []byte(text)}).number()
	return Ordering{Op: op, Text: text, Limit: limit}, ok
}

// Whole reports whether the limit is written as a whole number, in digits.
func (c Ordering) Whole() bool { return integer([]byte(c.Text)) }

func (c Ordering) member(_ *Matcher, v *value) bool {
	num, ok := v.number()
	return ok && c.holds(compareNumbers(string(v.text), num, c.Text, c.Limit))
}

// holds reports whether the comparison holds, given the order of a value and the limit: negative, 0 or positive.
func (c Ordering) holds(order int) bool {
	switch c.Op {
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

// number parses a number, or a string that contains one.
func (v *value) number() (float64, bool) {
	if v.kind == kindBool || len(v.text) == 0 || len(v.text) > 400 {
		return 0, false
	}
	if char := v.text[0]; char != '-' && (char < '0' || char > '9') {
		return 0, false
	}

	num, err := strconv.ParseFloat(string(v.text), 64)
	return num, err == nil && !math.IsNaN(num)
}

// compareNumbers orders two numbers by their digits. Their floating-point values are in the
// same order, or equal if the numbers have more digits than a float64 holds.
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

// compareDigits orders the absolute values of two numbers that are not 0.
func compareDigits(a, b string) int {
	wholeA, restA, pointA, okA := digits(a)
	wholeB, restB, pointB, okB := digits(b)
	switch {
	case !okA || !okB:
		return 0 // hexadecimal, which JSON does not have: the floating-point values are equal
	case pointA != pointB:
		if pointA < pointB {
			return -1
		}
		return 1
	}

	for i := range max(len(wholeA)+len(restA), len(wholeB)+len(restB)) {
		digitA, digitB := digitAt(wholeA, restA, i), digitAt(wholeB, restB, i)
		if digitA != digitB {
			return int(digitA) - int(digitB)
		}
	}
	return 0
}

// digits splits a number into its digits before and after the decimal point, without leading
// zeros, and returns the exponent: the number is 0.DIGITS times 10 to the power of point.
func digits(text string) (whole, rest string, point int, ok bool) {
	text = strings.TrimPrefix(text, "-")

	// Add the exponent to the position of the point.
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

	// Zeros after the point are leading zeros as well if no other digit precedes them.
	whole = strings.TrimLeft(whole, "0")
	if point += len(whole); whole == "" {
		significant := strings.TrimLeft(rest, "0")
		point -= len(rest) - len(significant)
		rest = significant
	}

	return whole, rest, point, true
}

// digitAt returns a digit of a number split by digits, 0 beyond its end.
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
	for i, char := range text {
		if (char < '0' || char > '9') && (i > 0 || char != '-') {
			return false
		}
	}
	return len(text) > 0 && string(text) != "-"
}
