package version

import (
	"runtime/debug"
	"strings"
)

// String returns the module's version, or the commit of a build from source.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}

	if tag := info.Main.Version; tag != "" && tag != "(devel)" {
		return strings.TrimPrefix(tag, "v")
	}

	// A build from source has no version.
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value[:min(len(setting.Value), 12)]
		}
	}
	return "devel"
}
