package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coordd/coordd"
	"github.com/coordd/coordd/heartbeat"
	"github.com/coordd/coordd/httpapi"
	"github.com/coordd/coordd/internal/dbtest"
	"github.com/coordd/coordd/internal/journal"
)

type memberList struct{ Members []httpapi.Member }

func TestMembersAreFiltered(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		join(t, db, "b", "zone=x", "gpu=")
		join(t, db, "c", "zone=y")
		if err := join(t, db, "gone", "zone=x").Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := heartbeat.Drain(t.Context(), db, read[memberList](d, "/v1/members?name=c").Members[0].ID); err != nil {
			t.Fatal(err)
		}
		client, err := heartbeat.Join(t.Context(), db, heartbeat.Config{Name: "x", Kind: heartbeat.Client})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Leave(context.Background())
		for query, want := range map[string]string{
			"?clients":                     "app-7 b c x",
			"?clients=true&name=x":         "x",
			"?name=x":                      "",
			"":                             "app-7 b c",
			"?all":                         "app-7 b c gone",
			"?all=":                        "app-7 b c gone",
			"?all&name=gone":               "gone",
			"?name=gone&all=true":          "gone",
			"?name=gone":                   "",
			"?state=left":                  "gone",
			"?state=alive&state=draining":  "app-7 b c",
			"?state=draining":              "c",
			"?label=zone%3Dx":              "b",
			"?label=zone":                  "b c",
			"?label=zone=x&label=gpu=&all": "b",
			"?label=zone=x&all":            "b gone",
			"?label=nothing":               "",
		} {
			var names []string
			for _, m := range read[memberList](d, "/v1/members"+query).Members {
				names = append(names, m.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		for query, want := range map[string]string{"?state=asleep": "query.state", "?sort=name": "query.sort", "?all=perhaps": "query.all"} {
			p := d.get("/v1/members"+query).wants(t, 422, "invalid")
			if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, want) || p.Hint == "" {
				t.Errorf("%s: got %+v, want it to name %s", query, p, want)
			}
		}
		if body := d.get("/v1/members").body; strings.Contains(body, "$schema") || !strings.Contains(body, `"load":null`) {
			t.Fatalf("got %s", body)
		}
	})
}

func TestAMemberIsFoundByItsIDOrItsOwnName(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		first := join(t, db, "a/b ä")
		const path = "/v1/members/a%2Fb%20%C3%A4"
		for _, p := range []string{path, "/v1/members/" + first.ID()} {
			if m := read[httpapi.Member](d, p); m.ID != first.ID() || m.Name != "a/b ä" || m.State != "alive" {
				t.Fatalf("%s: got %+v", p, m)
			}
		}
		if err := first.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m := read[httpapi.Member](d, path); m.ID != first.ID() || m.State != "left" {
			t.Fatalf("the only one, which has left: got %+v", m)
		}
		second := join(t, db, "a/b ä")
		if m := read[httpapi.Member](d, path); m.ID != second.ID() {
			t.Fatalf("the one that lives: got %+v, want %s", m, second.ID())
		}
		third := join(t, db, "a/b ä")
		p := d.get(path).wants(t, 409, "ambiguous_name")
		if !slices.Equal(p.Members, []string{second.ID(), third.ID()}) {
			t.Fatalf("got %q, want the two that live", p.Members)
		}
		for _, absent := range []string{"nobody", "%ff%00", strings.Repeat("x", 4000), "..", "a"} {
			d.get("/v1/members/"+absent).wants(t, 404, "no_such_member")
		}
	})
}

func TestETagsFollowTheState(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		id := d.session.ID()
		for _, path := range []string{"/v1/members/app-7", "/v1/members"} {
			with := func(tag string) answer {
				return d.do(request{path: path, header: http.Header{"If-None-Match": {tag}}})
			}
			tag := with("").wantsStatus(t, 200).header.Get("ETag")
			beats := d.session.Stats().Beats
			dbtest.Eventually(t, "another beat", func() bool { return d.session.Stats().Beats > beats })
			for _, same := range []string{tag, `"x", ` + tag, "*", "W/" + strings.TrimPrefix(tag, "W/")} {
				if a := with(same).wantsStatus(t, 304); a.body != "" || a.header.Get("ETag") != tag {
					t.Fatalf("%s: got %+v, want no body and the tag %s", path, a, tag)
				}
			}
			with(`"x"`).wantsStatus(t, 200)
			d.post("/v1/members/app-7/drain").wantsStatus(t, 200)
			if a := with(tag).wantsStatus(t, 200); a.header.Get("ETag") == tag {
				t.Fatalf("%s, draining: got the tag %s again", path, tag)
			}
			d.post("/v1/members/"+id+"/undrain").wantsStatus(t, 200)
			with(tag).wantsStatus(t, 304)
		}
	})
}

// audits are the events that say who asked for what.
func audits(t *testing.T, db *coordd.DB) (events []journal.Event, by []heartbeat.By) {
	t.Helper()
	page, err := journal.Read(t.Context(), db.Queries, 0, 1000, "audit")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Events {
		var b heartbeat.By
		if err := json.Unmarshal([]byte(e.Data), &b); err != nil {
			t.Fatal(err)
		}
		by = append(by, b)
	}
	return page.Events, by
}

