// Package kafkalocal is the embedded Kafka: franz-go's broker kfake in this
// process, on loopback, with its data on disk.
//
// It promises that a record that was acknowledged is there after kill -9: every
// batch is synced to disk before it is acknowledged. It is one broker on one
// machine; whoever needs more uses a Kafka cluster.
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
)

// SegmentBytes is the size of segment files. A restart reads each segment
// whole, so they are small.
const SegmentBytes = 16 << 20

// portFile has the port of the last run.
const portFile = "port"

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
}

// ErrInUse says that another process has the data.
var ErrInUse = errors.New("another tenantwatch uses this folder: stop it, or set another folder")

// Start starts a broker with its data in dir, which it makes when it is missing.
// It listens on the port it had before, when that is still free. Nobody else on the
// machine may read the data; kfake leaves the mode of its files to the process's
// umask, so that is set, and what is there already is tightened.
//
// Damaged segments are named in the log and mended: see mend.
func Start(dir string, log *slog.Logger) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded Kafka: %w", err)
	}
	syscall.Umask(0o077)
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	if err := tighten(dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	if err := mend(dir, log); err != nil {
		lock.Close()
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
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
			// No other member is waited for: there is none.
			"group.initial.rebalance.delay.ms": "0",
		}),
	}
	cluster, err := kfake.NewCluster(append(opts, kfake.Ports(readPort(file)))...)
	if errors.Is(err, syscall.EADDRINUSE) {
		cluster, err = kfake.NewCluster(append(opts, kfake.Ports(0))...)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	verifier := newVerifier(dir)
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return verifier.fetch(req)
	})
	b := &Broker{cluster: cluster, lock: lock}
	if err := writePort(file, b.Addrs()[0]); err != nil {
		b.Close()
		return nil, fmt.Errorf("embedded Kafka in %s: %w", dir, err)
	}
	return b, nil
}

// Addrs are the addresses to connect to, host:port.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Running returns the address of the broker that another process runs in dir;
// empty when none does.
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
	port := readPort(filepath.Join(dir, portFile))
	if port == 0 {
		return "", fmt.Errorf("embedded Kafka in %s: another tenantwatch is just starting it; try again", dir)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}

// Close stops the broker. Clients must have been closed before.
func (b *Broker) Close() {
	b.cluster.Close()
	b.lock.Close()
}

// tighten takes the rights of others from a folder and what is in it.
func tighten(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || entry.Type()&fs.ModeSymlink != 0 || info.Mode().Perm()&0o077 == 0 {
			return err
		}
		return os.Chmod(name, info.Mode().Perm()&^0o077)
	})
}

// lockDir keeps a second broker out of the folder. The kernel drops the lock
// when this process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// readPort is the port of the last run, 0 for any.
func readPort(file string) int {
	var port int
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &port)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0 // only a convenience: any port will do
	}
	return port
}

func writePort(file, addr string) error {
	_, port, _ := strings.Cut(addr, ":")
	return os.WriteFile(file, []byte(port+"\n"), 0o600)
}

// logger has kfake's warnings in our log.
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
