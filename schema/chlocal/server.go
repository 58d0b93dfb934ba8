// Package chlocal starts and stops an embedded ClickHouse: the real engine, as
// a child process that serves the native and the HTTP protocol on loopback.
//
// It promises that data is kept over restarts, that the engine ends when Close
// is called or when this process dies, however it dies, and that nobody gets
// in without a password. It leaves databases, tables and queries to others.
//
// The child runs clickhouse-local, which listens when it is told SYSTEM START
// LISTEN. Its last statement reads standard input and so ends when that pipe
// closes, which is also what happens when the parent dies. Where the engine is
// libchdb.so the child is this very program again (see Host), which loads the
// library without cgo.
//
// clickhouse-local runs its own statements as the user default, who needs no
// password and could be used over the network too. So default may do nothing
// but those three statements, and a quota of three queries, used up by then,
// keeps everybody else from using it for more than SELECT 1.
package chlocal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout bounds a start: 1 s for the engine itself, the rest for
	// attaching many parts on a slow disk.
	startTimeout = 30 * time.Second
	// stopTimeout is what a clean stop may take, running merges included,
	// before the engine is killed; its data survives that too.
	stopTimeout = 2 * time.Second
	// lockTimeout is how long a start waits for an engine that the death of
	// its parent is just ending (see grace).
	lockTimeout = 5 * time.Second
	// maxLog is the size at which the engine's own log starts anew.
	maxLog = 8 << 20
)

// ErrInUse says that another process runs an engine on the folder.
var ErrInUse = errors.New("the engine's folder is in use by another process: end it, or set another folder")

// Config says what to start.
type Config struct {
	// Dir keeps the data, the engine's settings and its log; made when missing.
	Dir string
	// Engine is what to run; see FindEngine.
	Engine Engine
	// Log takes the start and the end. Required.
	Log *slog.Logger
}

// Server is a running engine.
type Server struct {
	Access Access

	log   *slog.Logger
	cmd   *exec.Cmd
	stdin io.Closer // closing it ends the engine
	leash io.Closer
	done  chan struct{} // closed when the child has ended
	err   error         // its end; read after done
}

