package chlocal_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWrongProtocols has clients of all kinds come to the ports that we print, and
// one with a password send garbage after it: the engine lives on.
func TestWrongProtocols(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector has nothing to see in what the engine refuses")
	}
	tt := newTarget(t)
	alive := tt.PID()
	send := func(addr string, parts ...[]byte) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, part := range parts {
			_, _ = conn.Write(part)
			// Whatever comes back: an answer, or the end.
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = conn.Read(make([]byte, 4096))
		}
	}
	garbage := func(n int) []byte { b := make([]byte, n); _, _ = rand.Read(b); return b }
	hello := func(user, password, database string) []byte {
		var b proto.Buffer
		proto.ClientHello{Name: "test", Major: 25, Minor: 1, ProtocolVersion: 54460, Database: database, User: user, Password: password}.Encode(&b)
		return b.Buf
	}
	kafka := binary.BigEndian.AppendUint32(nil, 20)
	kafka = append(kafka, 0, 18, 0, 3, 0, 0, 0, 1, 0, 6, 't', 'e', 's', 't', 'e', 'r', 0, 1, 1, 1)

	for _, addr := range []string{tt.Access.TCP, tt.Access.HTTP} {
		dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{InsecureSkipVerify: true}}
		if conn, err := dialer.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s speaks TLS", addr)
		}
		send(addr, kafka)
		send(addr, []byte("GET / HTTP/1.1\r\n\r\n"))
		send(addr, []byte("\x00\x00\x00"))
		send(addr, hello("default", "", "default"))
		send(addr, hello(chlocal.Reader, tt.Access.ReaderPassword, "missing"))
		send(addr, []byte{0, 0xff, 0xff, 0xff, 0xff, 0x7f})
		for range 20 {
			send(addr, garbage(300))
			send(addr, append([]byte{0}, garbage(300)...))
		}
		for range 20 {
			send(addr, hello(chlocal.Reader, tt.Access.ReaderPassword, "default"), garbage(300))
			send(addr, hello(chlocal.Reader, tt.Access.ReaderPassword, "default"), []byte{0}, append([]byte{1}, garbage(300)...))
			send(addr, hello(chlocal.Reader, tt.Access.ReaderPassword, "default")) // and goes
		}
		send(addr, hello(chlocal.Reader, tt.Access.ReaderPassword, "default"), hello(chlocal.Reader, tt.Access.ReaderPassword, "default"))
	}
	if out, err := native(t, tt.Access.TCP, chlocal.Reader, tt.Access.ReaderPassword, "SELECT 'here'", nil); err != nil || out != "here\n" {
		t.Errorf("a client afterwards: %q, %v", out, err)
	}
	if status, body := post(t, tt.Access.HTTP, chlocal.Reader, tt.Access.ReaderPassword, "SELECT 'here'", ""); status != http.StatusOK || body != "here" {
		t.Errorf("a client afterwards: %d %s", status, body)
	}
	if tt.PID() != alive {
		t.Error("the engine was started again")
	}
}

// TestClientGoes shows that a reader's query ends when its client does.
func TestClientGoes(t *testing.T) {
	tt := newTarget(t)
	const endless = "SELECT count() FROM numbers(10000000000) WHERE NOT ignore(SHA512(toString(number)))"
	running := func() bool {
		_, n := post(t, tt.Access.HTTP, chlocal.Owner, tt.Access.OwnerPassword,
			"SELECT count() FROM system.processes WHERE query LIKE '%SHA512%' AND query NOT LIKE '%processes%'", "")
		return n != "0"
	}
	until := func(want bool) {
		t.Helper()
		for running() != want {
			if t.Context().Err() != nil {
				t.Fatal("not so in time")
			}
		}
	}
	for _, user := range []struct{ name, password string }{{chlocal.Reader, tt.Access.ReaderPassword},
		{chlocal.TenantReader("acme"), tt.Access.TenantReaders["acme"].Password}} {
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+tt.Access.HTTP+"/", strings.NewReader(endless))
			req.SetBasicAuth(user.name, user.password)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		until(true)
		leave()
		<-ended
		until(false)

		conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{tt.Access.TCP}, Auth: clickhouse.Auth{Username: user.name, Password: user.password}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, leave = context.WithCancel(t.Context())
		go func() { _, _ = conn.Query(ctx, endless) }()
		until(true)
		leave()
		conn.Close()
		until(false)
	}
}

// TestEngineDies shows that the engine comes back at the same addresses.
func TestEngineDies(t *testing.T) {
	tt := newTarget(t)
	for range 3 {
		before, done := tt.PID(), tt.Done()
		process, err := os.FindProcess(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-done
		for tt.PID() == before {
			if t.Context().Err() != nil {
				t.Fatal("it did not come back")
			}
			time.Sleep(10 * time.Millisecond)
		}
		out, err := native(t, tt.Access.TCP, chlocal.Reader, tt.Access.ReaderPassword, "SELECT toString(count()) FROM "+chlocal.Database+".events", nil)
		if err != nil || out != "20\n" {
			t.Errorf("afterwards: %q, %v", out, err)
		}
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", tt.PID()))
	if err != nil || !info.IsDir() {
		t.Error(err)
	}
}

// TestManyAnswers has many clients ask at once: each answer is whole.
func TestManyAnswers(t *testing.T) {
	tt := newTarget(t)
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for query := range 50 {
				want := fmt.Sprintf("%d of %d", query, client)
				status, body := post(t, tt.Access.HTTP, chlocal.Reader, tt.Access.ReaderPassword, "SELECT '"+want+"'", "")
				if status != http.StatusOK || body != want {
					t.Errorf("got %d, %q, want %q", status, body, want)
				}
			}
		})
	}
	clients.Wait()
}
