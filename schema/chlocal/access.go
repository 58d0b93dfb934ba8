package chlocal

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// The users of the engine. Owner may do everything, Reader may only read, and
// TenantReader(t) may only read the rows of the tenant t.
const (
	Owner  = "tenantwatch"
	Reader = "reader"
)

// TenantReader is the user who sees the rows of one tenant only.
func TenantReader(tenant string) string { return Reader + "_" + tenant }

// Access is how to reach an engine. It is kept in a file of mode 0600 in the
// engine's folder, so the users who may read the data may also query it. Passwords
// and, where they are still free, ports stay the same over restarts, so that
// another client can be set up once.
//
// The addresses and passwords are those of the guard in front of the engine. The
// engine itself listens on other ports with other passwords, which no file has.
type Access struct {
	TCP            string `json:"tcp"`  // native protocol, host:port
	HTTP           string `json:"http"` // HTTP interface, host:port
	OwnerPassword  string `json:"owner_password"`
	ReaderPassword string `json:"reader_password"`
	// TenantReaders are the readers of single tenants, by tenant.
	TenantReaders map[string]Login `json:"tenant_readers,omitempty"`
	// Unconfined is true where the kernel cannot keep the engine from reading
	// this user's files. Only Owner is let in then.
	Unconfined bool `json:"unconfined,omitempty"`
}

// Login is a user and a password.
type Login struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// accessFile is Access's file name in an engine's folder.
const accessFile = "access.json"

// DSN is the address for clickhouse-go: native protocol, as the given user, in
// the given database.
func (a Access) DSN(user, database string) string {
	return dsn(a.TCP, user, a.password(user), database)
}

func dsn(addr, user, password, database string) string {
	u := url.URL{Scheme: "clickhouse", User: url.UserPassword(user, password), Host: addr, Path: "/" + database}
	return u.String()
}

// password is a user's; empty for a user that does not exist.
func (a Access) password(user string) string {
	switch user {
	case Owner:
		return a.OwnerPassword
	case Reader:
		return a.ReaderPassword
	}
	for _, reader := range a.TenantReaders {
		if user == reader.User {
			return reader.Password
		}
	}
	return ""
}

// ReadAccess reads how to reach the engine of the folder dir. That the file is
// there does not mean that the engine runs: see Ping.
func ReadAccess(dir string) (Access, error) {
	var access Access
	path := filepath.Join(dir, accessFile)

	data, err := os.ReadFile(path)
	if err != nil {
		return access, fmt.Errorf("read the engine's address: %w", err)
	}
	if err := json.Unmarshal(data, &access); err != nil {
		return access, fmt.Errorf("%s is damaged (%w): remove it while tenantwatch does not run; "+
			"the next start makes another one, with new passwords", path, err)
	}
	return access, nil
}

// loadAccess is ReadAccess for an engine's start: what is missing is generated,
// and so is all of it when the file is damaged. The damage is returned as well: the
// data is not affected, but clients have to be given the new passwords.
func loadAccess(dir string, tenants []string) (access Access, damage error) {
	access, err := ReadAccess(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		access, damage = Access{}, err
	}

	if access.OwnerPassword == "" {
		access.OwnerPassword = rand.Text()
	}
	if access.ReaderPassword == "" {
		access.ReaderPassword = rand.Text()
	}
	readers := map[string]Login{}
	for tenant, reader := range access.TenantReaders {
		readers[tenant] = Login{User: TenantReader(tenant), Password: cmp.Or(reader.Password, rand.Text())}
	}
	for _, tenant := range tenants {
		if readers[tenant].Password == "" {
			readers[tenant] = Login{User: TenantReader(tenant), Password: rand.Text()}
		}
	}
	access.TenantReaders = readers
	return access, damage
}

// save writes the file. If we die here, the next start writes it again.
func (a Access) save(dir string) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, accessFile), append(data, '\n'))
}

// writeFile replaces a file that only its owner may read. It returns once the file
// is on disk: a power loss leaves the old one or the new one.
func writeFile(path string, data []byte) (err error) {
	tmp := path + ".tmp"
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
