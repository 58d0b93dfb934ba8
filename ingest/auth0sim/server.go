package auth0sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Server is a simulated tenant that is served over HTTP.
type Server struct {
	Tenant *Tenant
	URL    *url.URL

	server *http.Server
	done   chan error // the end of Serve
}

// Listen serves a tenant at an address until Close. Settings that cfg leaves empty have defaults.
func Listen(addr string, cfg Config) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("simulated tenant: %w", err)
	}

	// The port may have been 0, so the address is the listener's.
	s := &Server{
		Tenant: New(cfg),
		URL:    &url.URL{Scheme: "http", Host: listener.Addr().String()},
		done:   make(chan error, 1),
	}
	s.server = &http.Server{Handler: s.Tenant, ReadHeaderTimeout: 10 * time.Second}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// Wait returns when ctx ends or the server fails.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-s.done:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("simulated tenant: %w", err)
	}
}

// Close ends the server and its connections.
func (s *Server) Close() { _ = s.server.Close() }