// Start starts an engine and returns when it answers queries.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the engine's folder: %w", err)
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	// The child inherits the lock and so keeps it for as long as it lives,
	// even past the end of this process.
	defer func() { _ = lock.Close() }()
	access, err := loadAccess(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for try := 1; ; try++ {
		if access.TCP, err = freePort(access.TCP); err != nil {
			return nil, err
		}
		if access.HTTP, err = freePort(access.HTTP); err != nil {
			return nil, err
		}
		srv, err := start(ctx, cfg, dir, access, lock)
		if err == nil {
			cfg.Log.Info("clickhouse started", "engine", cfg.Engine.Path, "dir", dir, "tcp", access.TCP, "http", access.HTTP)
			return srv, nil
		}
		// A port that somebody took between our look and the engine's.
		if try == 3 || ctx.Err() != nil {
			return nil, err
		}
		access.TCP, access.HTTP = "", ""
	}
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

// freePort keeps want, host:port, when that is still free, and else finds a
// free port on loopback.
func freePort(want string) (string, error) {
	if want != "" {
		if l, err := net.Listen("tcp", want); err == nil {
			return want, l.Close()
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func start(ctx context.Context, cfg Config, dir string, access Access, lock *os.File) (*Server, error) {
	if err := writeSettings(dir, access); err != nil {
		return nil, fmt.Errorf("write the engine's settings: %w", err)
	}
	output, err := openOutput(filepath.Join(dir, "engine.out"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }()
	leashEnd, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = leashEnd.Close() }()

	cmd := command(cfg.Engine, dir, access)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{leashEnd, lock} // leashFD first
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	srv := &Server{Access: access, log: cfg.Log, cmd: cmd, stdin: stdin, leash: leash, done: make(chan struct{})}
	started := make(chan error)
	go srv.wait(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cfg.Engine.Path, err), leash.Close())
	}
	if err := srv.ready(ctx); err != nil {
		_ = srv.Close()
		return nil, fmt.Errorf("start %s: %w%s", cfg.Engine.Path, err, lastLines(output.Name()))
	}
	// If we die here, the file is stale; whoever reads it checks that the
	// engine answers.
	if err := access.save(dir); err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return srv, nil
}

// wait starts the child, reports that on started, and waits for its end. The
// kernel sends Pdeathsig when the thread that forked ends, not the process:
// so this goroutine keeps its thread.
func (s *Server) wait(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	s.err = s.cmd.Wait()
	close(s.done)
}

// command is the child. It is in a process group of its own, so that a Ctrl-C
// on the terminal reaches us alone and we end things in order.
func command(engine Engine, dir string, access Access) *exec.Cmd {
	_, tcp, _ := net.SplitHostPort(access.TCP)
	_, http, _ := net.SplitHostPort(access.HTTP)
	args := []string{
		"--config-file=" + filepath.Join(dir, "config.xml"),
		"--path=" + filepath.Join(dir, "store"),
		"--log-level=warning",
		"--listen_host=127.0.0.1", "--tcp_port=" + tcp, "--http_port=" + http,
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
			"SELECT count() FROM file('/dev/stdin', LineAsString)",
	}
	attr := &syscall.SysProcAttr{Setpgid: true}
	if !engine.isLibrary() {
		cmd := exec.Command(engine.Path, append([]string{"local"}, args...)...)
		attr.Pdeathsig = syscall.SIGKILL // a program holds no leash
		cmd.SysProcAttr = attr
		return cmd
	}
	exe, err := os.Executable()
	cmd := exec.Command(exe, args...)
	if err != nil {
		cmd.Err = err
	}
	cmd.SysProcAttr = attr
	// None of our secrets is the engine's business.
	cmd.Env = []string{hostVar + "=" + engine.Path, "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TZ=UTC"}
	return cmd
}

const (
	// launcherQueries is how many statements command gives to the engine.
	launcherQueries = 3
	// launcherQuotaSeconds is how long they use the quota up. The engine counts
	// intervals from 1970 in 31 bits: this one lasts from 2023 until 2077.
	launcherQuotaSeconds = 1_700_000_000
)

// writeSettings writes the engine's configuration and users.
func writeSettings(dir string, access Access) error {
	var logPath bytes.Buffer
	if err := xml.EscapeText(&logPath, []byte(filepath.Join(dir, "engine.log"))); err != nil {
		return err
	}
	var usersPath bytes.Buffer
	if err := xml.EscapeText(&usersPath, []byte(filepath.Join(dir, "users.xml"))); err != nil {
		return err
	}
	config := fmt.Sprintf(`<clickhouse>
  <user_directories>
    <users_xml><path>%s</path></users_xml>
  </user_directories>
  <logger><log>%s</log><size>10M</size><count>2</count></logger>
  <shutdown_wait_unfinished>1</shutdown_wait_unfinished>
  <keep_alive_timeout>1</keep_alive_timeout>
  <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
  <mark_cache_size>268435456</mark_cache_size>
</clickhouse>
`, &usersPath, &logPath)
	users := fmt.Sprintf(`<clickhouse>
  <profiles>
    <default/>
    <reader><readonly>2</readonly></reader>
  </profiles>
  <quotas>
    <default/>
    <launcher><interval><duration>%d</duration><queries>%d</queries></interval></launcher>
  </quotas>
  <users>
    <default>
      <no_password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>launcher</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
        <query>GRANT READ ON FILE</query>
      </grants>
    </default>
    <%[3]s>
      <password_sha256_hex>%s</password_sha256_hex><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota><access_management>1</access_management>
    </%[3]s>
    <%[5]s>
      <password_sha256_hex>%s</password_sha256_hex><networks><ip>127.0.0.1</ip></networks>
      <profile>reader</profile><quota>default</quota>
      <grants><query>GRANT SELECT, SHOW, dictGet ON *.*</query></grants>
    </%[5]s>
  </users>
</clickhouse>
`, launcherQuotaSeconds, launcherQueries, Owner, hash(access.OwnerPassword), Reader, hash(access.ReaderPassword))
	if err := writeFile(filepath.Join(dir, "users.xml"), []byte(users)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "config.xml"), []byte(config))
}

func hash(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// openOutput opens the file that takes what the engine prints.
func openOutput(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Remove(path)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// lastLines is the end of what the engine printed, for an error.
func lastLines(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return ""
	}
	if len(data) > 1000 {
		data = data[len(data)-1000:]
	}
	return "; it said (" + path + "):\n" + strings.TrimSpace(string(data))
}

// ready waits until the engine answers our own user and the launcher's last
// statement, before which both ports listen, runs; or until it has ended.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		launched, err := ask(ctx, s.Access, "SELECT count() FROM system.processes WHERE query LIKE '%stdin%' AND query NOT LIKE '%processes%'")
		if err == nil && launched == "1" {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("it ended before it answered: %v", s.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// Ping asks an engine one query as Owner. A stale Access, whose port somebody
// else may have by now, is an error.
func Ping(ctx context.Context, access Access) error {
	_, err := ask(ctx, access, "SELECT 1")
	return err
}

// HasDatabase reports whether the engine has a database, whose name needs no
// quotes. Ask this before a login to one that may be missing: the engine may not
// survive that.
func HasDatabase(ctx context.Context, access Access, name string) (bool, error) {
	answer, err := ask(ctx, access, "EXISTS DATABASE "+name)
	return strings.TrimSpace(answer) == "1", err
}

// ask returns the answer to a query over HTTP.
func ask(ctx context.Context, access Access, query string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // loopback, one row
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+access.HTTP+"/", strings.NewReader(query))
	if err != nil {
		return "", err
	}
	req.Close = true // an idle connection would delay the engine's end
	req.Header.Set("X-ClickHouse-User", Owner)
	req.Header.Set("X-ClickHouse-Key", access.OwnerPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("clickhouse at %s: %s: %s", access.HTTP, resp.Status, bytes.TrimSpace(body))
	}
	return string(bytes.TrimSpace(body)), nil
}

// Done is closed when the engine has ended, asked or not; Err then says how.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is how the engine ended. It is to be called after Done.
func (s *Server) Err() error { return s.err }

// PID is the engine's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Close ends the engine, and returns when it has ended.
func (s *Server) Close() error {
	select {
	case <-s.done:
		return errors.Join(s.leash.Close())
	default:
	}
	_ = s.stdin.Close()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.log.Warn("clickhouse killed", "after", stopTimeout)
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	_ = s.leash.Close()
	s.log.Info("clickhouse stopped")
	return nil
}