func TestMembersAreDrainedAndForgotten(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		id := d.session.ID()
		for _, step := range []struct {
			do, body     string
			want         int
			state, audit string // of the member then, and of the event that it makes
		}{
			{"undrain", "", 200, "alive", ""},
			{"drain", `{"reason":"new kernel"}`, 200, "draining", "drain"},
			{"drain", `{"reason":"again"}`, 200, "draining", ""}, // once is enough
			{"undrain", "{}", 200, "alive", "undrain"},
			{"drain", "", 200, "draining", "drain"},
			{"forget", "", 200, "condemned", "forget"},
			{"forget", "", 200, "condemned", ""},
			{"drain", "", 409, "condemned", ""},
			{"undrain", "", 409, "condemned", ""},
		} {
			before, _ := audits(t, db)
			a := d.do(request{method: "POST", path: "/v1/members/app-7/" + step.do, body: step.body})
			if step.want == 409 {
				if p := a.wants(t, 409, "wrong_state"); !strings.Contains(p.Detail, "app-7 is condemned") {
					t.Fatalf("%+v: got %+v", step, p)
				}
			} else if a.wantsStatus(t, step.want); a.header.Get("ETag") != `"`+id+"-"+step.state+`"` || !strings.Contains(a.body, `"state":"`+step.state+`"`) {
				t.Fatalf("%+v: got %+v", step, a)
			}
			if m := read[httpapi.Member](d, "/v1/members/"+id); m.State != step.state {
				t.Fatalf("%+v: got %+v", step, m)
			}
			events, by := audits(t, db)
			if n := len(events) - len(before); n != min(1, len(step.audit)) {
				t.Fatalf("%+v: got %d new audit events", step, n)
			}
			if step.audit == "" {
				continue
			}
			e, who := events[len(events)-1], by[len(by)-1]
			if e.Action != step.audit || e.Subject != "app-7" || e.MemberID != id {
				t.Fatalf("%+v: got %+v", step, e)
			}
			if who.Actor != "loopback" || who.Via != "POST /v1/members/app-7/"+step.do || !strings.HasPrefix(who.Remote, "127.0.0.1:") ||
				(step.body != "" && step.body != "{}") != (who.Reason == "new kernel") {
				t.Fatalf("%+v: got %+v", step, who)
			}
		}
		for _, o := range []string{"drain", "undrain", "forget"} {
			d.post("/v1/members/nobody/"+o).wants(t, 404, "no_such_member")
		}
		if err := join(t, db, "gone").Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, o := range []string{"drain", "undrain", "forget"} {
			d.post("/v1/members/gone/"+o).wants(t, 409, "wrong_state")
		}
	})
}

func TestAWriteNamesTheStateThatItWasDecidedOn(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		tag := d.get("/v1/members/app-7").header.Get("ETag")
		if err := heartbeat.Drain(t.Context(), db, d.session.ID()); err != nil {
			t.Fatal(err)
		}
		forget := func(tag string) answer {
			return d.do(request{method: "POST", path: "/v1/members/app-7/forget", header: http.Header{"If-Match": {tag}}})
		}
		for _, stale := range []string{tag, `"x"`, "W/" + strings.Replace(tag, "alive", "draining", 1)} {
			if p := forget(stale).wants(t, 412, "state_changed"); !strings.Contains(p.Detail, "draining") {
				t.Fatalf("got %+v", p)
			}
		}
		forget(`"x", `+strings.Replace(tag, "alive", "draining", 1)).wantsStatus(t, 200)
		if events, _ := audits(t, db); len(events) != 1 {
			t.Fatalf("got %d audit events, want that of the one write", len(events))
		}
	})
}

func TestBadBodiesAreRefused(t *testing.T) {
	dbtest.Run(t, func(t *testing.T, db *coordd.DB) {
		d := serve(t, db)
		for _, test := range []struct {
			body, kind string
			status     int
			code       string
		}{
			{`{"reason":`, "application/json", 400, "malformed"},
			{`{"reason":1}`, "application/json", 422, "invalid"},
			{`{"raison":"x"}`, "application/json", 422, "invalid"},
			{`[]`, "application/json", 422, "invalid"},
			{`{"reason":"` + strings.Repeat("x", 501) + `"}`, "application/json", 422, "invalid"},
			{`reason=x`, "application/x-www-form-urlencoded", 415, "unsupported_media_type"},
			{strings.Repeat("[", 60000), "application/json", 400, "malformed"},
			{strings.Repeat(" ", 64<<10+1), "application/json", 413, "too_large"},
		} {
			a := d.do(request{method: "POST", path: "/v1/members/app-7/drain", body: test.body, header: http.Header{"Content-Type": {test.kind}}})
			a.wants(t, test.status, test.code)
			if strings.Contains(a.body, "raison") != strings.Contains(test.body, "raison") || len(a.body) > 1000 {
				t.Errorf("%.40s: got %s", test.body, a.body)
			}
		}
		d.do(request{method: "POST", path: "/v1/members/app-7/drain", body: `{"reason":"` + strings.Repeat("ä", 250) + `\u0000"}`}).wantsStatus(t, 200)
	})
}
