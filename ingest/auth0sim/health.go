package auth0sim

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// test serves GET /test. Neither it nor testall depends on whether password grants
// fail.
func (t *Tenant) test(w http.ResponseWriter, r *http.Request) {
	body := fmt.Appendf(nil, `{"clock":%d}`, t.clock().UnixMilli())
	writeBody(w, http.StatusOK, authenticationJSON, body)
}

// testall serves GET /testall.
func (t *Tenant) testall(w http.ResponseWriter, r *http.Request) {
	writeBody(w, http.StatusOK, "text/plain", []byte("OK"))
}

type (
	rssFeed struct {
		XMLName xml.Name   `xml:"rss"`
		Version string     `xml:"version,attr"`
		Channel rssChannel `xml:"channel"`
	}
	rssChannel struct {
		Title       string    `xml:"title"`
		Link        string    `xml:"link"`
		Description string    `xml:"description"`
		Items       []rssItem `xml:"item"`
	}
	rssItem struct {
		Title       string  `xml:"title"`
		Link        string  `xml:"link"`
		GUID        rssGUID `xml:"guid"`
		PubDate     string  `xml:"pubDate"`
		Category    string  `xml:"category"`
		Description string  `xml:"description"`
	}
	rssGUID struct {
		Permalink bool   `xml:"isPermaLink,attr"`
		ID        string `xml:",chardata"`
	}
)

type (
	atomFeed struct {
		XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
		Title   string      `xml:"title"`
		ID      string      `xml:"id"`
		Updated string      `xml:"updated"`
		Entries []atomEntry `xml:"entry"`
	}
	atomEntry struct {
		Title    string       `xml:"title"`
		ID       string       `xml:"id"`
		Updated  string       `xml:"updated"`
		Category atomCategory `xml:"category"`
		Content  atomContent  `xml:"content"`
	}
	atomCategory struct {
		Term string `xml:"term,attr"`
	}
	atomContent struct {
		Type string `xml:"type,attr"`
		Text string `xml:",chardata"`
	}
)

// notice is the current state of an incident. Its wording in the feeds is modeled.
type notice struct {
	id, title, text, impact string
	updated                 time.Time
}

// notices returns the incidents that have begun, the newest first.
func (t *Tenant) notices(domain string, r *http.Request, now time.Time) []notice {
	if domain != t.cfg.Domain && domain != r.Host {
		// Of another tenant, nothing is known.
		return nil
	}

	var out []notice
	for i := len(t.cfg.Incidents) - 1; i >= 0; i-- {
		incident := t.cfg.Incidents[i]
		begin := t.cfg.Anchor.Add(incident.From)
		if now.Before(begin) {
			continue
		}

		entry := notice{
			id:      "https://status.auth0.com/incidents/" + strconv.Itoa(i+1),
			title:   incident.Title,
			text:    "Investigating - " + incident.Description,
			impact:  cmp.Or(incident.Impact, "minor"),
			updated: begin,
		}

		// A resolved incident stays in the feed.
		if end := t.cfg.Anchor.Add(incident.To); incident.To != 0 && !now.Before(end) {
			entry.text, entry.updated = "Resolved - "+incident.Description, end
		}
		out = append(out, entry)
	}
	return out
}

// rss serves GET /api/rss.
func (t *Tenant) rss(w http.ResponseWriter, r *http.Request) {
	domain, ok := feedDomain(w, r)
	if !ok {
		return
	}

	feed := rssFeed{Version: "2.0", Channel: rssChannel{
		Title:       "Auth0 Status - " + domain,
		Link:        "https://status.auth0.com",
		Description: "Incidents that concern " + domain,
	}}
	for _, entry := range t.notices(domain, r, t.clock()) {
		feed.Channel.Items = append(feed.Channel.Items, rssItem{
			Title:       entry.title,
			Link:        entry.id,
			GUID:        rssGUID{true, entry.id},
			PubDate:     entry.updated.UTC().Format(time.RFC1123Z),
			Category:    entry.impact,
			Description: entry.text,
		})
	}
	writeXML(w, "application/rss+xml", feed)
}

// atom serves GET /feed.
func (t *Tenant) atom(w http.ResponseWriter, r *http.Request) {
	domain, ok := feedDomain(w, r)
	if !ok {
		return
	}

	now := t.clock()
	feed := atomFeed{
		Title:   "Auth0 Status - " + domain,
		ID:      "https://status.auth0.com/feed?domain=" + domain,
		Updated: now.Format(time.RFC3339),
	}
	for _, entry := range t.notices(domain, r, now) {
		feed.Entries = append(feed.Entries, atomEntry{
			Title:    entry.title,
			ID:       entry.id,
			Updated:  entry.updated.UTC().Format(time.RFC3339),
			Category: atomCategory{entry.impact},
			Content:  atomContent{"text", entry.text},
		})
	}
	writeXML(w, "application/atom+xml", feed)
}

// feedDomain returns the domain parameter. Without it, it answers 400.
func feedDomain(w http.ResponseWriter, r *http.Request) (string, bool) {
	domain := r.URL.Query().Get("domain")
	if domain == "" {
		writeBody(w, http.StatusBadRequest, "text/plain; charset=utf-8", []byte("Domain is required."))
	}
	return domain, domain != ""
}

func writeXML(w http.ResponseWriter, contentType string, v any) {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		// All callers pass plain values.
		panic(err)
	}
	writeBody(w, http.StatusOK, contentType, append([]byte(xml.Header), body...))
}
