package httpapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
)

// TLS is a web-config file in the form that Prometheus and its exporters share
// (https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md): of it,
// tls_server_config and http2. It and the files that it names are read again for each
// connection, so certificates may be replaced at any time; while they cannot be read, what was
// read last holds.
type TLS struct {
	file string

	mu      sync.Mutex
	last    *tls.Config
	failing bool
}

// LoadTLS reads a web-config file and all that it names. It refuses what coordd would not
// heed: users and rate limits, and headers.
func LoadTLS(file string) (*TLS, error) {
	t := &TLS{file: file}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the files again. After an error what was read before holds.
func (t *TLS) Reload() error {
	cfg, err := loadTLS(t.file)
	if err != nil {
		return fmt.Errorf("TLS: %s: %w", t.file, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = cfg
	return nil
}

func loadTLS(file string) (*tls.Config, error) {
	if err := web.Validate(file); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	cfg := web.Config{
		TLSConfig:  web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13},
		HTTPConfig: web.HTTPConfig{HTTP2: true},
	}
	if err := yaml.UnmarshalStrict(b, &cfg); err != nil {
		return nil, err
	}
	switch {
	case !cfg.TLSConfig.IsEnabled():
		return nil, errors.New("it has no tls_server_config")
	case len(cfg.Users) > 0:
		return nil, errors.New("basic_auth_users is not used here: leave it out and use a token file")
	case cfg.RateLimiterConfig.Interval != 0, len(cfg.HTTPConfig.Header) > 0:
		return nil, errors.New("rate_limit and headers are not used here: leave them out")
	}
	cfg.TLSConfig.SetDirectory(filepath.Dir(file))
	c, err := web.ConfigToTLSConfig(&cfg.TLSConfig)
	if err != nil {
		return nil, err
	}
	if c.ClientAuth >= tls.VerifyClientCertIfGiven && c.ClientCAs == nil {
		return nil, errors.New("client certificates are verified by no client_ca_file: name one")
	}
	certificate, err := c.GetCertificate(nil)
	if err != nil {
		return nil, err
	}
	c.Certificates, c.GetCertificate = []tls.Certificate{*certificate}, nil // and not whatever is on disk later
	c.NextProtos = []string{"http/1.1"}
	if cfg.HTTPConfig.HTTP2 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c, nil
}

// current is what holds now.
func (t *TLS) current() *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// verifies says whether client certificates are asked for and verified.
func (t *TLS) verifies() bool { return t.current().ClientAuth >= tls.VerifyClientCertIfGiven }

// config is for a server. A file that cannot be read is logged once.
func (t *TLS) config(log *slog.Logger) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: t.current().NextProtos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			err := t.Reload()
			t.mu.Lock()
			defer t.mu.Unlock()
			if err != nil && !t.failing {
				log.Error("the TLS configuration cannot be read; what was read before holds", "error", err)
			}
			t.failing = err != nil
			return t.last, nil
		},
	}
}
