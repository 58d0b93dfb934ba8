package chlocal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

const (
	// startTimeout bounds a start: 1 s for the engine itself, the rest for attaching many parts on a slow
	// disk.
	startTimeout = 30 * time.Second

	// lockTimeout is how long a start waits for an engine whose parent has just died (see grace).
	lockTimeout = 5 * time.Second

	// lockInterval is the time between two attempts to lock the folder.
	lockInterval = 50 * time.Millisecond

	// restartPause is the time between two attempts to start an engine that died.
	restartPause = 2 * time.Second

	// maxLaunches is how often a start picks ports before it gives up.
	maxLaunches = 3
)

// Database is the only database that readers see.
const Database = "tenantwatch"

// ErrInUse reports that another process runs an engine on the folder.
var ErrInUse = errors.New("the engine's folder is in use by another process: stop it, or use another folder")

// Config describes the engine to start.
type Config struct {
	// Dir holds the data, the engine's settings and its log. It is created if missing, with mode 0700.
	Dir string

	// Engine is the ClickHouse to run; see FindEngine.
	Engine Engine

	// Tenants get a reader each, who sees no other tenant's rows. Readers of earlier starts remain.
	Tenants []string

	// Bounds limit the queries of readers. Default: defaultBounds.
	Bounds Bounds

	// Connect is where the engine itself may connect to, host:port. Default: nowhere. It is for tables that
	// read from another server.
	Connect []string

	// Log records the start, the end and restarts. Required.
	Log *slog.Logger
}

// Server is an engine and the guard in front of it. An engine that dies is restarted with the same ports and
// passwords.
type Server struct {
	// Access is how clients reach the guard. It does not change.
	Access Access

	cfg    Config
	dir    string
	lock   *os.File
	guard  *guard
	direct direct
	stop   context.CancelFunc
	ended  chan struct{} // closed when no engine is started any more

	mu    sync.Mutex // guards child
	child *child
}

// direct is how this process, and no other, reaches the engine.
type direct struct {
	tcp, http string
	connect   []string         // where the engine may connect to
	logins    map[string]login // by their public names
}

// DSN returns the address of the engine itself, past the guard, for this process.
func (s *Server) DSN(user, database string) string {
	l := s.direct.logins[user]
	return dsn(s.direct.tcp, l.name, l.password, database)
}

// Start starts an engine and returns when it answers queries. After an error nothing keeps running.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Bounds == (Bounds{}) {
		cfg.Bounds = defaultBounds()
	}
	if err := cfg.Engine.check(); err != nil {
		return nil, err
	}

	// Look for the store before its folder is created.
	lost := storeMissing(dir)
	if err := makeFolders(dir); err != nil {
		return nil, fmt.Errorf("make the engine's folder: %w", err)
	}

	// The child inherits the lock and so holds it while it lives, even after the end of this process.
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, dir: dir, lock: lock, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			s.guard.close()
			_ = lock.Close()
		}
	}()

	if lost {
		cfg.Log.Error("clickhouse store is missing; starting empty: audits restore the events that Auth0 still has, "+
			"a backup of the folder has the others", "dir", filepath.Join(dir, storeDir))
	}
	s.loadAccess()
	if s.guard, err = newGuard(s); err != nil {
		return nil, err
	}

	// The guard listens already, so its ports are ours, but it accepts no clients before the engine answers.
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.launch(ctx); err != nil {
		return nil, err
	}

	// If we stop here, the file is stale; its readers check that the engine answers.
	if err := s.Access.save(dir); err != nil {
		return nil, errors.Join(err, s.child.close())
	}

	superviseCtx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.guard.serve()
	go s.supervise(superviseCtx)
	cfg.Log.Info("clickhouse started",
		"engine", cfg.Engine.Path, "dir", dir, "tcp", s.Access.TCP, "http", s.Access.HTTP)
	return s, nil
}

// loadAccess sets the users, with their passwords of earlier starts, and reports what clients must know.
func (s *Server) loadAccess() {
	// The data does not depend on this file.
	access, damage := loadAccess(s.dir, s.cfg.Tenants)
	if damage != nil {
		s.cfg.Log.Error("access file damaged; clients need the new passwords", "err", damage)
	}
	if access.Unconfined = !canConfine(); access.Unconfined {
		s.cfg.Log.Warn("kernel has no Landlock (Linux 5.19 or later); clickhouse can read every file of this user, " +
			"so its readers cannot connect over the network")
	}
	s.Access = access
	s.direct.logins, s.direct.connect = newLogins(access), s.cfg.Connect
}

