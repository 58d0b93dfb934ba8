// Package builtin holds the rules that ship with tenantwatch: Sigma files with one
// alert each, in one folder for each area that is monitored. Each rule's timeline
// test is in the same folder.
package builtin

import (
	"embed"
	"io/fs"
)

//go:embed rate_limit authentication management_api probe attack configuration operation completeness catalog.overlay.yml
var files embed.FS

// FS returns the files of the rules. They load without variables. If probe_clients is set, it
// has the client ids of our own probe, whose failures are not attacks.
func FS() fs.FS { return files }
