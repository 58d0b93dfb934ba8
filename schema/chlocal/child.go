package chlocal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// stopTimeout is what a clean stop may take, running merges included,
	// before the engine is killed; its data survives that too.
	stopTimeout = 2 * time.Second
	// maxLog is the size at which the engine's own log starts anew.
	maxLog = 8 << 20
)

// child is one run of the engine.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer // closing it ends the engine
	leash io.Closer
	done  chan struct{} // closed when it has ended
	err   error         // its end; read after done
}

// startChild starts an engine and returns when it answers queries.
func startChild(ctx context.Context, engine Engine, dir string, at direct, lock *os.File) (*child, error) {
	output, err := openOutput(filepath.Join(dir, logDir, "engine.out"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }()
	leashEnd, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = leashEnd.Close() }()

	cmd, err := command(engine, dir, at)
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{leashEnd, lock} // leashFD first
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}

	c := &child{cmd: cmd, stdin: stdin, leash: leash, done: make(chan struct{})}
	started := make(chan error)
	go c.wait(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", engine.Path, err), leash.Close())
	}
	if err := c.ready(ctx, at); err != nil {
		_ = c.close()
		return nil, fmt.Errorf("start %s: %w%s", engine.Path, err, lastLines(output.Name()))
	}
	return c, nil
}

// wait starts the child, reports that on started, and waits for its end. The
// kernel sends Pdeathsig when the thread that forked ends, not the process:
// so this goroutine keeps its thread.
func (c *child) wait(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	c.err = c.cmd.Wait()
	close(c.done)
}

// command is the child: this program, which confines itself and becomes the engine.
// None of our environment is passed on: it has secrets. The child is in a process
// group of its own, so that a Ctrl-C on the terminal reaches us alone and we end
// things in order.
func command(engine Engine, dir string, at direct) (*exec.Cmd, error) {
	_, tcp, _ := net.SplitHostPort(at.tcp)
	_, http, _ := net.SplitHostPort(at.http)
	args := []string{
		"--config-file=" + filepath.Join(dir, configFile),
		"--path=" + filepath.Join(dir, storeDir),
		"--log-level=warning",
		"--listen_host=127.0.0.1", "--tcp_port=" + tcp, "--http_port=" + http,
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
			"SELECT count() FROM file('/dev/stdin', LineAsString)",
	}
	confinement, err := newConfinement(engine, dir, []string{at.tcp, at.http}, at.connect, args)
	if err != nil {
		return nil, err
	}
	value, err := confinement.encode()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}

	cmd := exec.Command(self)
	cmd.Args = []string{"tenantwatch-clickhouse"}
	cmd.Dir = filepath.Join(dir, storeDir)
	cmd.Env = []string{confineVar + "=" + value}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
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
	if len(data) > 2000 {
		data = data[len(data)-2000:]
	}
	return "\nit printed:\n" + strings.TrimSpace(string(data))
}

// ready waits until the engine answers our own user and the launcher's last
// statement, before which both ports listen, runs; or until it has ended.
func (c *child) ready(ctx context.Context, at direct) error {
	owner := at.logins[Owner]
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		launched, err := ask(ctx, at.http, owner.name, owner.password,
			"SELECT count() FROM system.processes WHERE query LIKE '%stdin%' AND query NOT LIKE '%processes%'", nil)
		if err == nil && launched == "1" {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.done:
			return fmt.Errorf("it ended before it answered: %v", c.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// close ends the engine, and returns when it has ended.
func (c *child) close() error {
	select {
	case <-c.done:
		return c.leash.Close()
	default:
	}

	_ = c.stdin.Close()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	return c.leash.Close()
}

func hasDatabase(ctx context.Context, addr, user, password, name string) (bool, error) {
	answer, err := ask(ctx, addr, user, password, "SELECT count() FROM system.databases WHERE name = {name:String}", url.Values{"param_name": {name}})
	return answer == "1", err
}

// ask returns the answer to a query over HTTP.
func ask(ctx context.Context, addr, user, password, query string, params url.Values) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // loopback, one row
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/?"+params.Encode(), strings.NewReader(query))
	if err != nil {
		return "", err
	}
	req.Close = true // an idle connection would delay the engine's end
	req.Header.Set(userHeader, user)
	req.Header.Set(keyHeader, password)

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
		return "", fmt.Errorf("clickhouse at %s: %s: %s", addr, resp.Status, bytes.TrimSpace(body))
	}
	return string(bytes.TrimSpace(body)), nil
}
