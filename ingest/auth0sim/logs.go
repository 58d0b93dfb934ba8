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
	maxSearch   = 1000 // results of a search
)

// listLogs serves GET /api/v2/logs. from or take select checkpoint mode, which ignores
// all other parameters. take alone starts at the oldest event (modeled).
func (t *Tenant) listLogs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Has("from") || query.Has("take") {
		t.checkpoint(w, r, query)
		return
	}
	t.search(w, r, query)
}

// checkpoint serves the events above from, in the order of their log_id.
func (t *Tenant) checkpoint(w http.ResponseWriter, r *http.Request, query url.Values) {
	take, ok := number(w, query, "take", 1, maxPage, defaultPage)
	if !ok {
		return
	}

	const description = "Log Event Id to start retrieving logs from"
	v := t.view()
	low, last := pos{us: v.oldest}, query.Get("from")
	if query.Has("from") {
		if low, ok = parseID(last); !ok {
			badQuery(w, "Object didn't pass validation for format log-id: "+last, "from", description)
			return
		}
		if _, issued := v.issued(last); t.cfg.RefuseSyntheticFrom && !issued {
			badQuery(w, "No log event has the id "+last, "from", description)
			return
		}
	}
	rest := v.between(low, pos{us: v.now, tail: ^uint64(0)})

	buf := t.buffers.Get().(*[]byte)
	defer t.release(buf)
	body, events, end := v.appendPage((*buf)[:0], &rest, take)
	*buf = body

	// An empty page links to itself, so that a client can continue from it.
	if events > 0 {
		last = end.id()
	}

	// The link repeats the parameters that were given.
	next := make([]string, 0, 2)
	if last != "" {
		next = append(next, "from="+last)
	}
	if query.Has("take") {
		next = append(next, "take="+strconv.Itoa(take))
	}
	w.Header().Set("Link", "<"+baseURL(r)+"/api/v2/logs?"+strings.Join(next, "&")+`>; rel="next"`)
	serveEvents(w, body, events)
}

// appendPage appends a JSON array of the next events of a span, at most limit. It
// returns their number and the position of the last one.
func (v *view) appendPage(b []byte, s *span, limit int) ([]byte, int, pos) {
	var last pos
	count := 0
	b = append(b, '[')
	for count < limit {
		event, ok := s.first()
		if !ok {
			break
		}
		if count > 0 {
			b = append(b, ',')
		}
		b = v.render(b, event)
		last = event.pos
		count++
	}
	return append(b, ']'), count, last
}

// release keeps a page's buffer for the next page, unless it is huge.
func (t *Tenant) release(buf *[]byte) {
	if cap(*buf) <= 1<<20 {
		t.buffers.Put(buf)
	}
}

// serveEvents responds with a body that has a number of events.
func serveEvents(w http.ResponseWriter, body []byte, events int) {
	if response, ok := w.(*counted); ok {
		response.events += events
	}
	writeBody(w, http.StatusOK, managementJSON, body)
}

// search serves pages of the events that match the query: at most 1,000, the highest log_id
// first unless sort is set.
func (t *Tenant) search(w http.ResponseWriter, r *http.Request, query url.Values) {
	perPage, ok := number(w, query, "per_page", 0, maxPage, defaultPage)
	if !ok {
		return
	}
	page, ok := number(w, query, "page", 0, 1<<31-1, 0)
	if !ok {
		return
	}
	if (page+1)*perPage > maxSearch {
		apiFail(w, http.StatusBadRequest, "invalid_paging", fmt.Sprintf(
			"Requesting page %d exceeds the allowed maximum of %d records: please consider searching by checkpoint "+
				"https://auth0.com/docs/logs/retrieve-log-events-using-mgmt-api#retrieve-logs-by-checkpoint",
			page+1, maxSearch))
		return
	}

	by, direction, _ := strings.Cut(cmp.Or(query.Get("sort"), "log_id:-1"), ":")
	if direction != "1" && direction != "-1" || by != "log_id" && by != "date" {
		badQuery(w, "The sort field must be log_id or date, with :1 or :-1", "sort", "Field to use for sorting")
		return
	}

	var match expr
	if text := cmp.Or(query.Get("q"), query.Get("search")); text != "" {
		var err error
		if match, err = parseQuery(text); err != nil {
			badQuery(w, "Invalid search query: "+err.Error(), "q", "Query in Lucene query string syntax")
			return
		}
	}

	v := t.view()
	found, err := v.search(r.Context(), match, by == "date", direction == "-1", (page+1)*perPage)
	if err != nil {
		// The client is gone.
		return
	}
	found = found[min(page*perPage, len(found)):]
	body := v.appendFound([]byte{'['}, found, query)
	if totals, _ := strconv.ParseBool(query.Get("include_totals")); totals {
		// The total is the size of the page, too.
		body = slices.Concat(fmt.Appendf(nil, `{"start":%d,"limit":%d,"length":%d,"total":%d,"logs":`,
			page*perPage, perPage, len(found), len(found)), body, []byte("}"))
	}
	serveEvents(w, body, len(found))
}

