package chlocal

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// maxText bounds each of the texts in a client's hello, in bytes: names and a password.
const maxText = 1 << 10

// serveNative accepts native clients until the listener is closed. Those beyond maxClients are disconnected.
func (g *guard) serveNative() {
	for {
		conn, err := g.native.Accept()
		if err != nil {
			return
		}

		select {
		case g.slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		// A slot is not released here: the guard is closing.
		if !g.track(conn) {
			_ = conn.Close()
			return
		}
		g.wg.Go(func() {
			defer func() { <-g.slots }()
			defer g.forget(conn)
			g.proxy(conn)
		})
	}
}

// track records a connection, so that close ends it. It reports false after close.
func (g *guard) track(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.conns[conn] = struct{}{}
	}
	return !g.ended
}

// forget closes a connection.
func (g *guard) forget(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
	_ = conn.Close()
}

// proxy connects a client to the engine until one of them leaves.
func (g *guard) proxy(client net.Conn) {
	_ = client.SetDeadline(time.Now().Add(helloTimeout))
	in := bufio.NewReader(client)
	hello, err := readHello(in)
	if err != nil {
		return // another protocol, or nothing: it could not read an answer
	}
	l, err := g.admit(hello.User, hello.Password)
	if err != nil {
		refuse(client, proto.ErrAuthenticationFailed, err)
		return
	}

	at := g.server.direct
	if exists, err := g.databaseExists(at, hello.Database); err == nil && !exists {
		refuse(client, proto.ErrUnknownDatabase, errors.New("database "+hello.Database+" does not exist"))
		return
	}

	// If the engine is down, the client gets a reason instead of a reset connection.
	engine, err := net.DialTimeout("tcp", at.tcp, helloTimeout)
	if err != nil || !g.track(engine) {
		refuse(client, proto.ErrAborted, errStarting)
		return
	}
	defer g.forget(engine)

	// Log in to the engine with its own credentials.
	hello.User, hello.Password = l.name, l.password
	var out proto.Buffer
	hello.Encode(&out)
	if _, err := engine.Write(out.Buf); err != nil {
		return
	}

	// The end of either side ends the other: the engine cancels the query of a client that has gone.
	g.wg.Go(func() {
		_, _ = io.Copy(client, engine)
		_ = client.Close()
	})

	// The engine is newer than all revisions in readAddendum, so the client's revision decides.
	addendum, err := readAddendum(in, hello.ProtocolVersion)
	if err != nil {
		return
	}
	if _, err := engine.Write(addendum.Buf); err != nil {
		return
	}

	// The client has logged in: a query may take any time.
	_ = client.SetDeadline(time.Time{})

	// Only the bytes from the client are filtered.
	if l.tenant == "" {
		_, _ = io.Copy(engine, in)
	} else if _, err := io.Copy(engine, &fileFilter{r: in}); errors.Is(err, errFileFunction) {
		refuse(client, proto.ErrAccessDenied, err)
	}
}

// databaseExists reports whether the database of a login exists.
func (g *guard) databaseExists(at direct, database string) (bool, error) {
	if database == "" || database == "default" || database == "system" {
		return true, nil
	}

	// The owner may have created others beside ours.
	owner := at.logins[Owner]
	return hasDatabase(context.Background(), at.http, owner.name, owner.password, database)
}

// refuse sends a client the reason why it is disconnected.
func refuse(client net.Conn, code proto.Error, reason error) {
	var out proto.Buffer
	proto.ServerCodeException.Encode(&out)
	exception := proto.Exception{Code: code, Name: "DB::Exception", Message: "DB::Exception: " + reason.Error()}
	exception.EncodeAware(&out, proto.Version)

	_ = client.SetWriteDeadline(time.Now().Add(helloTimeout))
	_, _ = client.Write(out.Buf)
}

// fields reads the parts of a packet. The library's decoder cannot be used here: it allocates whatever length a
// stranger claims.
type fields struct {
	in  *bufio.Reader
	err error // the first one
}

func (f *fields) number() int {
	if f.err != nil {
		return 0
	}
	value, err := binary.ReadUvarint(f.in)
	if err == nil && value > math.MaxInt32 {
		err = errors.New("a number is too large")
	}
	f.err = err
	return int(value)
}

func (f *fields) text() string {
	length := f.number()
	if f.err == nil && length > maxText {
		f.err = errors.New("a text is too long")
	}
	if f.err != nil {
		return ""
	}

	text := make([]byte, length)
	_, f.err = io.ReadFull(f.in, text)
	return string(text)
}

// readHello reads the first packet of a native client, and not a byte more.
func readHello(in *bufio.Reader) (hello proto.ClientHello, err error) {
	first, err := in.ReadByte()
	if err != nil {
		return hello, err
	}
	if first != byte(proto.ClientCodeHello) {
		return hello, errors.New("not a client of ClickHouse's native protocol")
	}

	f := fields{in: in}
	// The order of the fields is that of the protocol.
	hello.Name, hello.Major, hello.Minor, hello.ProtocolVersion = f.text(), f.number(), f.number(), f.number()
	hello.Database, hello.User, hello.Password = f.text(), f.text(), f.text()
	return hello, f.err
}

// The revisions of the protocol from which a client sends more after the engine's hello: a quota key; two texts
// about chunks; a version for parallel replicas.
const (
	revisionQuotaKey = 54458
	revisionChunks   = 54470
	revisionReplicas = 54471
)

// readAddendum reads what a client of a revision sends after the engine's hello. The engine would crash on
// anything else.
func readAddendum(in *bufio.Reader, revision int) (proto.Buffer, error) {
	var out proto.Buffer
	f := fields{in: in}
	if revision >= revisionQuotaKey {
		out.PutString(f.text())
	}
	if revision >= revisionChunks {
		out.PutString(f.text())
		out.PutString(f.text())
	}
	if revision >= revisionReplicas {
		out.PutInt(f.number())
	}
	return out, f.err
}
