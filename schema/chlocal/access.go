package chlocal

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// The users of the engine. Owner may do everything; Reader may only read.
const (
	Owner  = "tenantwatch"
	Reader = "reader"
)

// Access is how to reach an engine. It is kept in a file of mode 0600 in the
// engine's folder, so whoever may read the data may also query it. Passwords
// and, where they are still free, ports stay the same over restarts, so that
// another client can be set up once.
type Access struct {
	TCP            string `json:"tcp"`  // native protocol, host:port
	HTTP           string `json:"http"` // HTTP interface, host:port
	OwnerPassword  string `json:"owner_password"`
	ReaderPassword string `json:"reader_password"`
}

// accessFile is Access's file name in an engine's folder.
const accessFile = "access.json"

// DSN is the address for clickhouse-go: native protocol, as the given user, in
// the given database.
func (a Access) DSN(user, database string) string {
	password := a.ReaderPassword
	if user == Owner {
		password = a.OwnerPassword
	}
	u := url.URL{Scheme: "clickhouse", User: url.UserPassword(user, password), Host: a.TCP, Path: "/" + database}
	return u.String()
}

// ReadAccess reads how to reach the engine of the folder dir. That the file is
// there does not mean that the engine runs: see Running.
func ReadAccess(dir string) (Access, error) {
	var a Access
	data, err := os.ReadFile(filepath.Join(dir, accessFile))
	if err != nil {
		return a, fmt.Errorf("read the engine's address: %w", err)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("read the engine's address in %s: %w", filepath.Join(dir, accessFile), err)
	}
	return a, nil
}

// loadAccess is ReadAccess for an engine's start: what is missing is made new.
func loadAccess(dir string) (Access, error) {
	a, err := ReadAccess(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if a.OwnerPassword == "" {
		a.OwnerPassword = rand.Text()
	}
	if a.ReaderPassword == "" {
		a.ReaderPassword = rand.Text()
	}
	return a, nil
}

// save writes the file. If we die here, the next start writes it again.
func (a Access) save(dir string) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, accessFile), append(data, '\n'))
}

// writeFile replaces a file that only its owner may read.
func writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
