package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/coordd/coordd"
)

// release is the version that this program was built from, as far as the build recorded it.
func release() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// version is the release and what else a bug report needs.
func version() string {
	return fmt.Sprintf("%s (schema %d, %s, %s/%s)", release(), coordd.SchemaVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
