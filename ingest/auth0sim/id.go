package auth0sim

import (
	"math"
	"strconv"
)

// A log_id is 56 digits: 900, yyyymmddhhmmss in UTC, six digits of microseconds,
// fourteen zeros and a counter of nineteen digits. Their order as text is their
// order in time.
const (
	idLength    = 56
	idTimeStart = 3
	idTailStart = 3 + 14 + 6

	// Counters of background events start at bulkTail and grow by one per
	// event. All others start at otherTail: above every background event of
	// the same microsecond, so that an event that is added "now" never gets
	// an id below one that a client has already seen.
	bulkTail  uint64 = 1223372_045029306413
	otherTail uint64 = 1223372_900000000000
)

// A pos is a log_id in the form that is cheap to compare: the time in
// microseconds since 1970 and the counter.
type pos struct {
	us   int64
	tail uint64
}

func (p pos) compare(q pos) int {
	switch {
	case p.us != q.us:
		if p.us < q.us {
			return -1
		}
		return 1
	case p.tail != q.tail:
		if p.tail < q.tail {
			return -1
		}
		return 1
	}
	return 0
}

func (p pos) less(q pos) bool { return p.compare(q) < 0 }

func (p pos) id() string { return string(appendID(make([]byte, 0, idLength), p)) }

// appendID appends the 56 digits of p.
func appendID(b []byte, p pos) []byte {
	c := civilOf(p.us)
	b = append(b, "900"...)
	b = appendDigits(b, c.year, 4)
	b = appendDigits(b, c.month, 2)
	b = appendDigits(b, c.day, 2)
	b = appendDigits(b, c.hour, 2)
	b = appendDigits(b, c.minute, 2)
	b = appendDigits(b, c.second, 2)
	b = appendDigits(b, c.micros, 6)
	b = append(b, "00000000000000"...)
	n := len(b)
	b = append(b, "0000000000000000000"...)
	for i, v := n+18, p.tail; i >= n && v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}

// parseID reads 56 digits. The result has the same order relation to every id
// that the tenant makes as the text has; ids of other makers (older forms,
// impossible dates, another prefix) fall between ours, never on one of them.
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
	num := func(from, to int) int {
		n := 0
		for _, d := range []byte(s[from:to]) {
			n = n*10 + int(d-'0')
		}
		return n
	}
	c := civil{year: num(3, 7), month: num(7, 9), day: num(9, 11), hour: num(11, 13),
		minute: num(13, 15), second: num(15, 17), micros: num(17, 23)}
	// A field out of range puts the id before the first or after the last
	// moment of the field in front of it.
	fields := []struct {
		v        *int
		min, max int
	}{{&c.month, 1, 12}, {&c.day, 1, 0}, {&c.hour, 0, 23}, {&c.minute, 0, 59}, {&c.second, 0, 59}}
	for i, f := range fields {
		if f.max == 0 {
			f.max = daysIn(c.year, c.month)
		}
		if *f.v >= f.min && *f.v <= f.max {
			continue
		}
		below := *f.v < f.min
		for _, g := range fields[i:] {
			switch {
			case below:
				*g.v = g.min
			case g.max == 0:
				*g.v = daysIn(c.year, c.month)
			default:
				*g.v = g.max
			}
		}
		if below {
			c.micros = 0
			return pos{us: c.us()}, true
		}
		c.micros = 999_999
		return pos{us: c.us(), tail: math.MaxUint64}, true
	}
	p := pos{us: c.us()}
	for _, d := range []byte(s[idTailStart : idLength-19]) {
		if d != '0' {
			p.tail = math.MaxUint64 // above every counter of ours
			return p, true
		}
	}
	p.tail, _ = strconv.ParseUint(s[idLength-19:], 10, 64)
	return p, true
}

// civil is a moment in UTC by its parts. The standard library's time does the
// same; this costs a third and allocates nothing.
type civil struct{ year, month, day, hour, minute, second, micros int }

// civilOf splits microseconds since 1970 (proleptic Gregorian calendar; the
// algorithm counts days from March 1 of year 0, so that leap days come last).
func civilOf(us int64) civil {
	const day = 86400 * 1_000_000
	days := floorDiv(us, day)
	rest := us - days*day
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	c := civil{year: int(yoe + era*400), month: int(mp) + 3, day: int(doy-(153*mp+2)/5) + 1}
	if c.month > 12 {
		c.month -= 12
		c.year++
	}
	sec := rest / 1_000_000
	c.micros = int(rest - sec*1_000_000)
	c.hour, c.minute, c.second = int(sec/3600), int(sec/60%60), int(sec%60)
	return c
}

// us is the inverse of civilOf.
func (c civil) us() int64 {
	y, m := int64(c.year), int64(c.month)
	if m <= 2 {
		y--
		m += 12
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + int64(c.day) - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	days := era*146097 + doe - 719468
	return ((days*24+int64(c.hour))*60+int64(c.minute))*60_000_000 + int64(c.second)*1_000_000 + int64(c.micros)
}

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

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}

// appendDigits appends v in exactly n decimal digits.
func appendDigits(b []byte, v, n int) []byte {
	start := len(b)
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
	c := civilOf(us)
	b = appendDigits(b, c.year, 4)
	b = append(b, '-')
	b = appendDigits(b, c.month, 2)
	b = append(b, '-')
	b = appendDigits(b, c.day, 2)
	b = append(b, 'T')
	b = appendDigits(b, c.hour, 2)
	b = append(b, ':')
	b = appendDigits(b, c.minute, 2)
	b = append(b, ':')
	b = appendDigits(b, c.second, 2)
	b = append(b, '.')
	b = appendDigits(b, c.micros/1000, 3)
	return append(b, 'Z')
}
