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
	// helloTimeout is how long a client may take to say who it is.
	helloTimeout = 10 * time.Second
	// mostClients is how many connections of each protocol there may be at once.
	mostClients = 256
)

// guard is what clients connect to. It stands before the engine, which dies of bytes
// that are not of its protocol, lets anybody in as the user default, and takes a
// login to a database that is missing badly.
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

// newGuard takes the ports of the server's Access, where they are free, or others.
func newGuard(s *Server) (*guard, error) {
	g := &guard{server: s, slots: make(chan struct{}, mostClients), conns: map[net.Conn]struct{}{}}
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

// listen takes an address of loopback, or any port when it is taken.
func listen(want string) (net.Listener, error) {
	if host, _, err := net.SplitHostPort(want); err == nil && loopbackHost(host) {
		if l, err := net.Listen("tcp", want); err == nil {
			return l, nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for ClickHouse's clients: %w", err)
	}
	return l, nil
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// serve begins to take clients.
func (g *guard) serve() {
	g.wg.Go(func() { _ = g.web.Serve(g.http) })
	g.wg.Go(g.serveNative)
}

// close ends everything, and returns when it has ended. A nil guard has nothing.
func (g *guard) close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.ended = true
	for conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	_ = g.native.Close()
	_ = g.http.Close()
	_ = g.web.Close()
	g.wg.Wait()
}

// errRefused is the reason that strangers get, whatever is wrong.
var errRefused = errors.New("authentication failed: the user does not exist or the password is wrong")

// admit returns the login of a client, or why it is not let in.
func (g *guard) admit(user, password string) (login, error) {
	l, known := g.server.direct.logins[user]
	// The comparison takes as long for a user that does not exist.
	if subtle.ConstantTimeCompare([]byte(hash(l.public)), []byte(hash(password))) != 1 || !known {
		return login{}, errRefused
	}
	if g.server.Access.Unconfined && user != Owner {
		return login{}, errors.New("the kernel has no Landlock, so a reader could read every file of the user that runs tenantwatch: " +
			"ask with `tenantwatch sql`, or use Linux 5.19 or later")
	}
	return l, nil
}
