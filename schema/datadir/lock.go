package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse reports that another process holds the lock of a folder.
var ErrInUse = errors.New("another process uses the folder")

// Lock locks a folder, without waiting. Closing the file releases the lock; so does the kernel when the
// last process that has the file open ends, however it ends.
func Lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}

	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil:
		return file, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = ErrInUse
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
}
