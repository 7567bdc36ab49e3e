package dbtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// newServer prepares a server that is not started yet.
func newServer(p *product, extra Extra) (_ *Server, err error) {
	programs, err := p.find()
	if err != nil {
		return nil, p.missing(err)
	}
	s := &Server{product: p, programs: programs, extra: extra, password: cmp.Or(extra.password, rand.Text())}
	thisRun.atEnd(s.close)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare a %s server: %w", p.name, err), s.close())
		}
	}()
	if s.account, err = unprivileged(p.accounts); err != nil {
		return nil, err
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	return s, s.initialize()
}

// unprivileged is whom a server runs as: neither product consents to run as root. It is nil if we are not root.
func unprivileged(accounts []string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range accounts {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uidErr, gidErr)
	}
	return nil, fmt.Errorf("none of the accounts %q exists, and the server refuses to run as root: run the tests as another user", accounts)
}

const dirPrefix = "coordd-dbtest-"

func (s *Server) makeDir() (err error) {
	removeAbandoned()
	if s.dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return err
	}
	if s.lock, err = lockDir(s.dir); err != nil {
		return err
	}
	s.layout.data = filepath.Join(s.dir, "data")
	s.layout.secret = filepath.Join(s.dir, "secret")
	if err := os.Mkdir(s.layout.data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(s.layout.secret, []byte(s.programs.secret(s.password)), 0o600); err != nil {
		return err
	}
	if s.account == nil {
		return nil
	}
	for _, path := range []string{s.dir, s.layout.data, s.layout.secret} {
		if err := os.Chown(path, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// lockDir marks a directory as used for as long as the file is open, which it is not after our death.
func lockDir(dir string) (*os.File, error) {
	fresh := filepath.Join(dir, "lock.new") // under this name it counts for nothing, so it is never seen without the lock
	lock, err := os.Create(fresh)
	if err != nil {
		return nil, err
	}
	return lock, errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX), os.Rename(fresh, filepath.Join(dir, "lock")))
}

// removeAbandoned removes the directories of runs that were killed. What it cannot remove is another user's.
func removeAbandoned() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", "lock")) // fails on a bad pattern only
	for _, path := range locks {
		lock, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			removeDir(filepath.Dir(path))
		}
		lock.Close()
	}
}

// removeDir removes the lock last, so that what a dying server adds meanwhile is left to the next run, and not for ever.
func removeDir(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (s *Server) initialize() error {
	ctx, cancel := context.WithTimeout(thisRun.context(), readyWithin)
	defer cancel()
	command := s.programs.initialize(s.layout)
	initializer, err := s.spawn(ctx, command, nil)
	if err != nil {
		return err
	}
	<-initializer.gone
	if initializer.err != nil {
		return fmt.Errorf("%s: %w\n%s", command[0], initializer.err, s.logFrom(0))
	}
	return nil
}

// freePort chooses below the range from which kernels give ports to clients. A port of that range could be given,
// while the server is down, to the very client that dials it, and connect it to itself.
func freePort() (int, error) {
	port, listener, err := listenBetween(20000, 32000)
	if err != nil {
		return 0, err
	}
	return port, listener.Close()
}

// listenBetween listens on a port that nobody has.
func listenBetween(lowest, highest int) (port int, listener net.Listener, err error) {
	const attempts = 100
	for range attempts {
		port = lowest + mathrand.IntN(highest-lowest)
		listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener, nil
		}
	}
	return 0, nil, fmt.Errorf("no free port between %d and %d: %w", lowest, highest, err)
}
