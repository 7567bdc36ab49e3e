package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
)

// pki is a directory with a certificate authority, and what it has issued.
type pki struct {
	t    testing.TB
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	p.ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	p.key = p.newKey()
	p.ca = p.sign("ca", p.ca, p.key)
	p.pool.AddCert(p.ca)
	p.issue("server", 2)
	return p
}

func (p *pki) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}

// sign signs a certificate and writes it and its key to files.
func (p *pki) sign(name string, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, p.ca, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	p.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return certificate
}

// issue issues a certificate with a serial number, for 127.0.0.1.
func (p *pki) issue(commonName string, serial int64) {
	p.sign(commonName, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: commonName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: p.ca.NotBefore, NotAfter: p.ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.newKey())
}

func (p *pki) write(name, content string) string {
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// load makes a web-config file with a client_auth_type, or none, and loads it.
func (p *pki) load(clientAuth string, more ...string) *httpapi.TLS {
	p.t.Helper()
	lines := "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
	if clientAuth != "" {
		lines += "  client_auth_type: " + clientAuth + "\n  client_ca_file: ca.crt\n"
	}
	t, err := httpapi.LoadTLS(p.write("web.yaml", lines+strings.Join(more, "\n")))
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

// client trusts the authority, and has a certificate if it is named.
func (p *pki) client(name string) *http.Client {
	cfg := &tls.Config{RootCAs: p.pool}
	if name != "" {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(p.dir, name+".crt"), filepath.Join(p.dir, name+".key"))
		if err != nil {
			p.t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
	p.t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestAClientCertificateHasARole(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		p, stranger := newPKI(t), newPKI(t)
		file, tokens := tokenFile(t, "the ops: operator: cert:ops", "eyes: viewer: cert:eyes")
		d := serve(t, db, func(c *httpapi.Config) {
			c.TLS, c.Tokens = p.load("VerifyClientCertIfGiven"), loaded(t, file)
		})
		p.issue("ops", 3)
		p.issue("eyes", 4)
		p.issue("nobody", 5)
		as := func(client *http.Client, q request) answer {
			d.client = client
			return d.do(q)
		}
		drain := request{method: "POST", path: "/v1/members/app-7/drain"}
		as(p.client("ops"), drain).wantsStatus(t, 200)
		as(p.client("eyes"), drain).wants(t, 403, "forbidden")
		as(p.client("eyes"), request{path: "/v1/members"}).wantsStatus(t, 200)
		as(p.client("nobody"), request{path: "/v1/members"}).wants(t, 401, "unauthorized")
		as(p.client(""), request{path: "/v1/members"}).wants(t, 401, "unauthorized")
		as(p.client(""), request{path: "/livez"}).wantsStatus(t, 200)
		as(p.client(""), request{path: "/v1/members", header: bearer(tokens[httpapi.Viewer])}).wantsStatus(t, 200)
		as(p.client("ops"), request{path: "/v1/members", header: bearer("wrong")}).wants(t, 401, "unauthorized")
		if _, by := audits(t, db); len(by) != 1 || by[0].Actor != "the ops" {
			t.Fatalf("got %+v, want the name that the token file has for the certificate", by)
		}
		stranger.issue("ops", 6)
		impostor := stranger.client("ops")
		impostor.Transport.(*http.Transport).TLSClientConfig.RootCAs = p.pool
		if resp, err := impostor.Get("https://" + d.address + "/livez"); err == nil {
			resp.Body.Close()
			t.Fatalf("a certificate of another authority: got %d", resp.StatusCode)
		}
		if resp, err := http.Get("http://" + d.address + "/livez"); err == nil {
			resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Fatalf("plain HTTP: got %d", resp.StatusCode)
			}
		}
	})
}

// Streams and their ends work over HTTP/2 as well.
func TestAStreamOverHTTP2(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		p := newPKI(t)
		d := serve(t, db, nobody, func(c *httpapi.Config) { c.TLS = p.load("") })
		d.client = p.client("")
		resp, err := d.client.Get("https://" + d.address + "/livez")
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("got %v and %v, want HTTP/2", resp, err)
		}
		resp.Body.Close()
		s := d.listen(t, "?after=0", "")
		s.wants("retry: 1000|id: 0")
		appended(t, db, "a", "1")
		s.wants("id: 1|event: change")
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		if m := s.message(); m != "" {
			t.Fatalf("got %q, want the end", m)
		}
	})
}

func TestCertificatesAreReplaced(t *testing.T) {
	p := newPKI(t)
	d := serve(t, dbtest.Migrated(t, dbtest.SQLiteFile(t)), nobody, func(c *httpapi.Config) { c.TLS = p.load("", "http_server_config:\n  http2: false\n") })
	serial := func() int64 {
		t.Helper()
		client := p.client("") // a connection of its own
		resp, err := client.Get("https://" + d.address + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 1 {
			t.Fatalf("got %s, want HTTP/1.1, as the file says", resp.Proto)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 2 {
		t.Fatalf("got certificate %d, want 2", got)
	}
	p.issue("server", 7)
	if got := serial(); got != 7 {
		t.Fatalf("got certificate %d, want the new one, 7", got)
	}
	for _, broken := range []string{"server.key", "web.yaml"} {
		p.write(broken, "broken")
		if got := serial(); got != 7 {
			t.Fatalf("with %s broken: got certificate %d, want the last one that was whole, 7", broken, got)
		}
	}
	if log := d.log.String(); strings.Count(log, "cannot be read") != 1 {
		t.Fatalf("got the log %s, want it to say once what is broken", log)
	}
	p.issue("server", 8)
	p.load("", "http_server_config:\n  http2: false\n") // writes it anew
	if got := serial(); got != 8 {
		t.Fatalf("mended: got certificate %d, want 8", got)
	}
}

func TestWebConfigFilesAreRead(t *testing.T) {
	p := newPKI(t)
	const whole = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
	for content, want := range map[string]string{
		"":                                      "no tls_server_config",
		"tls_server_confg: {}":                  "not found",
		"tls_server_config: {cert_file: x.crt}": "missing one of key or key_file",
		"tls_server_config: {cert_file: x.crt, key_file: x.key}":                                          "x.crt",
		whole + "  client_auth_type: Always\n":                                                            "invalid ClientAuth",
		whole + "  client_auth_type: RequireAndVerifyClientCert\n":                                        "name one",
		whole + "basic_auth_users:\n  me: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n": "use a token file",
		whole + "rate_limit:\n  interval: 1s\n":                                                           "rate_limit",
		whole + "http_server_config:\n  headers:\n    X-Frame-Options: deny\n":                            "headers",
	} {
		if _, err := httpapi.LoadTLS(p.write("web.yaml", content)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "web.yaml") {
			t.Errorf("%q: got %v, want %s", content, err, want)
		}
	}
	if _, err := httpapi.LoadTLS(fmt.Sprint(p.dir, "/none")); err == nil {
		t.Error("no file: got no error")
	}
}
