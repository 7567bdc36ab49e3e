package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/coordd/coordd/internal/name"
)

// Role says what a caller may do. Each one may do what those before it may.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // read
	Operator Role = "operator" // change members, groups and jobs, and what is held; hold something, or serve a group
	Admin    Role = "admin"    // give up what others hold by the daemon, and read its configuration and its profiles
)

var roles = []Role{Viewer, Operator, Admin}

// allows says whether somebody of this role may do what needs another.
func (r Role) allows(needed Role) bool { return slices.Index(roles, r) >= slices.Index(roles, needed) }

// Tokens is who may use the API: a file with one of them a line,
//
//	# name: role: sha256:HEX    of a token
//	# name: role: cert:NAME     the common name of a verified client certificate
//	grafana: viewer: sha256:4f5c…
//	oncall: operator: cert:oncall.example.org
//
// A name may stand in several lines, as while one token replaces another. Tokens are random
// and long, so their hashes are no secret; [NewToken] makes one.
type Tokens struct {
	file   string
	grants atomic.Pointer[[]grant]
}

// grant is a line of the file.
type grant struct {
	name, certificate string
	role              Role
	hash              []byte // nil: a certificate
}

// LoadTokens reads a file. It fails on a line that it does not understand, and where there is
// none.
func LoadTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the file again. After an error what was read before holds.
func (t *Tokens) Reload() error {
	b, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	grants, err := parseTokens(string(b))
	if err != nil {
		return fmt.Errorf("tokens: %s: %w", t.file, err)
	}
	t.grants.Store(&grants)
	return nil
}

// parseTokens repeats nothing of a line in its errors: it may hold a token instead of a hash.
func parseTokens(s string) (grants []grant, err error) {
	n := 0
	for line := range strings.Lines(s) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		g, err := parseGrant(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		grants = append(grants, g)
	}
	if len(grants) == 0 {
		return nil, errors.New("it names nobody: `NAME: ROLE: sha256:HASH`, one a line")
	}
	return grants, nil
}

func parseGrant(line string) (grant, error) {
	fields := strings.SplitN(line, ":", 4)
	if len(fields) != 4 {
		return grant{}, errors.New("it must be NAME: ROLE: sha256:HASH, or NAME: ROLE: cert:NAME")
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	g := grant{name: fields[0], role: Role(fields[1])}
	if name.Check("name", g.name) != nil {
		return grant{}, errors.New("its name is empty, too long or has control characters")
	}
	if !slices.Contains(roles, g.role) {
		return grant{}, errors.New("its role must be viewer, operator or admin")
	}
	switch fields[2] {
	case "sha256":
		hash, err := hex.DecodeString(fields[3])
		if err != nil || len(hash) != sha256.Size {
			return grant{}, errors.New("what follows sha256: must be 64 hexadecimal digits")
		}
		g.hash = hash
	case "cert":
		if g.certificate = fields[3]; g.certificate == "" {
			return grant{}, errors.New("what follows cert: must be the common name of a certificate")
		}
	default:
		return grant{}, errors.New("its third part must be sha256:HASH or cert:NAME")
	}
	return g, nil
}

// byToken finds whose token this is. How long it takes tells nothing of the hashes.
func (t *Tokens) byToken(token string) (found grant, ok bool) {
	hash := sha256.Sum256([]byte(token))
	for _, g := range *t.grants.Load() {
		if subtle.ConstantTimeCompare(g.hash, hash[:]) == 1 {
			found, ok = g, true
		}
	}
	return found, ok
}

// byCertificate finds whose verified certificate has this common name.
func (t *Tokens) byCertificate(commonName string) (grant, bool) {
	for _, g := range *t.grants.Load() {
		if g.hash == nil && g.certificate == commonName {
			return g, true
		}
	}
	return grant{}, false
}

// usable says whether anybody can be known, with or without client certificates.
func (t *Tokens) usable(certificates bool) bool {
	return slices.ContainsFunc(*t.grants.Load(), func(g grant) bool { return g.hash != nil || certificates })
}

// NewToken makes a token, which is for its owner alone, and the line of a token file that lets it
// in.
func NewToken(owner string, role Role) (token, line string, err error) {
	token = "coordd_" + rand.Text()
	hash := sha256.Sum256([]byte(token))
	line = fmt.Sprintf("%s: %s: sha256:%x", owner, role, hash)
	g, err := parseGrant(line)
	if err == nil && (g.name != owner || strings.HasPrefix(owner, "#")) {
		err = errors.New("its name begins with # or has space around it")
	}
	if err != nil {
		return "", "", fmt.Errorf("token: %w", err)
	}
	return token, line, nil
}
