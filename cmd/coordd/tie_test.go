package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/lock"
)

var cuts = flag.Int("cuts", 2, "how often TestTheNextClientHasTheLockOfOneThatIsKilled kills one")

// grantOf asks a daemon for a lock, or renews it, and returns its token and for how many milliseconds it
// may be counted on.
func grantOf(client *http.Client, url, token string) (next string, valid int, err error) {
	request, err := http.NewRequest(http.MethodPut, url, nil)
	if err != nil {
		return "", 0, err
	}
	if token != "" {
		request.Header.Set("If-Match", token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer answer.Body.Close()
	var grant struct {
		Valid int `json:"valid_ms"`
	}
	if answer.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("got status %d", answer.StatusCode)
	}
	err = json.NewDecoder(answer.Body).Decode(&grant)
	return answer.Header.Get("ETag"), grant.Valid, err
}

// A client whose lock is tied to its connection is killed, by `kill -9`; another waits for the lock at the
// daemon of another machine, and has it long before either's TTL has passed. It measures too, from the kill until
// the other may count on the lock: go test ./cmd/coordd -run OneThatIsKilled -v -cuts 20
func TestTheNextClientHasTheLockOfOneThatIsKilled(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, dsn string) {
		db := dbtest.Migrated(t, dsn)
		script := strings.Replace(holder, "lock.Lock = Recorder", `lock.Lock = lambda *args: Recorder(*args, "60s")`, 1)
		l := &ledger{clients: map[string]*told{}}
		here := &host{t: t, dsn: dsn, name: "here", addr: freeAddress(t), script: script, ledger: l}
		there := &host{t: t, dsn: dsn, name: "there", addr: freeAddress(t), ledger: l}
		here.startDaemon()
		there.startDaemon()
		client := &http.Client{Transport: &http.Transport{}}
		t.Cleanup(client.CloseIdleConnections)
		for _, h := range []*host{here, there} {
			dbtest.Eventually(t, "a daemon that is ready", func() bool {
				answer, err := client.Get("http://" + h.addr + "/readyz")
				if err != nil {
					return false
				}
				defer answer.Body.Close()
				return answer.StatusCode == http.StatusOK
			})
		}
		var all []time.Duration
		for range *cuts {
			here.startClient()
			dbtest.Eventually(t, "a client that holds the lock", func() bool { return l.holds(here.id()) })
			had := make(chan time.Time, 1)
			go func() {
				defer close(had)
				url := "http://" + there.addr + "/v1/locks/g/grants/" + uuid.NewString()
				token, _, err := grantOf(client, url+"?wait=30s", "")
				valid := 0
				for err == nil && valid == 0 { // what a wait has used up is had by renewing
					_, valid, err = grantOf(client, url, token)
				}
				if err != nil {
					t.Errorf("the next client: %v", err)
					return
				}
				had <- time.Now()
				request, _ := http.NewRequest(http.MethodDelete, url, nil)
				if answer, err := client.Do(request); err != nil {
					t.Error(err)
				} else {
					answer.Body.Close()
				}
			}()
			dbtest.Eventually(t, "a client that waits", func() bool {
				info, err := lock.Inspect(t.Context(), db, "g")
				return err == nil && len(info.Waiters) == 1
			})
			time.Sleep(rand.N(time.Second)) // so that it does not keep step with who looks
			killed := time.Now()
			here.killClient()
			at, ok := <-had
			if !ok {
				t.FailNow()
			}
			all = append(all, at.Sub(killed))
			<-had
		}
		slices.Sort(all)
		t.Logf("from the kill until the next one may count on the lock: median %v, at most %v, of %d", all[len(all)/2], all[len(all)-1], len(all))
	})
}
