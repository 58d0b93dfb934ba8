// Package builtin is the rules that come with tenantwatch: Sigma files, one
// alert a file, in a folder for each part of the watch. Beside each lies its
// timeline test.
package builtin

import (
	"embed"
	"io/fs"
)

//go:embed rate_limit authentication management_api probe attack configuration operation completeness catalog.overlay.yml
var files embed.FS

// FS returns the rules' files. Loading them needs no variables; probe_clients,
// when set, has the client ids of our own probe, whose failures are no attack.
func FS() fs.FS { return files }
