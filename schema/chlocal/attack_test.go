package chlocal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// target is an engine with the tables and rows of two tenants.
type target struct {
	*chlocal.Server
	dir    string
	secret string // a file of ours that no query may read
}

const secretText = "the secret of this test"

func newTarget(t *testing.T) target {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "engine")
	srv, err := chlocal.Start(t.Context(), chlocal.Config{Dir: dir, Engine: chlocaltest.Engine(t), Tenants: []string{"acme", "o'hara.eu"},
		Bounds: chlocal.Bounds{MaxMemory: 2 << 30, MaxTime: 2 * time.Minute}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	conn, err := schema.Open(t.Context(), srv.DSN(chlocal.Owner, chlocal.Database), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := schema.Migrate(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO events_stored (tenant, date, type, log_id, source) SELECT if(number % 2, 'acme', 'o\\'hara.eu'), now(), 's', toString(number), 'tail' FROM numbers(20)",
		"INSERT INTO alerts_stored (tenant, starts_at, fingerprint, state) SELECT if(number % 2, 'acme', 'o\\'hara.eu'), now(), toString(number), 'firing' FROM numbers(20)",
		"INSERT INTO coverage_stored (tenant, hour) SELECT if(number % 2, 'acme', 'o\\'hara.eu'), now() + number * 3600 FROM numbers(20)",
	} {
		if err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(secretText+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return target{srv, dir, secret}
}

// engineAddr is where the engine itself listens, which an attacker may find out.
func (tt target) engineAddr(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(tt.DSN(chlocal.Owner, ""))
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// engineHTTP is where the engine itself listens for HTTP: the other port of its
// process, as anybody on the machine can see.
func (tt target) engineHTTP(t *testing.T) string {
	t.Helper()
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", tt.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(command), "--http_port=")
	port, _, _ := strings.Cut(rest, "\x00")
	if !found {
		t.Fatalf("no port in %q", command)
	}
	return "127.0.0.1:" + port
}

// post asks over HTTP, with credentials in headers and more parameters.
func post(t *testing.T, addr, user, password, sql, params string) (int, string) {
	t.Helper()
	return postFor(t, time.Minute, addr, user, password, sql, params)
}

// postFor is post for queries that may try something again and again.
func postFor(t *testing.T, patience time.Duration, addr, user, password, sql, params string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/?"+params, strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.Header.Set("X-ClickHouse-User", user)
		req.Header.Set("X-ClickHouse-Key", password)
	}
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	req.Close = true // a connection that the server has just closed is not this test's subject
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return http.StatusGatewayTimeout, err.Error() // the engine tries something again and again, or is starting again
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// native asks over the native protocol and returns the first column's values.
func native(t *testing.T, addr, user, password, sql string, settings clickhouse.Settings) (string, error) {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{addr}, Auth: clickhouse.Auth{Username: user, Password: password, Database: "default"}, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return firstColumn(conn.Query(ctx, sql))
}

func firstColumn(rows driver.Rows, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var out strings.Builder
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return "", err
		}
		out.WriteString(v + "\n")
	}
	return out.String(), rows.Err()
}

func (tt target) readSecret() string { return "SELECT file('" + tt.secret + "')" }

// TestStrangers are on the same machine and have no password, at the ports that we
// print and at those of the engine itself.
func TestStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	engineTCP, engineHTTP := tt.engineAddr(t), tt.engineHTTP(t)
	queries := map[string]string{
		"one":         "SELECT 1",
		"a file":      tt.readSecret(),
		"files":       "SELECT * FROM file('" + tt.secret + "', LineAsString)",
		"access":      "SELECT file('" + filepath.Join(tt.dir, "access.json") + "')",
		"environment": fmt.Sprintf("SELECT file('/proc/%d/environ')", os.Getpid()),
		"processes":   "SELECT query FROM system.processes",
		"numbers":     "SELECT number FROM numbers(3)",
		"kill":        "KILL QUERY WHERE 1 SYNC",
		"listen":      "SYSTEM STOP LISTEN TCP",
		"table":       "SELECT log_id FROM " + chlocal.Database + ".events_stored",
		"temporary":   "CREATE TEMPORARY TABLE t (n UInt8)",
		"set":         "SET max_concurrent_queries_for_all_users = 100",
	}
	users := []struct{ user, password string }{{"", ""}, {"default", ""}, {chlocal.Owner, "wrong"}, {chlocal.Reader, ""}, {"reader_0", ""}, {"nobody", "x"}}
	params := []string{"", "max_concurrent_queries_for_all_users=100", "readonly=0&profile=default", "user=default", "user=default&max_concurrent_queries_for_all_users=0"}
	for name, sql := range queries {
		for _, u := range users {
			for _, addr := range []string{tt.Access.HTTP, engineHTTP} {
				for _, p := range params {
					if strings.HasPrefix(p, "user=") && u.user != "" {
						continue
					}
					if status, body := post(t, addr, u.user, u.password, sql, p); status == http.StatusOK {
						t.Errorf("%s as %q with %q at %s: got 200, %.100s", name, u.user, p, addr, body)
					}
				}
			}
			for _, addr := range []string{tt.Access.TCP, engineTCP} {
				for _, settings := range []clickhouse.Settings{nil, {"max_concurrent_queries_for_all_users": 100}} {
					user := u.user
					if user == "" {
						user = "default"
					}
					if out, err := native(t, addr, user, u.password, sql, settings); err == nil {
						t.Errorf("%s as %q at %s: got %.100q", name, user, addr, out)
					}
				}
			}
		}
	}
	// The passwords that clients have are none of the engine's.
	if out, err := native(t, engineTCP, chlocal.Reader, tt.Access.ReaderPassword, "SELECT 'in'", nil); err == nil {
		t.Errorf("reader at the engine itself: got %q", out)
	}
	// Whoever finds the engine's own port may end the engine, and no more.
	for chlocal.Ping(t.Context(), tt.Access) != nil {
		if t.Context().Err() != nil {
			t.Fatal("the engine did not come back")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestFilesAndNetwork has every user try what reads files or the network.
func TestFilesAndNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	if tt.Access.Unconfined {
		t.Skip("the kernel has no Landlock: not shown is that the engine cannot read files of ours")
	}
	reached := make(chan struct{}, 100)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			conn.Close()
		}
	}()
	here := listener.Addr().String()
	queries := []string{
		tt.readSecret(),
		"SELECT file('" + filepath.Join(tt.dir, "access.json") + "')",
		"SELECT file('../access.json')",
		fmt.Sprintf("SELECT file('/proc/%d/environ')", os.Getpid()),
		fmt.Sprintf("SELECT file('/proc/%d/cmdline')", os.Getpid()),
		"SELECT file('/etc/hostname')",
		"SELECT file('/etc/shadow')",
		"SELECT file('/proc/1/environ')",
		"SELECT * FROM file('" + tt.secret + "', LineAsString)",
		"SELECT * FROM file('" + tt.secret + "', 'RawBLOB', 'x String')",
		"SELECT * FROM fileCluster('default', '" + tt.secret + "', LineAsString)",
		"SELECT * FROM filesystem('" + filepath.Dir(tt.secret) + "')",
		"SELECT * FROM executable('cat " + tt.secret + "', LineAsString, 'x String')",
		"SELECT * FROM sqlite('" + tt.secret + "', 't')",
		"SELECT * FROM dictionary('" + tt.secret + "')",
		"SELECT catboostEvaluate('" + tt.secret + "', 1)",
		"SELECT * FROM url('http://" + here + "/', LineAsString)",
		"SELECT * FROM s3('http://" + here + "/b/k', LineAsString)",
		"SELECT * FROM remote('" + here + "', system.one)",
		"SELECT * FROM mysql('" + here + "', 'd', 't', 'u', 'p')",
		"SELECT * FROM postgresql('" + here + "', 'd', 't', 'u', 'p')",
		"SELECT * FROM mongodb('" + here + "', 'd', 't', 'u', 'p', 'x String')",
		"SELECT * FROM redis('" + here + "', 'k', 'k String')",
		"SELECT * FROM jdbc('jdbc:x://" + here + "', 's', 't')",
		"SELECT * FROM Python(x)",
		"INSERT INTO FUNCTION file('" + tt.secret + ".new', LineAsString) SELECT 'x'",
		"INSERT INTO FUNCTION url('http://" + here + "/', LineAsString) SELECT 'x'",
		"SELECT 1 INTO OUTFILE '" + tt.secret + ".out'",
		"CREATE TABLE default.t (x String) ENGINE = File(LineAsString, '" + tt.secret + "')",
		"BACKUP TABLE " + chlocal.Database + ".events_stored TO File('" + tt.secret + ".backup')",
	}
	// The ways of HTTP and of the native protocol are the same from here on.
	for user, password := range map[string]string{chlocal.Owner: tt.Access.OwnerPassword, chlocal.Reader: tt.Access.ReaderPassword,
		chlocal.TenantReader("acme"): tt.Access.TenantReaders["acme"].Password} {
		for _, sql := range queries {
			status, body := postFor(t, 3*time.Second, tt.Access.HTTP, user, password, sql, "")
			// An owner may see that a folder is there, and create what it cannot read.
			harmless := user == chlocal.Owner && (strings.HasPrefix(sql, "CREATE") || strings.Contains(sql, " filesystem("))
			if status == http.StatusOK && !harmless {
				t.Errorf("%s: %s: got 200, %.100s", user, sql, body)
			}
			if strings.Contains(body, secretText) || strings.Contains(body, "owner_password") {
				t.Errorf("%s: %s: got the file", user, sql)
			}
		}
		if _, body := post(t, tt.Access.HTTP, user, password, "SELECT file('"+tt.secret+"', 'nothing')", ""); strings.Contains(body, secretText) {
			t.Errorf("%s: got the file where there is another answer", user)
		}
		if out, err := native(t, tt.Access.TCP, user, password, tt.readSecret(), nil); err == nil {
			t.Errorf("%s, native: got %q", user, out)
		}
	}
	// What may be created is of no use.
	if status, body := post(t, tt.Access.HTTP, chlocal.Owner, tt.Access.OwnerPassword, "SELECT * FROM default.t", ""); status == http.StatusOK {
		t.Errorf("a table over the file: %s", body)
	}
	select {
	case <-reached:
		t.Error("the engine connected to a server of ours")
	default:
	}
}

// TestOtherSites are pages in a browser on this machine.
func TestOtherSites(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	request := func(change func(r *http.Request)) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+tt.Access.HTTP+"/?add_http_cors_header=1"+
			"&http_response_headers="+url.QueryEscape("{'Access-Control-Allow-Origin':'*'}"), strings.NewReader("SELECT 1"))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(chlocal.Owner, tt.Access.OwnerPassword)
		change(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	tests := []struct {
		name   string
		change func(r *http.Request)
		want   int
	}{
		{"a client", func(*http.Request) {}, 200},
		{"our own page", func(r *http.Request) { r.Header.Set("Origin", "http://"+tt.Access.HTTP) }, 200},
		{"localhost", func(r *http.Request) { r.Host = "localhost:8123" }, 200},
		{"IPv6", func(r *http.Request) { r.Host = "[::1]:8123" }, 200},
		{"another page", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"a file", func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		{"another port", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }, 403},
		{"fetched by another page", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"a name that was made to point here", func(r *http.Request) { r.Host = "evil.example" }, 403},
		{"and with our port", func(r *http.Request) { r.Host = "127.0.0.1.evil.example:8123" }, 403},
		{"no name", func(r *http.Request) { r.Host = "0.0.0.0" }, 403},
	}
	for _, test := range tests {
		status, header := request(test.change)
		if status != test.want {
			t.Errorf("%s: got %d, want %d", test.name, status, test.want)
		}
		for name := range header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: the answer has %s", test.name, name)
			}
		}
	}
	// A query may say so as well.
	status, header := request(func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader("SELECT 1 SETTINGS add_http_cors_header = 1"))
		r.ContentLength = -1
	})
	if header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d with CORS by the query's own setting", status)
	}
}

