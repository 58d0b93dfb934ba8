package auth0sim

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPage = 50
	maxPage     = 100
	maxSearch   = 1000 // results that search reaches
)

// listLogs serves GET /api/v2/logs. from or take select checkpoint mode, which
// ignores all other parameters; take alone starts at the oldest event (modelled).
func (t *Tenant) listLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Has("from") || q.Has("take") {
		t.checkpoint(w, r, q)
		return
	}
	t.search(w, r, q)
}

// checkpoint serves the events above from, in the order of their log_id.
func (t *Tenant) checkpoint(w http.ResponseWriter, r *http.Request, q url.Values) {
	take, ok := number(w, q, "take", 1, maxPage, defaultPage)
	if !ok {
		return
	}
	v := t.view()
	low, last := pos{us: v.oldest}, q.Get("from")
	if q.Has("from") {
		if low, ok = parseID(last); !ok {
			badQuery(w, "Object didn't pass validation for format log-id: "+last, "from", "Log Event Id to start retrieving logs from")
			return
		}
		if t.cfg.RefuseSyntheticFrom {
			if _, ok := v.issued(last); !ok {
				badQuery(w, "No log event has the id "+last, "from", "Log Event Id to start retrieving logs from")
				return
			}
		}
	}
	s := v.between(low, pos{us: v.now, tail: ^uint64(0)})

	buf := t.buffers.Get().(*[]byte)
	defer t.release(buf)
	b, n, end := v.appendPage((*buf)[:0], &s, take)
	*buf = b
	if n > 0 {
		last = end.id()
	}
	next := make([]string, 0, 2)
	if last != "" {
		next = append(next, "from="+last)
	}
	if q.Has("take") {
		next = append(next, "take="+strconv.Itoa(take))
	}
	w.Header().Set("Link", "<"+baseURL(r)+"/api/v2/logs?"+strings.Join(next, "&")+`>; rel="next"`)
	serveEvents(w, b, n)
}

// appendPage appends a JSON array of the next events of the span, at most n of
// them. It returns their number and the position of the last one.
func (v *view) appendPage(b []byte, s *span, n int) ([]byte, int, pos) {
	var last pos
	count := 0
	b = append(b, '[')
	for count < n {
		r, ok := s.first()
		if !ok {
			break
		}
		if count > 0 {
			b = append(b, ',')
		}
		b = v.render(b, r)
		last = r.pos
		count++
	}
	return append(b, ']'), count, last
}

// release keeps a page's buffer for the next page, unless one huge event has
// blown it up.
func (t *Tenant) release(buf *[]byte) {
	if cap(*buf) <= 1<<20 {
		t.buffers.Put(buf)
	}
}

func serveEvents(w http.ResponseWriter, body []byte, events int) {
	if c, ok := w.(*counted); ok {
		c.events += events
	}
	writeBody(w, http.StatusOK, managementJSON, body)
}

// search serves pages of what matches q: at most 1,000 events, the highest
// log_id first unless sort says else.
func (t *Tenant) search(w http.ResponseWriter, r *http.Request, q url.Values) {
	perPage, ok := number(w, q, "per_page", 0, maxPage, defaultPage)
	if !ok {
		return
	}
	page, ok := number(w, q, "page", 0, 1<<31-1, 0)
	if !ok {
		return
	}
	if (page+1)*perPage > maxSearch {
		apiFail(w, http.StatusBadRequest, "invalid_paging", fmt.Sprintf("Requesting page %d exceeds the allowed maximum of %d records: "+
			"please consider searching by checkpoint https://auth0.com/docs/logs/retrieve-log-events-using-mgmt-api#retrieve-logs-by-checkpoint",
			page+1, maxSearch))
		return
	}
	by, direction, _ := strings.Cut(cmp.Or(q.Get("sort"), "log_id:-1"), ":")
	if direction != "1" && direction != "-1" || by != "log_id" && by != "date" {
		badQuery(w, "The sort field must be log_id or date, with :1 or :-1", "sort", "Field to use for sorting")
		return
	}
	var match expr
	if text := cmp.Or(q.Get("q"), q.Get("search")); text != "" {
		var err error
		if match, err = parseQuery(text); err != nil {
			badQuery(w, "Invalid search query: "+err.Error(), "q", "Query in Lucene query string syntax")
			return
		}
	}

	v := t.view()
	found, err := v.searchRefs(r.Context(), match, by == "date", direction == "-1", (page+1)*perPage)
	if err != nil {
		return // the client is gone
	}
	found = found[min(page*perPage, len(found)):]
	fields, include := fieldSet(q)
	events := make([]json.RawMessage, 0, len(found))
	b := []byte{'['}
	for i, f := range found {
		if i > 0 {
			b = append(b, ',')
		}
		start := len(b)
		b = v.render(b, f)
		if fields != nil {
			b = append(b[:start], pick(b[start:], fields, include)...)
		}
		events = append(events, b[start:len(b):len(b)])
	}
	b = append(b, ']')
	if totals, _ := strconv.ParseBool(q.Get("include_totals")); totals {
		// total is the size of the page, too.
		n := strconv.Itoa(len(events))
		b = slices.Concat([]byte(`{"start":`+strconv.Itoa(page*perPage)+`,"limit":`+strconv.Itoa(perPage)+
			`,"length":`+n+`,"total":`+n+`,"logs":`), b, []byte("}"))
	}
	serveEvents(w, b, len(events))
}

