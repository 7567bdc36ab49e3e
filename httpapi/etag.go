package httpapi

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/coordd/coordd/heartbeat"
)

// etag is that of one member: it changes with its state and not with each beat, so it says
// whether a decision that was made about the member still stands.
func etag(m heartbeat.Member) string { return `"` + m.ID + "-" + string(m.State) + `"` }

// listETag is that of several. It is weak, as what it stands for has ages in it.
func listETag(members []heartbeat.Member) string {
	hash := sha256.New()
	for _, m := range members {
		fmt.Fprintln(hash, m.ID, m.State, m.Overdue())
	}
	return fmt.Sprintf(`W/"%x"`, hash.Sum(nil)[:12])
}

// weakETag is that of what may be shown with other words and mean the same.
func weakETag(shown any) string { return "W/" + `"` + digest(shown) + `"` }

// grantETag is that of an election or a lock. It begins with the token, by which a decision is
// made on who leads or holds, whoever waits meanwhile.
func grantETag(token int64, shown any) string {
	return fmt.Sprintf(`"%d-%s"`, token, digest(shown))
}

func digest(shown any) string {
	b, err := json.Marshal(shown)
	if err != nil {
		panic(fmt.Sprintf("an answer that is no JSON: %v", err))
	}
	hash := sha256.Sum256(b)
	return fmt.Sprintf("%x", hash[:12])
}

// tokenOf is the token with which an ETag begins, or that it is.
func tokenOf(tag string) (token int64, ok bool) {
	inner := strings.TrimSpace(tag)
	if len(inner) < 2 || inner[0] != '"' || inner[len(inner)-1] != '"' {
		return 0, false
	}
	number, _, _ := strings.Cut(inner[1:len(inner)-1], "-")
	token, err := strconv.ParseInt(number, 10, 64)
	return token, err == nil && token > 0
}

// anyOf says whether a list of tags, as If-Match and If-None-Match have it, holds this one. No tag
// of ours has a comma in it.
func anyOf(list, tag string) bool {
	for candidate := range strings.SplitSeq(list, ",") {
		if c := strings.TrimSpace(candidate); c == tag || c == "*" {
			return true
		}
	}
	return false
}

// unless is the status of an answer that the client may have already.
func unless(ifNoneMatch, tag string) int {
	if ifNoneMatch != "" && anyOf(strings.ReplaceAll(ifNoneMatch, "W/", ""), strings.TrimPrefix(tag, "W/")) {
		return http.StatusNotModified
	}
	return http.StatusOK
}