// TestReaders shows what readers reach.
func TestReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	type user struct{ name, password string }
	reader := user{chlocal.Reader, tt.Access.ReaderPassword}
	acme := user{chlocal.TenantReader("acme"), tt.Access.TenantReaders["acme"].Password}
	ohara := user{chlocal.TenantReader("o'hara.eu"), tt.Access.TenantReaders["o'hara.eu"].Password}
	in := "database=" + chlocal.Database
	tests := []struct {
		name   string
		user   user
		sql    string
		params string
		want   string // the answer; "" for a refusal
	}{
		{"reads", reader, "SELECT count() FROM events", in, "20"},
		{"reads alerts", reader, "SELECT count() FROM alerts", in, "20"},
		{"sets", reader, "SELECT 1 SETTINGS max_threads = 1", in, "1"},
		{"sees the tables", reader, "SELECT count() > 5 FROM system.tables WHERE database = '" + chlocal.Database + "'", in, "1"},
		{"sees parts", reader, "SELECT count() > 0 FROM system.parts", in, "1"},
		{"writes", reader, "INSERT INTO events_stored (log_id) VALUES ('x')", in, ""},
		{"drops", reader, "DROP TABLE events_stored", in, ""},
		{"may write", reader, "SET readonly = 0", in, ""},
		{"may write, in the address", reader, "DROP TABLE events_stored", in + "&readonly=0", ""},
		{"creates", reader, "CREATE TEMPORARY TABLE t (n UInt8)", in, ""},
		{"processes", reader, "SELECT count() FROM system.processes", in, ""},
		{"users", reader, "SELECT count() FROM system.users", in, ""},
		{"kills others", reader, "KILL QUERY WHERE user = '" + chlocal.Owner + "' SYNC", in, ""},
		{"another profile", reader, "SELECT 1 SETTINGS max_memory_usage = 0", in + "&profile=default", ""},
		{"another profile, writing", reader, "DROP TABLE events_stored", in + "&profile=default", ""},
		{"a profile in the query", reader, "SELECT 1 SETTINGS profile = 'default', max_execution_time = 0", in, ""},

		{"memory within", reader, "SELECT 1 SETTINGS max_memory_usage = 2000000000", in, "1"},
		{"memory beyond", reader, "SELECT 1 SETTINGS max_memory_usage = 3000000000", in, ""},
		{"memory without end", reader, "SELECT 1 SETTINGS max_memory_usage = 0", in, ""},
		{"memory in the address", reader, "SELECT 1", in + "&max_memory_usage=0", ""},
		{"memory not counted", reader, "SELECT 1 SETTINGS max_untracked_memory = 9000000000", in, ""},
		{"memory of all", reader, "SELECT 1 SETTINGS max_memory_usage_for_user = 0", in, ""},
		{"time within", reader, "SELECT 1 SETTINGS max_execution_time = 120", in, "1"},
		{"time beyond", reader, "SELECT 1 SETTINGS max_execution_time = 121", in, ""},
		{"time without end", reader, "SELECT 1 SETTINGS max_execution_time = 0", in, ""},
		{"rows without end", reader, "SELECT 1 SETTINGS max_rows_to_read = 0", in, ""},
		{"queries without end", reader, "SELECT 1 SETTINGS max_concurrent_queries_for_user = 0", in, ""},
		{"half an answer", reader, "SELECT 1 SETTINGS timeout_overflow_mode = 'break'", in, ""},
		{"uses memory", reader, "SELECT length(groupArray(number)) FROM numbers(1000000000)", in, ""},
		{"takes long", reader, "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number)) SETTINGS max_execution_time = 1", in, ""},

		{"a tenant's reader, events", acme, "SELECT count(), uniq(tenant) FROM events", in, "10\t1"},
		{"stored", acme, "SELECT count(), uniq(tenant) FROM events_stored", in, "10\t1"},
		{"stored, merged", acme, "SELECT count(), uniq(tenant) FROM events_stored FINAL", in, "10\t1"},
		{"alerts", acme, "SELECT count(), uniq(tenant) FROM alerts", in, "10\t1"},
		{"transitions", acme, "SELECT count(), uniq(tenant) FROM alert_transitions", in, "10\t1"},
		{"coverage", acme, "SELECT count(), uniq(tenant) FROM coverage", in, "10\t1"},
		{"probes", acme, "SELECT count() FROM probes", in, "0"},
		{"gaps", acme, "SELECT count() FROM gaps", in, "0"},
		{"the other", acme, "SELECT count() FROM events WHERE tenant = 'o\\'hara.eu'", in, "0"},
		{"the other, in parts", acme, "SELECT count() FROM events_stored WHERE tenant != 'acme' OR 1", in, "10"},
		{"a name with a quote", ohara, "SELECT count(), any(tenant) FROM events", in, "10\to\\'hara.eu"},
		{"scans", acme, "SELECT count() FROM scans", in, ""},
		{"migrations", acme, "SELECT count() FROM schema_migrations", in, ""},
		{"parts", acme, "SELECT count() FROM system.parts", in, ""},
		{"index", acme, "SELECT count() FROM mergeTreeIndex('" + chlocal.Database + "', 'events_stored')", in, ""},
		{"analysis", acme, "SELECT count() FROM mergeTreeAnalyzeIndexes('" + chlocal.Database + "', 'events_stored')", in, ""},
		{"merge", acme, "SELECT count() FROM merge('" + chlocal.Database + "', 'events_stored')", in, "10"},
		{"parts", acme, "SELECT count() FROM loop(" + chlocal.Database + ", events_stored) LIMIT 1", in, ""},
		{"writes", acme, "INSERT INTO events_stored (log_id) VALUES ('x')", in, ""},
		{"a word", acme, "SELECT 'profile', 'file', 'a file.'", in, "profile\tfile\ta file."},
	}
	for _, test := range tests {
		status, body := post(t, tt.Access.HTTP, test.user.name, test.user.password, test.sql, test.params)
		if test.want == "" && status == http.StatusOK || test.want != "" && (status != http.StatusOK || body != test.want) {
			t.Errorf("%s as %s: got %d %.200s; want %q", test.name, test.user.name, status, body, test.want)
		}
	}
	// Of every table and view that there is, also those that will be added.
	_, tables := post(t, tt.Access.HTTP, chlocal.Owner, tt.Access.OwnerPassword,
		"SELECT table, countIf(name = 'tenant') FROM system.columns WHERE database = '"+chlocal.Database+"' GROUP BY table", "")
	if n := strings.Count(tables, "\n"); n < 9 {
		t.Fatalf("%d tables:\n%s", n+1, tables)
	}
	for line := range strings.Lines(tables) {
		table, has, _ := strings.Cut(strings.TrimSpace(line), "\t")
		sql := "SELECT count() FROM " + table
		if has == "1" {
			sql += " WHERE tenant != 'acme'"
		}
		if status, body := post(t, tt.Access.HTTP, acme.name, acme.password, sql, in); status == http.StatusOK && (has == "0" || body != "0") {
			t.Errorf("a tenant's reader, table %s: %d %s", table, status, body)
		}
	}
	out, err := native(t, tt.Access.TCP, acme.name, acme.password, "SELECT toString(count()) FROM "+chlocal.Database+".events", nil)
	if err != nil || out != "10\n" {
		t.Errorf("a tenant's reader over the native protocol: %q, %v", out, err)
	}
}

