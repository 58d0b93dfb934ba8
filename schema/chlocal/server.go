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
	"syscall"
	"time"
)

const (
	// startTimeout bounds a start: 1 s for the engine itself, the rest for
	// attaching many parts on a slow disk.
	startTimeout = 30 * time.Second
	// lockTimeout is how long a start waits for an engine that the death of
	// its parent is just ending (see grace).
	lockTimeout = 5 * time.Second
	// restartPause is the time between attempts to start an engine that died.
	restartPause = 2 * time.Second
)

// Database is the only one that readers see.
const Database = "tenantwatch"

// ErrInUse says that another process runs an engine on the folder.
var ErrInUse = errors.New("the engine's folder is in use by another process: end it, or set another folder")

// Config says what to start.
type Config struct {
	// Dir keeps the data, the engine's settings and its log; made when missing.
	Dir string
	// Engine is what to run; see FindEngine.
	Engine Engine
	// Tenants get a reader each, who sees no other tenant's rows. Those of earlier
	// starts keep theirs.
	Tenants []string
	// Bounds of what readers may ask for; DefaultBounds when zero.
	Bounds Bounds
	// Connect is where the engine itself may connect to, host:port: nowhere, but for
	// tables of its own that read elsewhere.
	Connect []string
	// Log takes the start, the end and what happens in between. Required.
	Log *slog.Logger
}

// Server is an engine and the guard in front of it. An engine that dies is started
// again, with the same ports and passwords.
type Server struct {
	// Access is how clients reach the guard. It stays the same.
	Access Access

	cfg    Config
	dir    string
	lock   *os.File
	guard  *guard
	direct direct
	stop   context.CancelFunc
	ended  chan struct{} // closed when the last engine has ended

	mu    sync.Mutex // guards child
	child *child
}

// direct is how this process alone reaches the engine.
type direct struct {
	tcp, http string
	connect   []string         // where the engine may connect to
	logins    map[string]login // by their public names
}

// DSN is the address of the engine itself, past the guard, for this process.
func (s *Server) DSN(user, database string) string {
	l := s.direct.logins[user]
	return dsn(s.direct.tcp, l.name, l.password, database)
}

// Start starts an engine and returns when it answers queries.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Bounds == (Bounds{}) {
		cfg.Bounds = DefaultBounds()
	}
	if err := cfg.Engine.check(); err != nil {
		return nil, err
	}
	lost := vanished(dir)
	if err := makeFolders(dir); err != nil {
		return nil, fmt.Errorf("make the engine's folder: %w", err)
	}

	// The child inherits the lock and so keeps it for as long as it lives, even past
	// the end of this process.
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
		cfg.Log.Error("the store of the embedded ClickHouse is gone: it starts empty; audits bring back the events that Auth0 still has, "+
			"the rest is lost unless the folder is restored from a backup", "dir", filepath.Join(dir, storeDir))
	}
	access, damage := loadAccess(dir, cfg.Tenants)
	if damage != nil {
		cfg.Log.Error("access file damaged; clients need the new passwords", "err", damage)
	}
	if access.Unconfined = !canConfine(); access.Unconfined {
		cfg.Log.Warn("the kernel has no Landlock (Linux 5.19 or later): the embedded ClickHouse can read every file of this user, " +
			"so its readers are not let in over the network")
	}
	s.Access = access
	s.direct.logins, s.direct.connect = newLogins(access), cfg.Connect
	if s.guard, err = newGuard(s); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.launch(ctx); err != nil {
		return nil, err
	}

	// If we die here, the file is stale; whoever reads it checks that the engine
	// answers.
	if err := s.Access.save(dir); err != nil {
		return nil, errors.Join(err, s.child.close())
	}
	keep, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.guard.serve()
	go s.keep(keep)
	cfg.Log.Info("clickhouse started", "engine", cfg.Engine.Path, "dir", dir, "tcp", s.Access.TCP, "http", s.Access.HTTP)
	return s, nil
}

// vanished reports whether an engine has run here whose store is there no more.
func vanished(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, accessFile)); err != nil {
		return false // the first start
	}
	files, err := os.ReadDir(filepath.Join(dir, storeDir))
	return len(files) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
}

// makeFolders makes what is missing and closes to others what is there.
func makeFolders(dir string) error {
	for _, path := range []string{dir, filepath.Join(dir, storeDir), filepath.Join(dir, tmpDir), filepath.Join(dir, logDir)} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func lockDir(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the engine's folder: %w", err)
	}

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, ErrInUse), file.Close())
		}
	}
}

// freePort finds a free port on loopback.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// launch starts the first engine, on ports of its own.
func (s *Server) launch(ctx context.Context) (err error) {
	for try := 1; ; try++ {
		if s.direct.tcp, err = freePort(); err != nil {
			return err
		}
		if s.direct.http, err = freePort(); err != nil {
			return err
		}
		if s.child, err = s.start(ctx); err == nil {
			return nil
		}
		// A port that somebody took between our look and the engine's.
		if try == 3 || ctx.Err() != nil {
			return err
		}
	}
}

// start starts an engine.
func (s *Server) start(ctx context.Context) (*child, error) {
	if err := writeSettings(s.dir, Database, s.cfg.Bounds, s.direct.logins); err != nil {
		return nil, fmt.Errorf("write the engine's settings: %w", err)
	}
	return startChild(ctx, s.cfg.Engine, s.dir, s.direct, s.lock)
}

// keep starts the engine again, on the same ports, until ctx ends. Whoever has an
// insert under way repeats it.
func (s *Server) keep(ctx context.Context) {
	defer close(s.ended)
	for {
		running := s.running()
		select {
		case <-ctx.Done():
			return
		case <-running.done:
		}
		s.cfg.Log.Error("the embedded ClickHouse ended; starting it again", "err", running.err)

		for logged := ""; ; {
			start, cancel := context.WithTimeout(ctx, startTimeout)
			again, err := s.start(start)
			cancel()
			if err == nil {
				s.mu.Lock()
				s.child = again
				s.mu.Unlock()
				s.cfg.Log.Info("the embedded ClickHouse runs again")
				break
			}
			if ctx.Err() != nil {
				return
			}
			if text := err.Error(); text != logged {
				logged = text
				s.cfg.Log.Error("the embedded ClickHouse does not start; trying again", "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(restartPause):
			}
		}
	}
}

func (s *Server) running() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// PID is the engine's process.
func (s *Server) PID() int { return s.running().cmd.Process.Pid }

// Done is closed when the engine that runs now has ended, be it by Close.
func (s *Server) Done() <-chan struct{} { return s.running().done }

// Close ends the engine, and returns when it has ended.
func (s *Server) Close() error {
	s.stop()
	<-s.ended
	s.guard.close()
	err := s.running().close()
	s.cfg.Log.Info("clickhouse stopped")
	return errors.Join(err, s.lock.Close())
}

// Ping asks an engine one query as Owner. A stale Access, whose port somebody
// else may have by now, is an error.
func Ping(ctx context.Context, access Access) error {
	_, err := ask(ctx, access.HTTP, Owner, access.OwnerPassword, "SELECT 1", nil)
	return err
}

// HasDatabase reports whether the engine has a database.
func HasDatabase(ctx context.Context, access Access, name string) (bool, error) {
	return hasDatabase(ctx, access.HTTP, Owner, access.OwnerPassword, name)
}
