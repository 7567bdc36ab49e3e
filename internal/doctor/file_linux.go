package doctor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// shared are the file systems that several hosts may see, by the number that statfs(2) gives them.
// Of those with a warning some are local.
var shared = map[int64]struct {
	name    string
	verdict Verdict
}{
	unix.NFS_SUPER_MAGIC:  {"NFS", Failed},
	unix.SMB_SUPER_MAGIC:  {"SMB", Failed},
	unix.SMB2_SUPER_MAGIC: {"SMB", Failed},
	unix.CIFS_SUPER_MAGIC: {"CIFS", Failed},
	unix.CEPH_SUPER_MAGIC: {"Ceph", Failed},
	unix.AFS_SUPER_MAGIC:  {"AFS", Failed},
	unix.AFS_FS_MAGIC:     {"AFS", Failed},
	unix.CODA_SUPER_MAGIC: {"Coda", Failed},
	0x0bd00bd0:            {"Lustre", Failed},
	0x47504653:            {"GPFS", Failed},
	unix.V9FS_MAGIC:       {"9P", Warning},
	0x65735546:            {"FUSE", Warning}, // sshfs, glusterfs, s3fs, and who knows
}

// fileSystem says on what a directory lies, and how a file of SQLite's fares there.
func fileSystem(dir string) (name string, fares Verdict, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return "", "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	name, fares = kindOf(int64(stat.Type)) //nolint:unconvert // it is 32 bits wide on some architectures
	return name, fares, nil
}

func kindOf(magic int64) (name string, fares Verdict) {
	if fs, ok := shared[magic]; ok {
		return fs.name, fs.verdict
	}
	return fmt.Sprintf("a local file system (%#x)", magic), OK
}