// searchRefs is the first n matches in the asked order. It reads events until it
// has them; a match on log_id or date that all results must have bounds that.
func (v *view) searchRefs(ctx context.Context, match expr, byDate, down bool, n int) ([]ref, error) {
	lag := max(v.t.cfg.MaxIngestLag.Microseconds(), 0)
	low, high := pos{us: v.oldest}, pos{us: v.now, tail: ^uint64(0)}
	if match != nil {
		l, h := match.bounds(lag)
		if low.less(l) {
			low = l
		}
		if h.less(high) {
			high = h
		}
	}
	s := v.between(low, high)
	next := s.first
	if down {
		next = s.last
	}
	type dated struct {
		ref
		date int64
	}
	var found []dated
	var enough int64 // µs; ids beyond that cannot be among the first n by date
	var raw []byte
	for n > 0 {
		r, ok := next()
		if !ok || enough != 0 && (down && r.pos.us < enough || !down && r.pos.us > enough) {
			break
		}
		if match != nil {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			raw = v.render(raw[:0], r)
			if !match.match(topLevel(raw)) {
				continue
			}
		}
		d := dated{ref: r}
		if byDate {
			d.date = v.date(r)
		}
		found = append(found, d)
		if len(found) >= n && enough == 0 {
			if !byDate {
				break
			}
			// A date is at most lag before its log_id's time.
			enough = r.pos.us + lag
			if down {
				enough = r.pos.us - lag
			}
		}
	}
	if byDate {
		slices.SortStableFunc(found, func(a, b dated) int {
			if down {
				return cmp.Compare(b.date, a.date)
			}
			return cmp.Compare(a.date, b.date)
		})
	}
	out := make([]ref, 0, min(n, len(found)))
	for _, d := range found[:min(n, len(found))] {
		out = append(out, d.ref)
	}
	return out, nil
}

// readLog serves GET /api/v2/logs/{id}.
func (t *Tenant) readLog(w http.ResponseWriter, r *http.Request) {
	raw, ok := t.Event(r.PathValue("id"))
	if !ok {
		apiFail(w, http.StatusNotFound, "", "Log not found.")
		return
	}
	serveEvents(w, raw, 1)
}

// number is a parameter within its limits; otherwise it answers 400.
func number(w http.ResponseWriter, q url.Values, name string, low, high, def int) (int, bool) {
	if !q.Has(name) {
		return def, true
	}
	n, err := strconv.Atoi(q.Get(name))
	switch {
	case err != nil:
		badQuery(w, "Expected type integer but found type string", name, "Paging parameter")
	case n < low:
		badQuery(w, fmt.Sprintf("Value %d is less than minimum %d", n, low), name, "Paging parameter")
	case n > high:
		badQuery(w, fmt.Sprintf("Value %d is greater than maximum %d", n, high), name, "Paging parameter")
	default:
		return n, true
	}
	return 0, false
}

// badQuery answers 400. The wording of what is wrong is modelled.
func badQuery(w http.ResponseWriter, what, property, description string) {
	apiFail(w, http.StatusBadRequest, "invalid_query_string",
		fmt.Sprintf("Query validation error: '%s' on property %s (%s).", what, property, description))
}

// fieldSet is the members to include, or to leave out; nil = all.
func fieldSet(q url.Values) (names map[string]bool, include bool) {
	if q.Get("fields") == "" {
		return nil, true
	}
	names = make(map[string]bool)
	for f := range strings.SplitSeq(q.Get("fields"), ",") {
		names[strings.TrimSpace(f)] = true
	}
	return names, q.Get("include_fields") != "false"
}

// pick is the event with only those members; what is no object stays as it is.
func pick(raw []byte, fields map[string]bool, include bool) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return raw
	}
	for name := range members {
		if fields[name] != include {
			delete(members, name)
		}
	}
	out, err := json.Marshal(members)
	if err != nil {
		return raw
	}
	return out
}

// topLevel is the event's members that are texts; none if it is no object.
func topLevel(raw []byte) map[string]string {
	var members map[string]any
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	texts := make(map[string]string, len(members))
	for name, v := range members {
		switch v := v.(type) {
		case string:
			texts[name] = v
		case map[string]any:
			if d, ok := v["$date"].(string); ok {
				texts[name] = d
			}
		}
	}
	return texts
}
