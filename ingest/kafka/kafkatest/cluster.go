// Package kafkatest gives tests a real Apache Kafka: one broker or three, each
// a process of its own on loopback that can be killed and started again.
//
// It promises that the brokers answer when they are handed out, and that none
// of them outlives the test process, however that ends.
package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// Version is that of Apache Kafka. deploy/fetch-kafka reads it here.
const Version = "4.1.1"

// requiredVar set to 1 makes a missing Kafka a failure.
const requiredVar = "TENANTWATCH_TEST_KAFKA"

// The one who may log in, where Config.SASL is set.
const (
	User     = "tenantwatch"
	Password = "kafkatest-secret"
)

// patience bounds the wait for brokers; only a failing test uses it up.
const patience = time.Minute

// Config is what kind of cluster a test wants.
type Config struct {
	Brokers int    // 1, or 3: then everything is there three times, and two have to acknowledge
	TLS     bool   // whether clients must use TLS, see Cluster.CAFile
	SASL    string // how clients must log in: PLAIN, SCRAM-SHA-512 or both with a comma; empty for not at all
}

// Cluster is a running cluster, as one test sees it. One goroutine uses it.
type Cluster struct {
	tb    testing.TB
	cfg   Config
	dir   string
	nodes []*node
	args  []string // of run-kafka, the same for all nodes
}

// node is one broker, which may be running.
type node struct {
	dir                       string
	client, internal, control int // ports
	cmd                       *exec.Cmd
	done                      chan struct{} // closed when the process has ended
}

// Start starts a cluster that ends with the test. Without the jars of
// deploy/fetch-kafka the test is skipped, unless TENANTWATCH_TEST_KAFKA=1 says
// that they must be there.
func Start(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	c := Launch(tb, cfg)
	tb.Cleanup(c.Close)
	return c.With(tb)
}

// Launch is Start for a cluster that several tests use: each through a view of
// its own, which With gives. Close ends it.
func Launch(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	root, libs := Find(tb)
	dir, err := os.MkdirTemp("", "kafka test ")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Cluster{tb: tb, cfg: cfg, dir: dir}
	if err = c.prepare(root, libs); err == nil {
		err = c.start(c.all()...)
	}
	if err != nil {
		c.logTo(tb, make([]int64, len(c.nodes)))
		c.Close()
		tb.Fatal(err)
	}
	return c
}

// Find is the module's folder and that of Kafka's jars. Without those, or
// without Java, the test is skipped or fails, as with Start.
func Find(tb testing.TB) (root, libs string) {
	tb.Helper()
	root = moduleRoot(tb)
	libs = filepath.Join(root, ".cache", "kafka-"+Version, "libs")
	_, missing := os.Stat(libs)
	if missing == nil {
		_, missing = exec.LookPath("java")
	}
	if missing != nil {
		if os.Getenv(requiredVar) == "1" {
			tb.Fatalf("no Apache Kafka, make kafka-jars fetches it: %v", missing)
		}
		tb.Skipf("no Apache Kafka, make kafka-jars fetches it: %v", missing)
	}
	return root, libs
}

// With is the cluster for another test, which hears of its failures and shows
// what the brokers logged meanwhile when it failed.
func (c *Cluster) With(tb testing.TB) *Cluster {
	view := *c
	view.tb = tb
	from := make([]int64, len(c.nodes))
	for i, n := range c.nodes {
		if info, err := os.Stat(n.log()); err == nil {
			from[i] = info.Size()
		}
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			view.logTo(tb, from)
		}
	})
	return &view
}

// Close ends all brokers and removes their data.
func (c *Cluster) Close() {
	for _, n := range c.nodes {
		n.signal(syscall.SIGKILL)
		n.wait()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.tb.Log(err)
	}
}

// Addrs are the addresses to connect to, host:port, in the order of the brokers.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, address(n.client))
	}
	return addrs
}

// CAFile is the PEM file of the authority that signed the brokers' certificates.
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "ca.pem") }

// PID is the process of a broker that runs.
func (c *Cluster) PID(broker int) int { return c.nodes[broker].cmd.Process.Pid }

// Segment is the file in which a broker keeps the beginning of a partition.
func (c *Cluster) Segment(broker int, topic string, partition int) string {
	return filepath.Join(c.nodes[broker].dir, "log", fmt.Sprintf("%s-%d", topic, partition), "00000000000000000000.log")
}

// Kill ends brokers as a power cut would. They are numbered from 0 on.
func (c *Cluster) Kill(brokers ...int) {
	for _, i := range brokers {
		c.nodes[i].signal(syscall.SIGKILL)
	}
	for _, i := range brokers {
		c.nodes[i].wait()
	}
}

// Stop ends brokers in order: each hands its partitions over.
func (c *Cluster) Stop(brokers ...int) {
	c.tb.Helper()
	for _, i := range brokers {
		c.nodes[i].signal(syscall.SIGTERM)
	}
	late := time.AfterFunc(patience, func() { c.Kill(brokers...) })
	for _, i := range brokers {
		c.nodes[i].wait()
	}
	if !late.Stop() {
		c.tb.Errorf("brokers %v did not stop within %s", brokers, patience)
	}
}

// Restart starts brokers that were ended, with their ports and their data, and
// waits until they answer.
func (c *Cluster) Restart(brokers ...int) {
	c.tb.Helper()
	if err := c.start(brokers...); err != nil {
		c.tb.Error(err)
	}
}

