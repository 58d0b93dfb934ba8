package chlocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Any SQL user can make ClickHouse read a file, with the function file(). Only the operating system can prevent
// that. So the child restricts itself by Landlock before it becomes the engine: it reads and writes its store,
// reads its libraries and settings, listens on its two ports, connects to nothing, and cannot signal other
// processes.

// minLandlock is the first version of Landlock that lets a program rename files between folders, as ClickHouse
// does: Linux 5.19.
const minLandlock = 2

// canConfine reports whether the kernel can confine the engine.
func canConfine() bool {
	version, err := llsyscall.LandlockGetABIVersion()
	return err == nil && version >= minLandlock
}

// confinement describes how the child restricts itself, and the program that it becomes.
type confinement struct {
	Exec     string   // the program to become
	Args     []string // with the name first
	Env      []string
	Write    []string // folders to read and write
	Read     []string // folders to read
	ReadFile []string // files to read
	Ports    []string // host:port to listen on
	Connect  []string // host:port to connect to
	Confine  bool     // false if the kernel cannot
	Parent   int      // PID whose death ends a program; 0 for the library, which has the leash
}

// systemFolders are the folders that any program needs. /proc/self is the child's own and shows nothing of its
// parent.
var systemFolders = []string{
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo",
	"/proc/self", "/sys/fs/cgroup", "/sys/devices/system/cpu",
}

var systemFiles = []string{
	"/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd",
	"/proc/meminfo", "/proc/cpuinfo", "/proc/stat",
}

var systemDevices = []string{"/dev/null", "/dev/urandom", "/dev/random"}

// confine restricts this process to what c allows and replaces it by the program. It returns only after an
// error.
//
// Landlock and PR_SET_NO_NEW_PRIVS apply to the calling thread, which becomes the whole process with the exec.
// If the parent dies before the exec, the end of the leash ends us as it ends the engine.
func confine(c confinement) error {
	runtime.LockOSThread() // never unlocked

	if c.Confine {
		if err := restrictThread(c); err != nil {
			return fmt.Errorf("confine the engine: %w", err)
		}
	}

	// A program does not watch the leash: the kernel kills it when its parent dies.
	if c.Parent != 0 {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("tie the engine to its parent: %w", err)
		}
		// The signal is not sent for a parent that died before.
		if os.Getppid() != c.Parent {
			return errors.New("the parent has ended")
		}
	}

	return fmt.Errorf("run %s: %w", c.Exec, syscall.Exec(c.Exec, c.Args, c.Env))
}

// restrictThread applies the rules of a confinement to this thread, for good.
func restrictThread(c confinement) error {
	ports, err := portRules(c)
	if err != nil {
		return err
	}
	rules := append(ports,
		landlock.RWDirs(c.Write...).WithRefer(),
		landlock.RODirs(append(c.Read, systemFolders...)...).IgnoreIfMissing(),
		landlock.ROFiles(append(c.ReadFile, systemFiles...)...).IgnoreIfMissing(),
		landlock.RWFiles(systemDevices...).IgnoreIfMissing(),
	)

	// An older kernel restricts less: before version 4 it does not restrict the network, for example.
	ruleset, flags, err := landlock.V6.BestEffort().NewRulesetFD(rules...)
	if err != nil {
		return err
	}

	// Landlock requires it: a setuid program would escape otherwise.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return llsyscall.LandlockRestrictSelf(ruleset, flags)
}

// portRules returns the rules for the ports of a confinement.
func portRules(c confinement) (rules []landlock.Rule, err error) {
	for _, list := range []struct {
		addrs []string
		rule  func(uint16) landlock.NetRule
	}{{c.Ports, landlock.BindTCP}, {c.Connect, landlock.ConnectTCP}} {
		// Landlock restricts ports, not addresses.
		for _, addr := range list.addrs {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			number, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("port of %s: %w", addr, err)
			}
			rules = append(rules, list.rule(uint16(number)))
		}
	}
	return rules, nil
}

// newConfinement returns how the engine runs: as a program, or as a library in this program (see Host).
func newConfinement(engine Engine, dir string, ports, connect, args []string) (confinement, error) {
	// The engine gets a minimal environment. Its home is the folder for temporary files.
	store, temporary, logs := filepath.Join(dir, storeDir), filepath.Join(dir, tmpDir), filepath.Join(dir, logDir)
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + temporary, "TMPDIR=" + temporary, "TZ=UTC"}
	c := confinement{
		Write:    []string{store, temporary, logs},
		ReadFile: []string{filepath.Join(dir, configFile), filepath.Join(dir, usersFile)},
		Ports:    ports,
		Connect:  connect,
		Confine:  canConfine(),
	}

	// Landlock rules apply to the files themselves, not to symbolic links.
	path, err := filepath.EvalSymlinks(engine.Path)
	if err != nil {
		return c, err
	}

	if !engine.isLibrary() {
		c.Exec, c.Args, c.Env = path, append([]string{"clickhouse", "local"}, args...), env
		c.ReadFile = append(c.ReadFile, path)
		// It is our child: the death of this process kills it.
		c.Parent = os.Getpid()
		return c, nil
	}

	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return c, err
	}
	c.Exec, c.Args = self, append([]string{"tenantwatch-clickhouse"}, args...)
	c.Env = append(env, hostVar+"="+path)
	c.ReadFile = append(c.ReadFile, self, path)
	return c, nil
}

// encode returns c as the value of confineVar.
func (c confinement) encode() (string, error) {
	data, err := json.Marshal(c)
	return string(data), err
}
