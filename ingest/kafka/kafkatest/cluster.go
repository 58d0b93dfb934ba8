// Package kafkatest runs a real Apache Kafka for tests: one broker or three, each a
// separate process on loopback that can be killed and restarted.
//
// Start returns once the brokers answer. No broker outlives the test process, however
// that ends.
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

// Version is the version of Apache Kafka. deploy/fetch-kafka reads it here.
const Version = "4.1.1"

// requiredVar is the variable that makes a missing Kafka a failure if it is 1.
const requiredVar = "TENANTWATCH_TEST_KAFKA"

// The only user, if Config.SASL is set.
const (
	User     = "tenantwatch"
	Password = "kafkatest-secret"
)

// patience bounds the wait for brokers. Only a failing test needs all of it.
const patience = time.Minute

// Config configures a cluster.
type Config struct {
	Brokers int    // 1, or 3: then there are three replicas, and two must acknowledge
	TLS     bool   // clients must use TLS, see Cluster.CAFile
	SASL    string // PLAIN, SCRAM-SHA-512 or both with a comma; empty for no login
}

// Cluster is one test's view of a running cluster. One goroutine uses it.
type Cluster struct {
	tb    testing.TB
	cfg   Config
	dir   string
	nodes []*node
	args  []string // of run-kafka, the same for all nodes
}

// node is one broker, running or not.
type node struct {
	dir                       string
	client, internal, control int // ports
	cmd                       *exec.Cmd
	done                      chan struct{} // closed when the process has ended
}

// Start starts a cluster that stops at the end of the test. Without the jars of
// deploy/fetch-kafka the test is skipped, or fails if TENANTWATCH_TEST_KAFKA=1.
func Start(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	cluster := Launch(tb, cfg)
	tb.Cleanup(cluster.Close)
	return cluster.With(tb)
}

// Launch starts a cluster for several tests. Each uses its own view, see With. The caller
// must call Close.
func Launch(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	root, libs := Find(tb)
	dir, err := os.MkdirTemp("", "kafka test ")
	if err != nil {
		tb.Fatal(err)
	}

	cluster := &Cluster{tb: tb, cfg: cfg, dir: dir}
	if err = cluster.prepare(root, libs); err == nil {
		err = cluster.start(cluster.all()...)
	}

	// The brokers' logs are deleted with the cluster, so show them before.
	if err != nil {
		cluster.logTo(tb, make([]int64, len(cluster.nodes)))
		cluster.Close()
		tb.Fatal(err)
	}
	return cluster
}

// Find returns the module's folder and that of Kafka's jars. Without the jars, or without
// Java, the test is skipped or fails, as with Start.
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
			tb.Fatalf("no Apache Kafka; run make kafka-jars: %v", missing)
		}
		tb.Skipf("no Apache Kafka; run make kafka-jars: %v", missing)
	}
	return root, libs
}

// With returns a view of the cluster for another test. That test gets the errors of its
// methods and, if it fails, shows the brokers' logs since the call.
func (c *Cluster) With(tb testing.TB) *Cluster {
	view := *c
	view.tb = tb

	// Note the current ends of the logs.
	from := make([]int64, len(c.nodes))
	for i, broker := range c.nodes {
		if info, err := os.Stat(broker.log()); err == nil {
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

// Close kills all brokers and deletes their data.
func (c *Cluster) Close() {
	for _, broker := range c.nodes {
		broker.signal(syscall.SIGKILL)
		broker.wait()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.tb.Log(err)
	}
}

// Addrs returns the addresses to connect to, host:port, in the order of the brokers.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, broker := range c.nodes {
		addrs = append(addrs, address(broker.client))
	}
	return addrs
}

// CAFile returns the PEM file of the authority that has signed the brokers' certificates.
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "ca.pem") }

// PID returns the process id of a running broker.
func (c *Cluster) PID(broker int) int { return c.nodes[broker].cmd.Process.Pid }

// Segment returns the file of a broker with the start of a partition.
func (c *Cluster) Segment(broker int, topic string, partition int) string {
	folder := fmt.Sprintf("%s-%d", topic, partition)
	return filepath.Join(c.nodes[broker].dir, "log", folder, "00000000000000000000.log")
}

// Kill kills brokers. They are numbered from 0 on.
func (c *Cluster) Kill(brokers ...int) {
	// Signal all before the first wait, so that they end together.
	for _, number := range brokers {
		c.nodes[number].signal(syscall.SIGKILL)
	}
	for _, number := range brokers {
		c.nodes[number].wait()
	}
}

