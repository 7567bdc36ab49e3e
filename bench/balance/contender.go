package main

import (
	"slices"

	"github.com/coordd/coordd/assign"
)

// contender is one way to spread jobs over servers.
type contender struct {
	name  string
	begin func(jobs, servers []string) spread
}

// spread is a contender at work.
type spread interface {
	change(servers []string)  // some have come or gone
	restart(servers []string) // some are away, and come back with the next change

	// owners sets for each job the name of its server; empty: the job waits for one that restarts.
	owners(to []string)
}

// hashed computes all owners anew from the servers' names, as the hashing libraries do.
type hashed struct {
	jobs    []string
	place   func(servers []string) func(job string) string
	ownerOf func(job string) string
}

// library is a contender out of a library: what it makes of servers tells of a job's owner.
func library(name string, place func(servers []string) func(job string) string) contender {
	return contender{name, func(jobs, servers []string) spread {
		h := &hashed{jobs: jobs, place: place}
		h.change(servers)
		return h
	}}
}

func (h *hashed) change(servers []string)  { h.ownerOf = h.place(servers) }
func (h *hashed) restart(servers []string) { h.change(servers) } // they know of nothing else

func (h *hashed) owners(to []string) {
	for i, job := range h.jobs {
		to[i] = h.ownerOf(job)
	}
}

const slots = 4096

// planned is a job group that a planner of ours spreads. Its first plan is made before there is
// a job, as it is where jobs come to a group that has servers.
type planned struct {
	planner assign.Planner
	jobs    []string
	view    assign.View
}

// strategy is a contender of package assign.
func strategy(name string) contender {
	placer, err := assign.PlacerByName(name)
	if err != nil {
		panic(err)
	}
	return contender{name, func(jobs, servers []string) spread {
		p := &planned{planner: assign.Sticky(placer), jobs: jobs}
		p.view = assign.View{Group: "bench", Owners: slices.Repeat([]int{-1}, slots), Load: make([]float64, slots)}
		p.change(servers)
		for _, job := range jobs {
			p.view.Load[assign.SlotOf(job, slots)]++
		}
		p.settle()
		return p
	}}
}

func (p *planned) change(servers []string) {
	var members []assign.Member
	index := map[string]int{}
	for i, name := range servers {
		members = append(members, assign.Member{ID: name, Name: name, Weight: 1, Eligible: true})
		index[name] = i
	}
	for slot, owner := range p.view.Owners {
		p.view.Owners[slot] = -1
		if owner >= 0 {
			if i, stays := index[p.view.Members[owner].Name]; stays {
				p.view.Owners[slot] = i
			}
		}
	}
	p.view.Members = members
	p.settle()
}

func (p *planned) restart(servers []string) {
	p.view.Reserved = make([]string, slots)
	for slot, owner := range p.view.Owners {
		if name := p.view.Members[owner].Name; !slices.Contains(servers, name) {
			p.view.Reserved[slot] = name
		}
	}
	p.change(servers)
}

// settle plans until nothing moves.
func (p *planned) settle() {
	for {
		owners := p.planner.Plan(p.view)
		if slices.Equal(owners, p.view.Owners) {
			return
		}
		p.view.Owners = owners
	}
}

func (p *planned) owners(to []string) {
	for i, job := range p.jobs {
		to[i] = ""
		if owner := p.view.Owners[assign.SlotOf(job, slots)]; owner >= 0 {
			to[i] = p.view.Members[owner].Name
		}
	}
}

// contenders are our strategies, and then the libraries.
func contenders() []contender {
	var all []contender
	for _, name := range assign.Strategies() {
		all = append(all, strategy(name))
	}
	return append(all, libraries()...)
}
