# What there is to do here. `make` alone prints it.
.DEFAULT_GOAL := help
.PHONY: help dev build test race grants lint tidy golden

# Tests wait more than they compute, so more of them run at once than there are cores; but fewer under
# the race detector.
go_test = go test -count=1 -p 1 -timeout 40m -parallel

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# To optimize what is tried out once takes longer than to run it.
quick = $(foreach from,github.com modernc.org google.golang.org golang.org/x,-gcflags='$(from)/...=-N -l')

dev: ## three members in one process, on SQLite
	go build $(quick) -o bin/coordd-dev ./cmd/coordd
	bin/coordd-dev run --dev

build: ## bin/coordd
	go build -o bin/coordd ./cmd/coordd

test: ## every test on every database; obtains the databases first
	scripts/testdeps
	$(go_test) 8 ./...

# SQLite is C that was translated: to watch it too takes six times as long, and shows nothing of coordd. Nor do tests
# of mutants, which are built without it, of how other processes fare for minutes, of how much one takes, or of long outages,
# in which nothing happens.
unwatched = Mutants|OutageKillsNobody|StoppedDatabaseKills|OutliveARestart|ProcessesThatFallOver|Python|Sidecar|HundredThousand|AMillionJobs|AnOpenTransactionDelays|EveryNode|DatabasesClock|HAProxy|ContendersTakeTurns|CommandIsDeadBefore

race: ## all but those of many processes, under the race detector
	scripts/testdeps
	GORACE=atexit_sleep_ms=0 $(go_test) 4 -race -gcflags='modernc.org/...=-race=false' -skip '$(unwatched)' ./... # else each process that a test starts rests a second when it ends

grants: ## every test as a user who has the least privileges
	scripts/testdeps
	COORDD_TEST_GRANTS=1 $(go_test) 8 -skip 'Sim|Mutants' ./... # these run in memory, without users

lint: ## the linters that .golangci.yml names
	go tool -modfile=tools/go.mod golangci-lint run ./...

tidy: ## fail if go.mod is not tidy
	go mod tidy -diff

golden: ## rewrite the files under testdata/ from what the tests see
	scripts/testdeps
	go test -count=1 ./migrations -update
	go test -count=1 ./httpapi -run Description -update
