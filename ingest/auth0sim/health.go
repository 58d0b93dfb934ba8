package auth0sim

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"time"
)

// test tells that the core answers. Whether a password grant fails has no
// influence on it, nor on testall.
func (t *Tenant) test(w http.ResponseWriter, r *http.Request) {
	writeBody(w, http.StatusOK, authenticationJSON, []byte(`{"clock":`+strconv.FormatInt(t.clock().UnixMilli(), 10)+`}`))
}

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

// A notice is an incident as of now. How the feeds word it is modelled.
type notice struct {
	id, title, text, impact string
	updated                 time.Time
}

// notices are the incidents that have begun, the newest first.
func (t *Tenant) notices(domain string, r *http.Request, now time.Time) []notice {
	if domain != t.cfg.Domain && domain != r.Host {
		return nil // another tenant, about which nothing is known
	}
	var out []notice
	for i := len(t.cfg.Incidents) - 1; i >= 0; i-- {
		in := t.cfg.Incidents[i]
		if now.Before(t.cfg.Anchor.Add(in.From)) {
			continue
		}
		n := notice{id: "https://status.auth0.com/incidents/" + strconv.Itoa(i+1), title: in.Title,
			text: "Investigating - " + in.Description, impact: in.Impact, updated: t.cfg.Anchor.Add(in.From)}
		if n.impact == "" {
			n.impact = "minor"
		}
		if end := t.cfg.Anchor.Add(in.To); in.To != 0 && !now.Before(end) {
			n.text, n.updated = "Resolved - "+in.Description, end
		}
		out = append(out, n)
	}
	return out
}

func (t *Tenant) rss(w http.ResponseWriter, r *http.Request) {
	domain, ok := feedDomain(w, r)
	if !ok {
		return
	}
	f := rssFeed{Version: "2.0", Channel: rssChannel{Title: "Auth0 Status - " + domain,
		Link: "https://status.auth0.com", Description: "Incidents that concern " + domain}}
	for _, n := range t.notices(domain, r, t.clock()) {
		f.Channel.Items = append(f.Channel.Items, rssItem{Title: n.title, Link: n.id, GUID: rssGUID{true, n.id},
			PubDate: n.updated.UTC().Format(time.RFC1123Z), Category: n.impact, Description: n.text})
	}
	writeXML(w, "application/rss+xml", f)
}

func (t *Tenant) atom(w http.ResponseWriter, r *http.Request) {
	domain, ok := feedDomain(w, r)
	if !ok {
		return
	}
	now := t.clock()
	f := atomFeed{Title: "Auth0 Status - " + domain, ID: "https://status.auth0.com/feed?domain=" + domain,
		Updated: now.Format(time.RFC3339)}
	for _, n := range t.notices(domain, r, now) {
		f.Entries = append(f.Entries, atomEntry{Title: n.title, ID: n.id, Updated: n.updated.UTC().Format(time.RFC3339),
			Category: atomCategory{n.impact}, Content: atomContent{"text", n.text}})
	}
	writeXML(w, "application/atom+xml", f)
}

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
		panic(err) // all callers pass plain values
	}
	writeBody(w, http.StatusOK, contentType, append([]byte(xml.Header), body...))
}