// storeMissing reports whether an engine has run on the folder before, but its store is missing or empty.
func storeMissing(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, accessFile)); err != nil {
		return false // the first start
	}
	files, err := os.ReadDir(filepath.Join(dir, storeDir))
	return len(files) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}

// makeFolders creates missing folders, and makes all of them accessible to this user only.
func makeFolders(dir string) error {
	folders := []string{dir, filepath.Join(dir, storeDir), filepath.Join(dir, tmpDir), filepath.Join(dir, logDir)}
	for _, path := range folders {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		// An earlier version, or a restore, may have left them open.
		if err := os.Chmod(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// lockDir locks the folder. Its error is ErrInUse when another process holds the lock for lockTimeout.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()

	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for {
		lock, err := datadir.Lock(dir)
		if err == nil || !errors.Is(err, datadir.ErrInUse) {
			return lock, err
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", dir, ErrInUse)
		}
	}
}

// freePort returns an address of loopback with a free port.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// launch starts the first engine, on free ports. Another process may take a port before the engine listens on
// it, so it tries again with others.
func (s *Server) launch(ctx context.Context) (err error) {
	for attempt := 1; ; attempt++ {
		if s.direct.tcp, err = freePort(); err != nil {
			return err
		}
		if s.direct.http, err = freePort(); err != nil {
			return err
		}
		if s.child, err = s.start(ctx); err == nil {
			return nil
		}
		if attempt == maxLaunches || ctx.Err() != nil {
			return err
		}
	}
}

// start starts an engine on the current ports.
func (s *Server) start(ctx context.Context) (*child, error) {
	if err := writeSettings(s.dir, Database, s.cfg.Bounds, s.direct.logins); err != nil {
		return nil, fmt.Errorf("write the engine's settings: %w", err)
	}
	return startChild(ctx, s.cfg.Engine, s.dir, s.direct, s.lock)
}

// supervise restarts the engine when it dies, on the same ports, until ctx ends. Clients whose insert failed
// must repeat it.
func (s *Server) supervise(ctx context.Context) {
	defer close(s.ended)
	for {
		running := s.running()
		select {
		case <-ctx.Done():
			return
		case <-running.done:
		}

		// Close ends the supervisor before the engine, so this is a crash or a kill.
		s.cfg.Log.Error("clickhouse died; restarting", "err", running.err)

		if !s.restart(ctx) {
			return
		}
		s.cfg.Log.Info("clickhouse restarted")
	}
}

// restart starts an engine, and retries until one runs. It reports false when ctx has ended.
func (s *Server) restart(ctx context.Context) bool {
	for logged := ""; ; {
		startCtx, cancel := context.WithTimeout(ctx, startTimeout)
		next, err := s.start(startCtx)
		cancel()
		if err == nil {
			s.mu.Lock()
			s.child = next
			s.mu.Unlock()
			return true
		}
		if ctx.Err() != nil {
			return false
		}

		// Log a reason once, not at every attempt.
		if text := err.Error(); text != logged {
			logged = text
			s.cfg.Log.Error("clickhouse restart failed; retrying", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(restartPause):
		}
	}
}

func (s *Server) running() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// PID returns the engine's process id.
func (s *Server) PID() int { return s.running().cmd.Process.Pid }

// Done is closed when the engine that runs now has ended, by Close or by its death.
func (s *Server) Done() <-chan struct{} { return s.running().done }

// Close ends the engine, and returns when it has ended.
func (s *Server) Close() error {
	// Stop the supervisor first, or it would restart the engine.
	s.stop()
	<-s.ended

	s.guard.close()
	err := s.running().close()
	s.cfg.Log.Info("clickhouse stopped")
	return errors.Join(err, s.lock.Close())
}

// Ping sends an engine one query as Owner. It returns an error for a stale Access, whose port may belong to
// another program by now.
func Ping(ctx context.Context, access Access) error {
	_, err := query(ctx, access.HTTP, Owner, access.OwnerPassword, "SELECT 1", nil)
	return err
}

// HasDatabase reports whether the engine has a database.
func HasDatabase(ctx context.Context, access Access, name string) (bool, error) {
	return hasDatabase(ctx, access.HTTP, Owner, access.OwnerPassword, name)
}
