//go:build race

package dbtest

const (
	slowdown = 10
	stretch  = 3
)
