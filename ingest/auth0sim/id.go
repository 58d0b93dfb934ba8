package auth0sim

import (
	"cmp"
	"math"
	"strconv"
)

// A log_id has 56 digits: 900, yyyymmddhhmmss in UTC, six digits of microseconds,
// fourteen zeros and a counter of nineteen digits. Their order as text is their order
// in time.
const (
	idLength    = 56
	idTimeStart = 3
	idTailStart = 3 + 14 + 6

	// Counters of background events start at bulkTail and grow by one per event.
	// All others start at otherTail, above every background event of the same
	// microsecond, so that an event that is added "now" never gets an id below
	// one that a client has already seen.
	bulkTail  uint64 = 1223372_045029306413
	otherTail uint64 = 1223372_900000000000
)

// pos is a log_id in a form that is cheap to compare: the time in microseconds since
// 1970 and the counter.
type pos struct {
	us   int64
	tail uint64
}

func (p pos) compare(q pos) int {
	if p.us != q.us {
		return cmp.Compare(p.us, q.us)
	}
	return cmp.Compare(p.tail, q.tail)
}

func (p pos) less(q pos) bool { return p.compare(q) < 0 }

func (p pos) id() string { return string(appendID(make([]byte, 0, idLength), p)) }

// appendID appends the 56 digits of p.
func appendID(b []byte, p pos) []byte {
	parts := civilOf(p.us)

	// The time.
	b = append(b, "900"...)
	b = appendDigits(b, parts.year, 4)
	b = appendDigits(b, parts.month, 2)
	b = appendDigits(b, parts.day, 2)
	b = appendDigits(b, parts.hour, 2)
	b = appendDigits(b, parts.minute, 2)
	b = appendDigits(b, parts.second, 2)
	b = appendDigits(b, parts.micros, 6)
	b = append(b, "00000000000000"...)

	// The counter does not fit an int, so appendDigits cannot write it.
	start := len(b)
	b = append(b, "0000000000000000000"...)
	for i, rest := start+18, p.tail; i >= start && rest > 0; i-- {
		b[i] = byte('0' + rest%10)
		rest /= 10
	}
	return b
}

// parseID parses 56 digits. The result compares with every id of the tenant as the text
// does. Other ids (older forms, impossible dates, another prefix) are placed between
// the tenant's, never on one of them.
func parseID(s string) (pos, bool) {
	if len(s) != idLength {
		return pos{}, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return pos{}, false
		}
	}

	switch {
	case s[:idTimeStart] < "900":
		return pos{us: math.MinInt64}, true
	case s[:idTimeStart] > "900":
		return pos{us: math.MaxInt64, tail: math.MaxUint64}, true
	}
	parsed, exact := parseTime(s)
	if !exact {
		return parsed, true
	}

	// The zeros in front of the counter.
	for i := idTailStart; i < idLength-19; i++ {
		if s[i] != '0' {
			// Above every counter of ours.
			parsed.tail = math.MaxUint64
			return parsed, true
		}
	}
	parsed.tail, _ = strconv.ParseUint(s[idLength-19:], 10, 64)
	return parsed, true
}

// parseTime parses the time of an id. A field out of range places the id before the
// first or after the last moment of the field in front of it; exact is false then.
func parseTime(s string) (parsed pos, exact bool) {
	number := func(from, to int) (value int) {
		for _, digit := range []byte(s[from:to]) {
			value = value*10 + int(digit-'0')
		}
		return value
	}
	parts := civil{
		year: number(3, 7), month: number(7, 9), day: number(9, 11),
		hour: number(11, 13), minute: number(13, 15), second: number(15, 17),
		micros: number(17, 23),
	}

	fields := []struct {
		value     *int
		low, high int // high 0 = the days of the month
	}{
		{&parts.month, 1, 12}, {&parts.day, 1, 0},
		{&parts.hour, 0, 23}, {&parts.minute, 0, 59}, {&parts.second, 0, 59},
	}
	highOf := func(high int) int {
		if high == 0 {
			return daysIn(parts.year, parts.month)
		}
		return high
	}

	for i, field := range fields {
		if *field.value >= field.low && *field.value <= highOf(field.high) {
			continue
		}

		// Clamp it and all finer fields.
		if *field.value < field.low {
			for _, finer := range fields[i:] {
				*finer.value = finer.low
			}
			parts.micros = 0
			return pos{us: parts.us()}, false
		}
		for _, finer := range fields[i:] {
			*finer.value = highOf(finer.high)
		}
		parts.micros = 999_999
		return pos{us: parts.us(), tail: math.MaxUint64}, false
	}
	return pos{us: parts.us()}, true
}

// civil is a time in UTC by its parts. It takes a third of the time of the standard
// library and allocates nothing.
type civil struct{ year, month, day, hour, minute, second, micros int }

// civilOf splits microseconds since 1970, in the proleptic Gregorian calendar. Years
// start on March 1, so that leap days come last, and are counted in eras of 400 years.
func civilOf(us int64) civil {
	const day = 86400 * 1_000_000
	days := floorDiv(us, day)
	rest := us - days*day

	// The date, from the days since March 1 of the year 0.
	sinceMarch := days + 719468
	era := floorDiv(sinceMarch, 146097)
	dayOfEra := sinceMarch - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	// Months count from March.
	month := (5*dayOfYear + 2) / 153
	parts := civil{year: int(yearOfEra + era*400), month: int(month) + 3, day: int(dayOfYear-(153*month+2)/5) + 1}
	if parts.month > 12 {
		parts.month -= 12
		parts.year++
	}

	seconds := rest / 1_000_000
	parts.micros = int(rest - seconds*1_000_000)
	parts.hour, parts.minute, parts.second = int(seconds/3600), int(seconds/60%60), int(seconds%60)
	return parts
}

// us is the inverse of civilOf.
func (c civil) us() int64 {
	year, month := int64(c.year), int64(c.month)
	if month <= 2 {
		year--
		month += 12
	}

	era := floorDiv(year, 400)
	yearOfEra := year - era*400

	// Months from March on have a regular pattern of lengths.
	dayOfYear := (153*(month-3)+2)/5 + int64(c.day) - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	days := era*146097 + dayOfEra - 719468

	minutes := (days*24+int64(c.hour))*60 + int64(c.minute)
	return minutes*60_000_000 + int64(c.second)*1_000_000 + int64(c.micros)
}

// daysIn returns the number of days of a month.
func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// floorDiv returns the quotient rounded down, for a positive b.
func floorDiv(a, b int64) int64 {
	quotient := a / b
	if a%b != 0 && a < 0 {
		quotient--
	}
	return quotient
}

// appendDigits appends v in exactly n decimal digits.
func appendDigits(b []byte, v, n int) []byte {
	start := len(b)

	// Zeros first, then the digits from the end.
	for range n {
		b = append(b, '0')
	}
	for i := start + n - 1; i >= start && v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}

// appendDate appends 2006-01-02T15:04:05.000Z.
func appendDate(b []byte, us int64) []byte {
	parts := civilOf(us)
	b = appendDigits(b, parts.year, 4)
	b = append(b, '-')
	b = appendDigits(b, parts.month, 2)
	b = append(b, '-')
	b = appendDigits(b, parts.day, 2)
	b = append(b, 'T')
	b = appendDigits(b, parts.hour, 2)
	b = append(b, ':')
	b = appendDigits(b, parts.minute, 2)
	b = append(b, ':')
	b = appendDigits(b, parts.second, 2)
	b = append(b, '.')
	b = appendDigits(b, parts.micros/1000, 3)
	return append(b, 'Z')
}
