package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coordd/coordd/internal/dbtest"
)

var (
	failovers      = flag.Int("failovers", 3, "how often TestHAProxyFollowsTheLeader ends a leadership")
	failoverMargin = flag.Duration("failover-margin", 5*time.Second, "how much later than HAProxy's interval a request may come to who does not lead")
)

// certificate writes one of 127.0.0.1, that vouches for itself, and returns what trusts it.
func certificate(t *testing.T, certFile, keyFile string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	write(t, certFile, string(certPEM))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	trusted := &tls.Config{RootCAs: x509.NewCertPool()}
	trusted.RootCAs.AppendCertsFromPEM(certPEM)
	return trusted
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// app is the program beside a daemon. It lives on, whatever happens to the daemon.
type app struct {
	*server
	address string

	mu     sync.Mutex
	asked  int
	latest time.Time // a request came, or an answer ended that was under way
	open   int       // answers that last
}

func startApp(t *testing.T, s *server) *app {
	t.Helper()
	a := &app{server: s}
	program := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		a.note(1, 0)
		if r.URL.Path != "/long" {
			return
		}
		a.note(0, 1)
		<-r.Context().Done()
		a.note(0, -1)
	}))
	t.Cleanup(program.Close)
	t.Cleanup(program.CloseClientConnections)
	a.address = program.Listener.Addr().String()
	return a
}

func (a *app) note(asked, open int) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.open, a.latest = a.asked+asked, a.open+open, now
}

func (a *app) seen() (asked, open int, latest time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked, a.open, a.latest
}

