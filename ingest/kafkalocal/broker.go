// Package kafkalocal is the embedded Kafka: franz-go's broker kfake in this
// process, on loopback, with its data on disk.
//
// An acknowledged record survives kill -9: every batch is synced to disk before it
// is acknowledged. It is one broker on one machine; for more, use a Kafka cluster.
package kafkalocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

// SegmentBytes is the size of segment files. A restart reads each segment
// completely into memory, so they are small.
const SegmentBytes = 16 << 20

// portFile has the port of the last run.
const portFile = "port"

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
}

// ErrInUse means that another process uses the data.
var ErrInUse = errors.New("another tenantwatch uses this folder: stop it, or set another folder")

// Start starts a broker with its data in dir, which it creates if it is missing. The broker
// listens on the port of its last run, if that is still free. Damaged segments are reported
// in the log and repaired: see repair.
//
// Other users of the machine may not read the data. kfake creates its files by the umask
// of the process, so Start sets that, and restricts the files that exist.
func Start(dir string, log *slog.Logger) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded Kafka: %w", err)
	}
	syscall.Umask(0o077)

	// From here on, no other process changes the files.
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	broker, err := start(dir, lock, log)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	return broker, nil
}

// start is Start in a folder that is locked.
func start(dir string, lock *os.File, log *slog.Logger) (*Broker, error) {
	if err := restrict(dir); err != nil {
		return nil, err
	}
	if err := repair(dir, log); err != nil {
		return nil, err
	}

	file := filepath.Join(dir, portFile)
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(dir, "log")),
		kfake.SyncWrites(),
		kfake.ClusterID("tenantwatch"),
		kfake.WithLogger(logger{log}),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes": strconv.Itoa(schema.MaxMessage),
			// Consumer groups have one member: do not wait for others.
			"group.initial.rebalance.delay.ms": "0",
		}),
	}

	// Prefer the port of the last run, so that clients need not look it up again.
	cluster, err := kfake.NewCluster(append(opts, kfake.Ports(readPort(file)))...)
	if errors.Is(err, syscall.EADDRINUSE) {
		cluster, err = kfake.NewCluster(append(opts, kfake.Ports(0))...)
	}
	if err != nil {
		return nil, err
	}

	// Check every fetch before kfake answers it.
	verifier := newVerifier(dir)
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response, damaged := verifier.fetch(req)
		return response, nil, damaged
	})

	// Other processes find the broker by this file.
	broker := &Broker{cluster: cluster, lock: lock}
	if err := writePort(file, broker.Addrs()[0]); err != nil {
		cluster.Close()
		return nil, err
	}
	return broker, nil
}

// Addrs returns the addresses to connect to, host:port.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Running returns the address of the broker that another process runs in dir, or an empty
// text if there is none.
func Running(dir string) (string, error) {
	lock, err := lockDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == nil:
		return "", lock.Close()
	case !errors.Is(err, ErrInUse):
		return "", fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}

	// The file is written once the broker runs.
	port := readPort(filepath.Join(dir, portFile))
	if port == 0 {
		return "", fmt.Errorf("embedded Kafka in %s: another tenantwatch is starting it; try again", dir)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}

// Close stops the broker. Clients must have been closed before.
func (b *Broker) Close() {
	b.cluster.Close()
	b.lock.Close()
}

// restrict removes the permissions of other users from a folder and its files.
func restrict(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		// chmod would follow a symbolic link.
		info, err := entry.Info()
		if err != nil || entry.Type()&fs.ModeSymlink != 0 || info.Mode().Perm()&0o077 == 0 {
			return err
		}
		return os.Chmod(name, info.Mode().Perm()&^0o077)
	})
}

// lockDir locks a folder against a second broker.
func lockDir(dir string) (*os.File, error) {
	lock, err := datadir.Lock(dir)
	if errors.Is(err, datadir.ErrInUse) {
		return nil, ErrInUse
	}
	return lock, err
}

// readPort returns the port of the last run, or 0 for any port.
func readPort(file string) int {
	var port int
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &port)
	}
	if err != nil {
		return 0 // without the file, any port does
	}
	return port
}

func writePort(file, addr string) error {
	_, port, _ := strings.Cut(addr, ":")
	return os.WriteFile(file, []byte(port+"\n"), 0o600)
}

// logger writes the warnings of kfake to our log.
type logger struct{ log *slog.Logger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded Kafka", "message", text)
	case kfake.LogLevelWarn:
		l.log.Warn("embedded Kafka", "message", text)
	}
}