func (c *Cluster) all() []int {
	var all []int
	for i := range c.nodes {
		all = append(all, i)
	}
	return all
}

// prepare chooses the ports and writes the files.
func (c *Cluster) prepare(root, libs string) error {
	ports, err := freePorts(3 * c.cfg.Brokers)
	if err != nil {
		return err
	}
	var controllers []string
	for i := range c.cfg.Brokers {
		n := &node{dir: filepath.Join(c.dir, strconv.Itoa(i)), client: ports[3*i], internal: ports[3*i+1], control: ports[3*i+2]}
		c.nodes = append(c.nodes, n)
		controllers = append(controllers, strconv.Itoa(n.control))
	}
	c.args = []string{filepath.Join(root, "deploy", "run-kafka"), "--libs", libs, "--controllers", strings.Join(controllers, ",")}
	if c.cfg.TLS {
		keystore := filepath.Join(c.dir, "key store.pem")
		if err := writeCertificates(c.CAFile(), keystore); err != nil {
			return fmt.Errorf("make certificates: %w", err)
		}
		c.args = append(c.args, "--keystore", keystore)
	}
	if c.cfg.SASL != "" {
		users := filepath.Join(c.dir, "users")
		if err := os.WriteFile(users, []byte(User+" "+Password+"\n"), 0o600); err != nil {
			return err
		}
		c.args = append(c.args, "--sasl", c.cfg.SASL, "--users", users)
	}
	return nil
}

// start starts brokers and waits until every one that runs knows all of them.
func (c *Cluster) start(brokers ...int) error {
	for _, i := range brokers {
		if err := c.nodes[i].start(c.args, i+1); err != nil {
			return fmt.Errorf("start broker %d: %w", i, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		if err := n.ready(ctx, c.running()); err != nil {
			return err
		}
	}
	return nil
}

// running are the ids of the brokers that run.
func (c *Cluster) running() []int {
	var ids []int
	for i, n := range c.nodes {
		if n.running() {
			ids = append(ids, i+1)
		}
	}
	return ids
}

// logTo shows what the brokers logged from given positions on, or the end of it.
func (c *Cluster) logTo(tb testing.TB, from []int64) {
	const most = 16 << 10
	for i, n := range c.nodes {
		text, err := os.ReadFile(n.log())
		if err != nil {
			tb.Log(err)
			continue
		}
		text = text[min(from[i], int64(len(text))):]
		text = bytes.TrimSpace(text[max(0, len(text)-most):])
		tb.Logf("broker %d at %s logged:\n%s", i, address(n.client), text)
	}
}

func (n *node) log() string { return filepath.Join(n.dir, "kafka.log") }

// start runs the script, which becomes the JVM.
func (n *node) start(args []string, id int) error {
	n.cmd = exec.Command("sh", append(slices.Clone(args), "--data", n.dir, "--node", strconv.Itoa(id),
		"--port", strconv.Itoa(n.client), "--internal", strconv.Itoa(n.internal))...)
	// The JVM does not live long enough for its better compiler.
	n.cmd.Env = append(os.Environ(), "JAVA_OPTS=-XX:TieredStopAtLevel=1")
	var stderr bytes.Buffer // only what the script says: the log takes over
	n.cmd.Stderr = &stderr
	// A group of its own keeps a Ctrl-C away, and lets us kill what the script runs.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	n.done = make(chan struct{})
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan struct{}) {
		// The kernel sends Pdeathsig when the thread that forked ends, not the
		// process: so this goroutine keeps its thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the signal that ended it
		}
	}(n.cmd, n.done)
	return <-started
}

func (n *node) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

func (n *node) signal(s syscall.Signal) {
	if n.running() {
		_ = syscall.Kill(-n.cmd.Process.Pid, s)
	}
}

func (n *node) wait() {
	if n.done != nil {
		<-n.done
	}
}

// ready asks the broker until it knows all of the given ids and takes clients.
func (n *node) ready(ctx context.Context, ids []int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.answers(ctx, ids)
		if err == nil {
			return nil
		}
		select {
		case <-n.done:
			return fmt.Errorf("the broker at %s ended: %s", address(n.client), n.cmd.Stderr)
		case <-ctx.Done():
			return fmt.Errorf("the broker at %s is not ready: %w", address(n.client), err)
		case <-tick.C:
		}
	}
}

func (n *node) answers(ctx context.Context, ids []int) error {
	conn, err := kafkago.DialContext(ctx, "tcp", address(n.internal))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	known, err := conn.Brokers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(known, func(b kafkago.Broker) bool { return b.ID == id }) {
			return fmt.Errorf("it knows the brokers %v, not all of %v", known, ids)
		}
	}
	client, err := net.Dial("tcp", address(n.client))
	if err != nil {
		return err
	}
	return client.Close()
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts are below those that a kernel gives to connections: a broker that is
// down must find its own again.
func freePorts(n int) ([]int, error) {
	const lowest, count, attempts = 20_000, 12_000, 1000
	var free []int
	for range attempts {
		port := lowest + rand.IntN(count)
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		l.Close()
		if slices.Contains(free, port) {
			continue
		}
		if free = append(free, port); len(free) == n {
			return free, nil
		}
	}
	return nil, errors.New("no free ports for Kafka")
}

// moduleRoot is the folder of go.mod.
func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	tb.Fatalf("no go.mod above the test: %v", fs.ErrNotExist)
	return ""
}