// recipe is the configuration of docs/recipes/haproxy.md for these apps, and its interval.
func recipe(t *testing.T, apps []*app, ca, frontend string) (configuration string, interval time.Duration) {
	t.Helper()
	page, err := os.ReadFile("../../docs/recipes/haproxy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, configuration, _ = strings.Cut(string(page), "```haproxy\n")
	configuration, _, found := strings.Cut(configuration, "```\n")
	here := []string{"/etc/haproxy/coordd-ca.pem", ca, "0.0.0.0:80\n", frontend + "\n"}
	for i, a := range apps {
		_, port, _ := net.SplitHostPort(a.server.address)
		here = append(here, fmt.Sprintf("10.0.0.%d:8080 port 7400", i+1), a.address+" port "+port)
	}
	for i := 0; i < len(here); i += 2 {
		if !found || !strings.Contains(configuration, here[i]) {
			t.Fatalf("the recipe has no %q:\n%s", here[i], configuration)
		}
	}
	interval, err = time.ParseDuration(regexp.MustCompile(` inter (\S+) `).FindStringSubmatch(configuration)[1])
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(here...).Replace(configuration), interval
}

// visitors ask until the test ends: on connections that they keep, on new ones, and for answers that last.
func visitors(t *testing.T, address string) (answered *atomic.Int64) {
	answered = new(atomic.Int64)
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	for i := range 6 {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%3 == 0}}
		path := map[bool]string{true: "/long", false: "/"}[i == 5]
		all.Go(func() {
			defer c.CloseIdleConnections()
			for ; t.Context().Err() == nil; time.Sleep(2 * time.Millisecond) {
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
				resp, err := c.Do(r)
				if err != nil {
					continue
				}
				if resp.StatusCode == http.StatusOK {
					answered.Add(1)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	return answered
}

// lastYes asks a daemon whether it leads, from when it does until it is told that this is enough, and tells when it has sent what
// was answered last by 200.
func lastYes(s *server, yes chan<- struct{}, enough <-chan struct{}) (at time.Time) {
	first := sync.OnceFunc(func() { close(yes) })
	c := &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: s.tls}}
	defer c.CloseIdleConnections()
	for {
		sent := time.Now()
		if resp, err := c.Get("https://" + s.address + "/role/leader/web"); err == nil {
			if resp.StatusCode == http.StatusOK {
				at = sent
				first()
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		select {
		case <-enough:
			return at
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// HAProxy, as the recipe configures it, sends nothing to who does not lead any more later than an interval after the end of its
// leadership.
func TestHAProxyFollowsTheLeader(t *testing.T) {
	t.Parallel()
	dsn, dir := dbtest.PostgresSchema(t), t.TempDir()
	dbtest.Migrated(t, dsn)
	ca, web, tokens := filepath.Join(dir, "crt"), filepath.Join(dir, "web.yml"), filepath.Join(dir, "tokens")
	trusted := certificate(t, ca, filepath.Join(dir, "key"))
	write(t, web, "tls_server_config: {cert_file: crt, key_file: key}")
	_, line, _ := run(t, "token", "ops", "operator")
	write(t, tokens, line)
	var apps []*app
	for i := range 3 {
		s := &server{name: fmt.Sprint("app-", i+1), address: freeAddress(t), tls: trusted}
		s.start(t, dsn, "--elect", "web", "--web-config", web, "--tokens", tokens)
		apps = append(apps, startApp(t, s))
	}
	frontend := freeAddress(t)
	configuration, interval := recipe(t, apps, ca, frontend)
	dbtest.HAProxy(t, configuration)
	answered := visitors(t, frontend)

	worst, down := map[string]time.Duration{}, map[string]time.Duration{}
	faults := []string{"kill", "freeze", "resign"}
	for i := range *failovers {
		fault := faults[i%len(faults)]
		old := reached(t, apps)
		yes, enough, ended := make(chan struct{}), make(chan struct{}), make(chan time.Time, 1)
		go func() { ended <- lastYes(old.server, yes, enough) }()
		select {
		case <-yes:
		case <-time.After(time.Minute):
			t.Fatalf("%s does not say that it leads", old.name)
		}
		switch fault {
		case "kill":
			old.signal(t, syscall.SIGKILL)
			old.exit(t)
		case "freeze":
			old.signal(t, syscall.SIGSTOP)
		case "resign":
			if code, _, stderr := run(t, "resign", "web", "--dsn", dsn, "--reason", "test"); code != exitOK {
				t.Log(stderr) // on a machine so busy that nobody leads just now
			}
		}
		next, first := follower(t, apps, old)
		time.Sleep(2 * interval) // for what comes late
		close(enough)
		since := <-ended
		_, open, latest := old.seen()
		late, bound := max(0, latest.Sub(since)), interval+*failoverMargin
		if fault == "freeze" {
			bound += interval // its check is given up, and not answered
		}
		if late > bound || open > 0 {
			t.Errorf("%s of %s: its program was asked %v after its leadership, and %d answers last; want %v, and none", fault, old.name, late, open, bound)
		}
		t.Logf("%s of %s: its program was reached for %v more, and that of %s after %v", fault, old.name, late, next.name, first.Sub(since))
		worst[fault], down[fault] = max(worst[fault], late), max(down[fault], first.Sub(since))
		switch fault {
		case "kill":
			old.begin(t)
		case "freeze":
			old.signal(t, syscall.SIGCONT)
		}
		dbtest.Eventually(t, old.name+" is a member", func() bool { return old.status(t, "/role/member") == http.StatusOK })
	}
	t.Logf("%d failovers, an interval of %v, %d requests answered: reached for at most %v more; the next after at most %v", *failovers, interval, answered.Load(), worst, down)
}

// reached waits until one leads, and its program and no other is reached, also by an answer that lasts.
func reached(t *testing.T, apps []*app) (leads *app) {
	t.Helper()
	dbtest.Eventually(t, "one who leads and is asked", func() bool {
		leads = nil
		for _, a := range apps {
			before, open, _ := a.seen()
			if !a.leads(t, "web") {
				if open > 0 {
					return false
				}
				continue
			}
			time.Sleep(20 * time.Millisecond)
			if asked, _, _ := a.seen(); leads != nil || asked == before || open == 0 {
				return false
			}
			leads = a
		}
		return leads != nil
	})
	return leads
}

// follower waits until the program of another is reached, and says which, and when.
func follower(t *testing.T, apps []*app, old *app) (next *app, first time.Time) {
	t.Helper()
	before := map[*app]int{}
	for _, a := range apps {
		before[a], _, _ = a.seen()
	}
	dbtest.Eventually(t, "another who is asked", func() bool {
		for _, a := range apps {
			if asked, _, _ := a.seen(); a != old && asked > before[a] {
				next, first = a, time.Now()
			}
		}
		return next != nil
	})
	return next, first
}
