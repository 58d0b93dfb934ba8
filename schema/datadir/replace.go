package datadir

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace replaces a file, or creates it, with mode 0600. Once it returns, the content is on disk. After a
// crash the file has the old or the new content, never a part.
func Replace(path string, data []byte) error {
	tmp := path + ".tmp"
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}

	// The content must be on disk before the rename makes it visible.
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}

	// If we stop here, the old file stays.
	if err := os.Rename(tmp, path); err != nil {
		return err
	}

	// After a power loss before this, the old file may be back.
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
