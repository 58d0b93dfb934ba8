package chlocal

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// helloTimeout is how long a client may take to log in.
	helloTimeout = 10 * time.Second

	// maxClients is the maximum number of native connections at once.
	maxClients = 256
)

// guard accepts the connections of clients. It protects the engine, which crashes on bytes that are not of its
// protocol, admits anyone as the user default, and handles a login to a missing database badly.
type guard struct {
	server *Server
	native net.Listener
	http   net.Listener
	web    *http.Server
	slots  chan struct{} // one for each native client

	wg    sync.WaitGroup
	mu    sync.Mutex            // guards conns and ended
	conns map[net.Conn]struct{} // of native clients
	ended bool
}

// newGuard listens on the ports of the server's Access, or on others if they are in use.
func newGuard(s *Server) (*guard, error) {
	g := &guard{server: s, slots: make(chan struct{}, maxClients), conns: map[net.Conn]struct{}{}}
	var err error
	if g.native, err = listen(s.Access.TCP); err != nil {
		return nil, err
	}
	if g.http, err = listen(s.Access.HTTP); err != nil {
		return nil, errors.Join(err, g.native.Close())
	}

	s.Access.TCP, s.Access.HTTP = g.native.Addr().String(), g.http.Addr().String()
	g.web = g.newWeb()
	return g, nil
}

// listen listens on an address of loopback, or on any free port of loopback.
func listen(want string) (net.Listener, error) {
	// The file with the address could have been changed: never listen beyond loopback.
	if host, _, err := net.SplitHostPort(want); err == nil && loopbackHost(host) {
		if listener, err := net.Listen("tcp", want); err == nil {
			return listener, nil
		}
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for ClickHouse's clients: %w", err)
	}
	return listener, nil
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// serve starts to accept clients. close waits for the goroutines.
func (g *guard) serve() {
	g.wg.Go(func() { _ = g.web.Serve(g.http) })
	g.wg.Go(g.serveNative)
}

// close ends all connections, and returns when they have ended. It may be called on nil.
func (g *guard) close() {
	if g == nil {
		return
	}

	g.mu.Lock()
	g.ended = true // track refuses new ones from now on
	for conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()

	// The listeners end the accept loops; wait for the connections that are ending.
	_ = g.native.Close()
	_ = g.http.Close()
	_ = g.web.Close()
	g.wg.Wait()
}

// errRefused is the answer to a wrong login. It does not say which part is wrong.
var errRefused = errors.New("authentication failed: the user does not exist or the password is wrong")

// admit returns the login of a client, or why it is refused.
func (g *guard) admit(user, password string) (login, error) {
	l, known := g.server.direct.logins[user]
	// The comparison takes as long for a user that does not exist.
	if subtle.ConstantTimeCompare([]byte(hash(l.public)), []byte(hash(password))) != 1 || !known {
		return login{}, errRefused
	}

	// Without Landlock, file() would read what the system user can read.
	if g.server.Access.Unconfined && user != Owner {
		return login{}, errors.New("the kernel has no Landlock, so a reader could read every file " +
			"of the user that runs tenantwatch: use `tenantwatch sql`, or Linux 5.19 or later")
	}
	return l, nil
}
