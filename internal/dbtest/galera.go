package dbtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coordd/coordd/internal/dsn"
)

// StartGalera starts three MariaDB servers of the test's own that replicate by Galera, from the programs installed
// on this machine, and returns when all take part. Each takes writes, and shows in time what was committed on any.
// One that was paused for long is sent what it has missed when it goes on; one that was killed and is started again
// is sent everything. They end with the test.
func StartGalera(tb testing.TB) (nodes [3]*Server) {
	tb.Helper()
	found, err := findGalera()
	stopWithout(tb, err)
	for i := range nodes {
		n := found
		n.number, n.founds = i, i == 0
		p := mysqlProduct
		p.name, p.find = "Galera", func() (programs, error) { return &n, nil }
		nodes[i] = startServer(tb, &p, Extra{})
		n.founds = false // whenever it starts again it joins the others
	}
	AwaitCluster(tb, len(nodes), nodes[:]...)
	return nodes
}

// AwaitCluster returns when each of the nodes takes part in a cluster of so many. A node that does not take part refuses
// to read and write, once it has noticed.
func AwaitCluster(tb testing.TB, size int, nodes ...*Server) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), readyWithin)
	defer cancel()
	for _, node := range nodes {
		err := awaitReady(ctx, func(ctx context.Context) error { return takesPart(ctx, node.DSN(), size) })
		if err != nil {
			tb.Fatalf("dbtest: await a cluster of %d: %v; the end of the node's log:\n%s", size, err, node.logFrom(0))
		}
	}
}

// stmtTakesPart reads no table, so that a node answers it also while it refuses all else.
const stmtTakesPart = `select group_concat(variable_value order by variable_name separator ' ')
	from information_schema.global_status
	where variable_name in ('wsrep_cluster_size', 'wsrep_cluster_status', 'wsrep_local_state_comment', 'wsrep_ready')`

func takesPart(ctx context.Context, url string, size int) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	target, err := dsn.Parse(url)
	if err != nil {
		return err
	}
	db, err := target.Open(ctx, answerWithin)
	if err != nil {
		return err
	}
	defer db.Pool().Close()
	var got string
	if err := db.Get(ctx, []any{&got}, stmtTakesPart); err != nil {
		return err
	}
	if want := fmt.Sprintf("%d Primary Synced ON", size); got != want {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

// A galeraNode is MariaDB as a part of a cluster.
type galeraNode struct {
	mysqlPrograms
	provider string         // the library that replicates
	ports    [3]galeraPorts // of all nodes
	number   int            // which of them it is
	founds   bool           // the cluster; else it joins
}

// galeraPorts are a node's ports beside the one for clients.
type galeraPorts struct {
	group      int // where it talks with the others,
	missed     int // is sent what it has missed,
	everything int // and is sent everything
}

func findGalera() (n galeraNode, err error) {
	var missing []string
	path := map[string]string{}
	for _, program := range []string{"mariadbd", "mariadb-install-db", "wsrep_sst_rsync", "rsync", "lsof"} {
		if path[program], err = lookUp(program); err != nil {
			missing = append(missing, program)
		}
	}
	n.mysqlPrograms = mysqlPrograms{server: path["mariadbd"], install: path["mariadb-install-db"]}
	for _, pattern := range []string{"/usr/lib*/galera*/libgalera_smm.so", "/usr/lib*/libgalera_smm.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // it fails on a bad pattern only
			n.provider = found[0]
		}
	}
	if n.provider == "" {
		missing = append(missing, "libgalera_smm.so")
	}
	if len(missing) > 0 {
		return n, fmt.Errorf("three nodes of Galera: %w: this machine lacks %s\nrun scripts/testdeps --local, or `apt-get install mariadb-server`",
			errNone, strings.Join(missing, ", "))
	}
	n.ports, err = findGaleraPorts()
	return n, err
}

// findGaleraPorts chooses below the ports that freePort chooses from.
func findGaleraPorts() (ports [3]galeraPorts, err error) {
	var listeners []net.Listener // at once, so that no port is found twice
	free := func() int {
		port, listener, failed := listenBetween(10000, 20000)
		if failed != nil {
			err = failed
			return 0
		}
		listeners = append(listeners, listener)
		return port
	}
	for i := range ports {
		ports[i] = galeraPorts{group: free(), missed: free(), everything: free()}
	}
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return ports, err
}

// initialize does nothing for a node that will be sent everything.
func (n *galeraNode) initialize(l layout) []string {
	if n.founds {
		return n.mysqlPrograms.initialize(l)
	}
	return []string{"true"}
}

// galeraTiming has a cluster give up a node that is silent for a second and a half, not five.
const galeraTiming = "evs.keepalive_period=PT0.3S;evs.inactive_check_period=PT0.2S;evs.suspect_timeout=PT1.5S;" +
	"evs.inactive_timeout=PT3S;evs.install_timeout=PT3S;evs.join_retrans_period=PT0.3S"

func (n *galeraNode) serve(l layout) []string {
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	var groups []string
	for _, p := range n.ports {
		groups = append(groups, local(p.group))
	}
	own := n.ports[n.number]
	command := slices.Concat(n.mysqlPrograms.serve(l), []string{
		"--wsrep-on=ON",
		"--wsrep-provider=" + n.provider,
		"--wsrep-cluster-address=gcomm://" + strings.Join(groups, ","),
		"--wsrep-node-name=node-" + strconv.Itoa(n.number),
		"--wsrep-node-address=127.0.0.1",
		"--wsrep-sst-method=rsync",
		"--wsrep-sst-receive-address=" + local(own.everything),
		"--wsrep-provider-options=base_host=127.0.0.1;base_port=" + strconv.Itoa(own.group) +
			";gmcast.listen_addr=tcp://" + local(own.group) + ";ist.recv_addr=" + local(own.missed) +
			";gcache.size=16M;" + galeraTiming,
		"--binlog-format=ROW",
		"--default-storage-engine=InnoDB",
		"--innodb-autoinc-lock-mode=2",
		"--innodb-log-file-size=8M", // is sent with everything
	})
	if n.founds {
		command = append(command, "--wsrep-new-cluster")
	}
	return command
}
