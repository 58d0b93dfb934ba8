package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// stopGrace is how long a stop waits for requests in flight.
const stopGrace = time.Second

// readTimeout bounds the reading of a request with its body, also of clients that have not authenticated.
const readTimeout = 30 * time.Second

// Server is an HTTP server on one address.
type Server struct {
	listener net.Listener
}

// Listen listens on the address of a setting. Port 0 picks a free port, which Addr returns.
func Listen(setting, addr string) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w: choose another port, or 0 for a free one", setting, addr, err)
	}
	return &Server{listener: listener}, nil
}

// Addr returns the host:port that it listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: readTimeout, IdleTimeout: time.Minute,
	}

	// Requests in flight are answered within the grace; then their connections are closed.
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	defer stop()

	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web: %w", err)
	}
	return nil
}

// Close closes the listener, also of a server that never ran.
func (s *Server) Close() { _ = s.listener.Close() }