// appendFound appends the events of a search, and closes the array. fields and
// include_fields select their members.
func (v *view) appendFound(b []byte, found []ref, query url.Values) []byte {
	fields, include := fieldSet(query)
	for i, event := range found {
		if i > 0 {
			b = append(b, ',')
		}

		// Render in place, then replace it by the selected members.
		start := len(b)
		b = v.render(b, event)
		if fields != nil {
			b = append(b[:start], pick(b[start:], fields, include)...)
		}
	}
	return append(b, ']')
}

// search returns the first limit matches in the requested order. It reads events until
// it has them. A condition on log_id or date that all matches must satisfy bounds that.
func (v *view) search(ctx context.Context, match expr, byDate, down bool, limit int) ([]ref, error) {
	lag := max(v.t.cfg.MaxIngestLag.Microseconds(), 0)
	events := v.bounded(match, lag)
	next := events.first
	if down {
		next = events.last
	}

	var found []dated
	var enough int64 // µs; ids beyond cannot be among the first by date
	var raw []byte
	for limit > 0 {
		event, ok := next()
		if !ok || enough != 0 && (down && event.pos.us < enough || !down && event.pos.us > enough) {
			break
		}

		if match != nil {
			if err := ctx.Err(); err != nil {
				return nil, err
			}

			// Rendering is the costly part, so the buffer is reused.
			raw = v.render(raw[:0], event)
			if !match.match(topLevel(raw)) {
				continue
			}
		}

		result := dated{ref: event}
		if byDate {
			result.date = v.date(event)
		}
		found = append(found, result)
		if len(found) < limit || enough != 0 {
			continue
		}
		if !byDate {
			break
		}

		// A date is at most lag before its log_id's time, so closer ids may still
		// come first by date.
		enough = event.pos.us + lag
		if down {
			enough = event.pos.us - lag
		}
	}

	if byDate {
		sortByDate(found, down)
	}
	refs := make([]ref, 0, min(limit, len(found)))
	for _, result := range found[:min(limit, len(found))] {
		refs = append(refs, result.ref)
	}
	return refs, nil
}

// bounded returns the span of visible events that a query can match.
func (v *view) bounded(match expr, lag int64) span {
	low, high := pos{us: v.oldest}, pos{us: v.now, tail: ^uint64(0)}
	if match != nil {
		lowest, highest := match.bounds(lag)
		if low.less(lowest) {
			low = lowest
		}
		if highest.less(high) {
			high = highest
		}
	}
	return v.between(low, high)
}

// dated is an event with its date, in µs.
type dated struct {
	ref
	date int64
}

// sortByDate sorts events by date. Equal ones keep the order of their ids.
func sortByDate(events []dated, down bool) {
	slices.SortStableFunc(events, func(a, b dated) int {
		if down {
			return cmp.Compare(b.date, a.date)
		}
		return cmp.Compare(a.date, b.date)
	})
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

// number returns a parameter within its limits. Otherwise it answers 400.
func number(w http.ResponseWriter, query url.Values, name string, low, high, def int) (int, bool) {
	if !query.Has(name) {
		return def, true
	}
	count, err := strconv.Atoi(query.Get(name))
	switch {
	case err != nil:
		badQuery(w, "Expected type integer but found type string", name, "Paging parameter")
	case count < low:
		badQuery(w, fmt.Sprintf("Value %d is less than minimum %d", count, low), name, "Paging parameter")
	case count > high:
		badQuery(w, fmt.Sprintf("Value %d is greater than maximum %d", count, high), name, "Paging parameter")
	default:
		return count, true
	}
	return 0, false
}

// badQuery answers 400. The wording of the fault is modeled.
func badQuery(w http.ResponseWriter, fault, property, description string) {
	apiFail(w, http.StatusBadRequest, "invalid_query_string",
		fmt.Sprintf("Query validation error: '%s' on property %s (%s).", fault, property, description))
}

// fieldSet returns the members to include or to exclude; nil for all.
func fieldSet(query url.Values) (names map[string]bool, include bool) {
	if query.Get("fields") == "" {
		return nil, true
	}
	names = make(map[string]bool)
	for name := range strings.SplitSeq(query.Get("fields"), ",") {
		names[strings.TrimSpace(name)] = true
	}
	return names, query.Get("include_fields") != "false"
}

// pick returns an event with some members only. Text that is not an object is returned
// as it is.
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

// topLevel returns the members of an event that are texts; none if it is not an object.
func topLevel(raw []byte) map[string]string {
	var members map[string]any
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	texts := make(map[string]string, len(members))
	for name, value := range members {
		switch v := value.(type) {
		case string:
			texts[name] = v
		case map[string]any:
			if date, ok := v["$date"].(string); ok {
				texts[name] = date
			}
		}
	}
	return texts
}
