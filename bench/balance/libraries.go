package main

import (
	bounded "github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/dgryski/go-rendezvous"
	"github.com/kkdai/maglev"
	"github.com/lafikl/consistent"
	"github.com/serialx/hashring"
)

// libraries are as their own documentation shows them: with their default numbers, and xxHash
// where a hash is asked for.
func libraries() []contender {
	return []contender{
		library("buraksezer/consistent", func(servers []string) func(string) string {
			return buraksezer(servers, bounded.DefaultPartitionCount)
		}),
		library("buraksezer/consistent, 4096 partitions", func(servers []string) func(string) string {
			return buraksezer(servers, slots)
		}),
		library("serialx/hashring", func(servers []string) func(string) string {
			ring := hashring.New(servers)
			return func(job string) string {
				server, _ := ring.GetNode(job)
				return server
			}
		}),
		library("lafikl/consistent", func(servers []string) func(string) string {
			ring := lafikl(servers)
			return func(job string) string { return must(ring.Get(job)) }
		}),
		library("lafikl/consistent, bounded loads", func(servers []string) func(string) string {
			ring := lafikl(servers)
			return func(job string) string {
				server := must(ring.GetLeast(job))
				ring.Inc(server)
				return server
			}
		}),
		library("dgryski/go-rendezvous", func(servers []string) func(string) string {
			return rendezvous.New(servers, xxhash.Sum64String).Lookup
		}),
		library("dgryski/go-jump", func(servers []string) func(string) string {
			return func(job string) string { return servers[jump.Hash(xxhash.Sum64String(job), len(servers))] }
		}),
		library("kkdai/maglev", func(servers []string) func(string) string {
			table := must(maglev.NewMaglev(servers, 65537))
			return func(job string) string { return must(table.Get(job)) }
		}),
	}
}

func lafikl(servers []string) *consistent.Consistent {
	ring := consistent.New()
	for _, s := range servers {
		ring.Add(s)
	}
	return ring
}

type server string

func (s server) String() string { return string(s) }

type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

func buraksezer(servers []string, partitions int) func(string) string {
	var members []bounded.Member
	for _, s := range servers {
		members = append(members, server(s))
	}
	ring := bounded.New(members, bounded.Config{
		PartitionCount: partitions, ReplicationFactor: bounded.DefaultReplicationFactor, Load: bounded.DefaultLoad, Hasher: hasher{},
	})
	return func(job string) string { return ring.LocateKey([]byte(job)).String() }
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
