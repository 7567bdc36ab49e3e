# What there is to do here. `make` alone prints it.
.DEFAULT_GOAL := help
.PHONY: help dev build test race lint tidy golden

# Tests wait more than they compute, so more of them run at once than there are cores.
go_test = go test -count=1 -parallel 8 -timeout 20m

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: ## three members in one process, on SQLite
	go run ./cmd/coordd run --dev

build: ## bin/coordd
	go build -o bin/coordd ./cmd/coordd

test: ## every test on every database; obtains the databases first
	scripts/testdeps
	$(go_test) ./...

race: ## the same under the race detector
	scripts/testdeps
	$(go_test) -race ./...

lint: ## the linters that .golangci.yml names
	go tool -modfile=tools/go.mod golangci-lint run ./...

tidy: ## fail if go.mod is not tidy
	go mod tidy -diff

golden: ## rewrite the files under testdata/ from what the tests see
	scripts/testdeps
	go test -count=1 ./migrations -update