// TestFilesOfTheStore are where rows of all tenants are, in reach of the engine. Only
// the guard keeps a tenant's reader from them.
func TestFilesOfTheStore(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	password := tt.Access.TenantReaders["acme"].Password
	user := chlocal.TenantReader("acme")
	path := filepath.Join(tt.dir, "users.xml") // as readable as the store
	spellings := []string{
		"file('%s')", "file ('%s')", "file\n\t('%s')", "file/**/('%s')", "file/* ' */ ('%s')", "file -- x\n('%s')", "file # x\n('%s')", "file\u00a0('%s')",
		"`file`('%s')", "\"file\"('%s')", "`\\x66ile`('%s')", "`fil\\x65` ('%s')", "FILE('%s')",
		"file" + strings.Repeat(" ", 100_000) + "('%s')",
		"arrayMap(x -> file(x), ['%s'])", "(SELECT file('%s'))",
	}
	for _, spelling := range spellings {
		sql := "SELECT " + fmt.Sprintf(spelling, path)
		for way, ask := range map[string]func() (string, error){
			"body": func() (string, error) {
				status, body := post(t, tt.Access.HTTP, user, password, sql, "")
				return body, refused(status)
			},
			"address": func() (string, error) {
				if len(sql) > 4000 {
					return "", errors.New("too long for an address")
				}
				status, body := post(t, tt.Access.HTTP, user, password, "", "query="+url.QueryEscape(sql))
				return body, refused(status)
			},
			"both": func() (string, error) {
				head, rest := sql[:9], sql[9:] // "SELECT fi", "le(…"
				status, body := post(t, tt.Access.HTTP, user, password, rest, "query="+url.QueryEscape(head))
				return body, refused(status)
			},
			"native": func() (string, error) { return native(t, tt.Access.TCP, user, password, sql, nil) },
		} {
			if out, err := ask(); err == nil || strings.Contains(out, "password_sha256_hex") {
				t.Errorf("%.60q, %s: got %.100q, %v", spelling, way, out, err)
			}
		}
	}
	// As a part, in another encoding, or compressed.
	for name, request := range map[string]func() *http.Request{
		"multipart": func() *http.Request {
			body := "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT file('" + path + "')\r\n--b--\r\n"
			req, _ := http.NewRequest(http.MethodPost, "http://"+tt.Access.HTTP+"/", strings.NewReader(body))
			req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
			return req
		},
		"form": func() *http.Request {
			req, _ := http.NewRequest(http.MethodPost, "http://"+tt.Access.HTTP+"/", strings.NewReader("query="+url.QueryEscape("SELECT file('"+path+"')")))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return req
		},
		"gzip": func() *http.Request {
			req, _ := http.NewRequest(http.MethodPost, "http://"+tt.Access.HTTP+"/", bytes.NewReader(zipped(t, "SELECT file('"+path+"')")))
			req.Header.Set("Content-Encoding", "gzip")
			return req
		},
		"Identifier": func() *http.Request {
			req, _ := http.NewRequest(http.MethodPost, "http://"+tt.Access.HTTP+"/?param_f=file", strings.NewReader("SELECT {f:Identifier}('"+path+"')"))
			return req
		},
		"eval": func() *http.Request {
			req, _ := http.NewRequest(http.MethodPost, "http://"+tt.Access.HTTP+"/?allow_experimental_eval_table_function=1",
				strings.NewReader("SELECT * FROM eval(concat('SELECT fi', 'le(''"+path+"'')'))"))
			return req
		},
	} {
		req := request()
		req.SetBasicAuth(user, password)
		if status, body := do(t, req); status == http.StatusOK {
			t.Errorf("%s: got %.100s", name, body)
		}
	}
}

func refused(status int) error {
	if status != http.StatusOK {
		return errors.New("refused")
	}
	return nil
}
