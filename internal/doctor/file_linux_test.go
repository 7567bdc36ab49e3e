package doctor

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetworkFileSystemsAreKnown(t *testing.T) {
	for magic, want := range map[int64]Verdict{
		unix.NFS_SUPER_MAGIC: Failed, unix.CIFS_SUPER_MAGIC: Failed, 0x65735546: Warning,
		unix.EXT4_SUPER_MAGIC: OK, unix.TMPFS_MAGIC: OK, unix.OVERLAYFS_SUPER_MAGIC: OK, unix.XFS_SUPER_MAGIC: OK, unix.BTRFS_SUPER_MAGIC: OK,
	} {
		if name, got := kindOf(magic); got != want || name == "" {
			t.Errorf("%#x: got %s (%s), want %s", magic, got, name, want)
		}
	}
}
