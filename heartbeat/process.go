package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/coordd/coordd"
)

// process names this process so that nobody else can be taken for it: the boot of its
// machine, its PID namespace, its user, its PID and when it was started. It is empty where
// that cannot be told (anywhere but on Linux, or where /proc is of another namespace), and
// then nothing is concluded from it.
func process() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	pid := strconv.Itoa(os.Getpid())
	if self, err := os.Readlink("/proc/self"); err != nil || self != pid {
		return ""
	}
	started, err := startOf("/proc", pid)
	if err != nil {
		return ""
	}
	return strings.Join([]string{strings.TrimSpace(string(boot)), namespace, strconv.Itoa(os.Getuid()), pid, started}, " ")
}

// processOf is what a member says of its process. A client says nothing: what it has started may
// run for a moment longer than itself, so from its end nothing must be concluded.
func processOf(kind Kind) string {
	if kind == Client {
		return ""
	}
	return process()
}

// gone says whether a process that process has named has certainly ended: it was one of
// this very boot, PID namespace and user, and nothing is there any more, or something that
// was started at another time. What proc does not show proves nothing: a live process may be
// hidden there from its own user (hidepid, and a program that may not be dumped).
func gone(proc, theirs, ours string) bool {
	their, our := strings.Fields(theirs), strings.Fields(ours)
	if len(their) != 5 || len(our) != 5 || !slices.Equal(their[:3], our[:3]) {
		return false
	}
	pid, err := strconv.Atoi(their[3])
	if err != nil || pid <= 0 {
		return false
	}
	if started, err := startOf(proc, their[3]); err == nil {
		return started != their[4]
	}
	return noProcess(pid)
}

// noProcess says whether the kernel, which hides no process from a signal, knows none of this PID.
func noProcess(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	_ = p.Release() // of a process that is there
	return errors.Is(err, os.ErrProcessDone)
}

// startOf is when a process was started, in clock ticks since the boot: field 22 of its
// stat. The command in field 2 may contain anything, and ends with the last bracket.
func startOf(proc, pid string) (string, error) {
	stat, err := os.ReadFile(proc + "/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", os.ErrInvalid
	}
	return fields[19], nil
}

// stmtPredecessors leaves out those who held something on behalf of others: these do not end with
// the process, and may count on what they were promised for as long as its session was valid.
const stmtPredecessors = `select m.id, m.process, h.seq
	from coordd_members m join coordd_heartbeats h on h.member_id = m.id
	where m.name = ? and m.id <> ? and h.state in ('alive', 'draining', 'condemned')
	and not exists (select 1 from coordd_leases l where l.holder = m.id and l.client <> '')
	and not exists (select 1 from coordd_shared s where s.member_id = m.id and s.client <> '')
	and not exists (select 1 from coordd_group_members g where g.member_id = m.id and g.client <> '')`

// succeed declares those dead at once that bore this member's name in a process of this
// machine that has ended: a restart need not wait for the TTL. It is a courtesy: what fails
// here is seen dead in time, and Join waits for it no longer than for any statement.
func (s *Session) succeed(ctx context.Context) {
	if s.process == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.declareGone(ctx); err != nil {
		s.log.Warn("cannot tell whether a predecessor has ended; others will see it dead in time", "error", err)
	}
}

func (s *Session) declareGone(ctx context.Context) error {
	type row struct {
		pulse
		process string
	}
	rows, err := coordd.All(ctx, s.db.Queries, func(r *row) []any { return []any{&r.id, &r.process, &r.seq} },
		stmtPredecessors, s.cfg.Name, s.id)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if !gone("/proc", r.process, s.process) {
			continue
		}
		died, err := transition(ctx, s.db, s.cfg.Timeout, r.id, "died", stmtDeclareDead, r.id, r.seq)
		if err != nil {
			return err
		}
		if died {
			s.log.Info("declared dead: its process has ended", "other", r.id, "other_name", s.cfg.Name)
		}
	}
	return nil
}
