//go:build unix

package doctor

import "golang.org/x/sys/unix"

// writable asks without writing.
func writable(path string) error { return unix.Access(path, unix.W_OK) }
