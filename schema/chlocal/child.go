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

	"golang.org/x/sys/unix"
)

const (
	// stopTimeout bounds a clean stop, running merges included. Then the engine is killed, which its data
	// survives too.
	stopTimeout = 2 * time.Second

	// maxLog is the size in bytes at which the file with the engine's output is replaced at a start.
	maxLog = 8 << 20

	// maxOutput is how many of the last bytes of the engine's output an error repeats.
	maxOutput = 2000

	// queryTimeout bounds a query of our own: on loopback, with an answer of one row.
	queryTimeout = 2 * time.Second

	// readyInterval is the time between two queries whether the engine is ready.
	readyInterval = 20 * time.Millisecond
)

// child is one run of the engine.
type child struct {
	cmd   *exec.Cmd
	stdin *os.File  // the engine's last statement reads it; closing it ends the engine
	leash io.Closer // the parent's end of the pipe that ends the child with it
	done  chan struct{}
	err   error // the result of the process; read after done is closed
}

// startChild starts an engine and returns when it answers queries.
func startChild(ctx context.Context, engine Engine, dir string, at direct, lock *os.File) (*child, error) {
	output, err := openOutput(filepath.Join(dir, logDir, "engine.out"))
	if err != nil {
		return nil, err
	}
	// The child has its own descriptors; ours are closed when it has started.
	defer func() { _ = output.Close() }()

	// We never write to the leash. The child sees its end when this process dies and the kernel closes it.
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
	cmd.ExtraFiles = []*os.File{leashEnd, lock} // the leash first: leashFD
	// The engine's last statement reads from this pipe.
	stdinEnd, stdin, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	defer func() { _ = stdinEnd.Close() }()
	cmd.Stdin = stdinEnd

	// From here on the child must be closed after an error.
	c := &child{cmd: cmd, stdin: stdin, leash: leash, done: make(chan struct{})}
	started := make(chan error)
	go c.wait(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", engine.Path, err), leash.Close(), stdin.Close())
	}
	if err := c.ready(ctx, at); err != nil {
		_ = c.close()
		return nil, fmt.Errorf("start %s: %w%s", engine.Path, err, lastOutput(output.Name()))
	}
	return c, nil
}

// wait starts the child, reports that on started, and waits for its end. The kernel sends Pdeathsig when the
// thread that forked ends, not when the process ends, so this goroutine keeps its thread.
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

// command returns the child: this program, which confines itself and becomes the engine.
func command(engine Engine, dir string, at direct) (*exec.Cmd, error) {
	_, tcpPort, _ := net.SplitHostPort(at.tcp)
	_, httpPort, _ := net.SplitHostPort(at.http)
	args := []string{
		"--config-file=" + filepath.Join(dir, configFile),
		"--path=" + filepath.Join(dir, storeDir),
		"--log-level=warning",
		"--listen_host=127.0.0.1", "--tcp_port=" + tcpPort, "--http_port=" + httpPort,
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

	// Our environment holds secrets: none of it is passed on.
	cmd.Env = []string{confineVar + "=" + value}

	// In its own process group the child gets no Ctrl-C from the terminal, so we stop everything in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// openOutput opens the file for the engine's output, and replaces one that is too large.
func openOutput(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Remove(path)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// lastOutput returns the end of the engine's output, for an error.
func lastOutput(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return ""
	}
	// The reason is at the end.
	if len(data) > maxOutput {
		data = data[len(data)-maxOutput:]
	}
	return "\noutput of the engine:\n" + strings.TrimSpace(string(data))
}

// ready waits until the launcher's last statement runs, before which both ports listen, and until the engine
// answers. It returns an error if the engine ends or ctx does.
//
// Until then nobody may send a query, this function included: the launcher's profile allows a statement only
// while no other query runs, and the engine ends if one is refused.
func (c *child) ready(ctx context.Context, at direct) error {
	if _, err := c.stdin.WriteString("\n"); err != nil {
		return err
	}
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	owner := at.logins[Owner]
	for reads := false; ; {
		// The statement runs once it has read the line.
		var err error
		if !reads {
			reads, err = drained(c.stdin)
		}
		if reads && err == nil {
			if _, err = query(ctx, at.http, owner.name, owner.password, "SELECT 1", nil); err == nil {
				return nil
			}
		}

		select {
		case <-tick.C:
		case <-c.done:
			return fmt.Errorf("the engine ended before it answered: %v", c.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// drained reports whether all that was written to a pipe has been read.
func drained(pipe *os.File) (bool, error) {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return false, err
	}
	var unread int
	var ioctl error
	err = conn.Control(func(fd uintptr) { unread, ioctl = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return unread == 0 && err == nil && ioctl == nil, errors.Join(err, ioctl)
}

// close ends the engine, and returns when it has ended.
func (c *child) close() error {
	select {
	case <-c.done:
		return c.leash.Close()
	default:
	}

	// Ask for a clean stop: the last statement ends with its input.
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
	const count = "SELECT count() FROM system.databases WHERE name = {name:String}"
	answer, err := query(ctx, addr, user, password, count, url.Values{"param_name": {name}})
	return answer == "1", err
}

// query returns the answer to a query over HTTP, of at most 1 KiB.
func query(ctx context.Context, addr, user, password, sql string, params url.Values) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	target := "http://" + addr + "/?" + params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(sql))
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
	// An error page may be long; its beginning is enough.
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", err
	}

	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("clickhouse at %s: %s: %s", addr, resp.Status, bytes.TrimSpace(body))
	}
	return string(bytes.TrimSpace(body)), nil
}