// Stop stops brokers gracefully: each hands its partitions over.
func (c *Cluster) Stop(brokers ...int) {
	c.tb.Helper()
	for _, number := range brokers {
		c.nodes[number].signal(syscall.SIGTERM)
	}

	// A broker may be unable to stop without the others.
	late := time.AfterFunc(patience, func() { c.Kill(brokers...) })
	for _, number := range brokers {
		c.nodes[number].wait()
	}
	if !late.Stop() {
		c.tb.Errorf("brokers %v did not stop within %s", brokers, patience)
	}
}

// Restart starts brokers that do not run, with their ports and their data, and waits until
// they answer.
func (c *Cluster) Restart(brokers ...int) {
	c.tb.Helper()
	if err := c.start(brokers...); err != nil {
		c.tb.Error(err)
	}
}

// all returns the numbers of all brokers.
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

	// Every broker is a controller too.
	var controllers []string
	for i := range c.cfg.Brokers {
		dir := filepath.Join(c.dir, strconv.Itoa(i))
		added := &node{dir: dir, client: ports[3*i], internal: ports[3*i+1], control: ports[3*i+2]}
		c.nodes = append(c.nodes, added)
		controllers = append(controllers, strconv.Itoa(added.control))
	}
	c.args = []string{filepath.Join(root, "deploy", "run-kafka"),
		"--libs", libs, "--controllers", strings.Join(controllers, ",")}

	// A space in the name tests the quoting of the script.
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

// start starts brokers and waits until each running one knows all running ones.
func (c *Cluster) start(brokers ...int) error {
	for _, number := range brokers {
		if err := c.nodes[number].start(c.args, number+1); err != nil {
			return fmt.Errorf("start broker %d: %w", number, err)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, broker := range c.nodes {
		if !broker.running() {
			continue
		}
		if err := broker.ready(ctx, c.running()); err != nil {
			return err
		}
	}
	return nil
}

// running returns the node ids of the running brokers.
func (c *Cluster) running() []int {
	var ids []int
	for i, broker := range c.nodes {
		if broker.running() {
			ids = append(ids, i+1)
		}
	}
	return ids
}

// logTo shows the brokers' logs from given positions on, or the end if that is too long.
func (c *Cluster) logTo(tb testing.TB, from []int64) {
	const most = 16 << 10
	for i, broker := range c.nodes {
		text, err := os.ReadFile(broker.log())
		if err != nil {
			tb.Log(err)
			continue
		}

		text = text[min(from[i], int64(len(text))):]
		text = bytes.TrimSpace(text[max(0, len(text)-most):])
		tb.Logf("broker %d at %s logged:\n%s", i, address(broker.client), text)
	}
}

func (n *node) log() string { return filepath.Join(n.dir, "kafka.log") }

// start runs the script, which becomes the JVM.
func (n *node) start(args []string, id int) error {
	n.cmd = exec.Command("sh", append(slices.Clone(args), "--data", n.dir, "--node", strconv.Itoa(id),
		"--port", strconv.Itoa(n.client), "--internal", strconv.Itoa(n.internal))...)

	// The JVM does not run long enough for its optimizing compiler to pay off.
	n.cmd.Env = append(os.Environ(), "JAVA_OPTS=-XX:TieredStopAtLevel=1")

	// Only the script writes to stderr: the JVM writes to its log.
	var stderr bytes.Buffer
	n.cmd.Stderr = &stderr

	// A separate process group does not receive a Ctrl-C, and can be killed with all its processes.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	n.done = make(chan struct{})
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan struct{}) {
		// The kernel sends Pdeathsig when the thread that has forked ends, not the process. So this
		// goroutine keeps its thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the error is the signal that has ended it
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

// ready waits until the broker knows all of the given ids and accepts clients.
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
			return fmt.Errorf("broker at %s has ended: %s", address(n.client), n.cmd.Stderr)
		case <-ctx.Done():
			return fmt.Errorf("broker at %s is not ready: %w", address(n.client), err)
		case <-tick.C:
		}
	}
}

// answers returns nil if the broker knows all of the given ids and accepts clients.
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

	// The internal listener answers before the one for clients.
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

// freePorts returns ports below those that the kernel uses for connections: a broker that is
// down must find its ports free again.
func freePorts(n int) ([]int, error) {
	const lowest, count, attempts = 20_000, 12_000, 1000
	var free []int
	for range attempts {
		port := lowest + rand.IntN(count)

		// A port is free if we can listen on it.
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		listener.Close()
		if slices.Contains(free, port) {
			continue
		}
		if free = append(free, port); len(free) == n {
			return free, nil
		}
	}
	return nil, errors.New("no free ports for Kafka")
}

// moduleRoot returns the folder of go.mod.
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
