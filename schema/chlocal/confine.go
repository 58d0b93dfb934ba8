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

// Any SQL user can have ClickHouse read a file, with the function file(). Only the
// operating system can prevent that. So the child restricts itself by Landlock
// before it becomes the engine: it reads and writes its store, reads its libraries
// and settings, listens on its two ports, connects to nothing, and sends no signals
// to others.

// leastLandlock is the first version of Landlock that lets a program rename files
// between folders, as ClickHouse does: Linux 5.19.
const leastLandlock = 2

// canConfine reports whether the kernel is able to confine the engine.
func canConfine() bool {
	version, err := llsyscall.LandlockGetABIVersion()
	return err == nil && version >= leastLandlock
}

// confinement is what the child does before it becomes the engine.
type confinement struct {
	Exec     string   // the program to become
	Args     []string // with the name first
	Env      []string
	Write    []string // folders to read and write
	Read     []string // folders to read
	ReadFile []string // files to read
	Ports    []string // host:port to listen on
	Connect  []string // host:port to connect to
	Confine  bool     // false where the kernel cannot
	Parent   int      // who has to be alive for a program to run; 0 for the library, which holds the leash
}

// systemFolders are those that any program needs; /proc/self is the child's own,
// and cannot show that of its parent.
var systemFolders = []string{
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/proc/self", "/sys/fs/cgroup", "/sys/devices/system/cpu",
}

var systemFiles = []string{
	"/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd",
	"/proc/meminfo", "/proc/cpuinfo", "/proc/stat",
}

var systemDevices = []string{"/dev/null", "/dev/urandom", "/dev/random"}

// confine restricts this process to what c allows and replaces it by the program.
// It returns only after an error.
//
// Landlock and PR_SET_NO_NEW_PRIVS apply to the calling thread, which becomes the
// whole process with the exec. If the parent dies before the exec, the end of the
// leash ends us as it ends the engine.
func confine(c confinement) error {
	runtime.LockOSThread() // never unlocked

	if c.Confine {
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
		ruleset, flags, err := landlock.V6.BestEffort().NewRulesetFD(rules...)
		if err != nil {
			return fmt.Errorf("confine the engine: %w", err)
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("confine the engine: no_new_privs: %w", err)
		}
		if err := llsyscall.LandlockRestrictSelf(ruleset, flags); err != nil {
			return fmt.Errorf("confine the engine: %w", err)
		}
	}

	// A program does not know the leash: it gets a signal when its parent dies.
	if c.Parent != 0 {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("tie the engine to its parent: %w", err)
		}
		if os.Getppid() != c.Parent { // it died before that
			return errors.New("the parent has ended")
		}
	}
	return fmt.Errorf("run %s: %w", c.Exec, syscall.Exec(c.Exec, c.Args, c.Env))
}

// portRules are the ports of a confinement.
func portRules(c confinement) (rules []landlock.Rule, err error) {
	for _, list := range []struct {
		addrs []string
		rule  func(uint16) landlock.NetRule
	}{{c.Ports, landlock.BindTCP}, {c.Connect, landlock.ConnectTCP}} {
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

// newConfinement is how the engine runs: as a program, or as a library within this
// very program (see Host).
func newConfinement(engine Engine, dir string, ports, connect, args []string) (confinement, error) {
	store, temporary, logs := filepath.Join(dir, storeDir), filepath.Join(dir, tmpDir), filepath.Join(dir, logDir)
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + temporary, "TMPDIR=" + temporary, "TZ=UTC"}
	c := confinement{
		Write:    []string{store, temporary, logs},
		ReadFile: []string{filepath.Join(dir, configFile), filepath.Join(dir, usersFile)},
		Ports:    ports,
		Connect:  connect,
		Confine:  canConfine(),
	}

	if !engine.isLibrary() {
		program, err := filepath.EvalSymlinks(engine.Path)
		if err != nil {
			return c, err
		}
		c.Exec, c.Args, c.Env = program, append([]string{"clickhouse", "local"}, args...), env
		c.ReadFile = append(c.ReadFile, program)
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
	library, err := filepath.EvalSymlinks(engine.Path)
	if err != nil {
		return c, err
	}
	c.Exec, c.Args, c.Env = self, append([]string{"tenantwatch-clickhouse"}, args...), append(env, hostVar+"="+library)
	c.ReadFile = append(c.ReadFile, self, library)
	return c, nil
}

// encode is c as the value of confineVar.
func (c confinement) encode() (string, error) {
	data, err := json.Marshal(c)
	return string(data), err
}
