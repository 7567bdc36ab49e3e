//go:build !race

package dbtest

const (
	slowdown = 1
	stretch  = 1
)
