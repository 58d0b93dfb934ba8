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

	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

// The users of the engine. Owner may do everything, Reader may read everything in Database, and
// TenantReader(t) may read the rows of the tenant t.
const (
	Owner  = "tenantwatch"
	Reader = "reader"
)

// TenantReader returns the user who sees the rows of one tenant only.
func TenantReader(tenant string) string { return Reader + "_" + tenant }

// Access is how clients reach an engine. It is kept in a file of mode 0600 in the engine's folder, so the
// users who may read the data may also query it. Passwords and, if they are still free, ports stay the same
// over restarts, so that a client is set up once.
//
// The addresses and passwords are those of the guard in front of the engine. The engine itself listens on
// other ports with other passwords, which are in no file.
type Access struct {
	TCP            string `json:"tcp"`  // native protocol, host:port
	HTTP           string `json:"http"` // HTTP interface, host:port
	OwnerPassword  string `json:"owner_password"`
	ReaderPassword string `json:"reader_password"`

	// TenantReaders are the readers of single tenants, by tenant.
	TenantReaders map[string]Login `json:"tenant_readers,omitempty"`

	// Unconfined is true if the kernel cannot keep the engine from reading this user's files. Then only
	// Owner is admitted.
	Unconfined bool `json:"unconfined,omitempty"`
}

// Login is a user and a password.
type Login struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// accessFile is the name of Access's file in an engine's folder.
const accessFile = "access.json"

// DSN returns the address for clickhouse-go: native protocol, as the given user, in the given database.
func (a Access) DSN(user, database string) string {
	return dsn(a.TCP, user, a.password(user), database)
}

func dsn(addr, user, password, database string) string {
	u := url.URL{Scheme: "clickhouse", User: url.UserPassword(user, password), Host: addr, Path: "/" + database}
	return u.String()
}

// password returns a user's password; empty for an unknown user.
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

// ReadAccess reads how to reach the engine of the folder dir. The file remains when the engine has ended: see
// Ping.
func ReadAccess(dir string) (Access, error) {
	var access Access
	path := filepath.Join(dir, accessFile)

	data, err := os.ReadFile(path)
	if err != nil {
		return access, fmt.Errorf("read the engine's address: %w", err)
	}
	if err := json.Unmarshal(data, &access); err != nil {
		return access, fmt.Errorf("%s is damaged (%w): remove it while tenantwatch is stopped; "+
			"the next start creates another one, with new passwords", path, err)
	}
	return access, nil
}

// loadAccess is ReadAccess for an engine's start: it generates what is missing, and everything if the file is
// damaged. It returns the damage as well: the data is not affected, but clients need the new passwords.
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

	// Readers of earlier starts keep their passwords, also those of tenants that are not configured now.
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

// save writes the file.
func (a Access) save(dir string) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	return datadir.Replace(filepath.Join(dir, accessFile), append(data, '\n'))
}
