// Package name holds the one rule for names: of members, and of everything that the
// database knows by a name.
package name

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is the longest name.
const MaxBytes = 200

// Check refuses a name that the databases might not compare byte by byte, or that
// people could not tell from another: a name is 1 to 200 bytes of UTF-8 without control
// characters and without space at either end. What says whose name it is, in the error.
func Check(what, s string) error {
	if err := check(s); err != nil {
		return fmt.Errorf("%s %q: %w", what, clip(s), err)
	}
	return nil
}

// CheckOptional is Check for a name that may be empty.
func CheckOptional(what, s string) error {
	if s == "" {
		return nil
	}
	return Check(what, s)
}

func check(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > MaxBytes:
		return fmt.Errorf("it has %d bytes, and %d are the most", len(s), MaxBytes)
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8")
	case strings.TrimSpace(s) != s:
		return errors.New("it begins or ends with space")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("it has control characters")
	}
	return nil
}

// clip keeps an error about a long name short.
func clip(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
