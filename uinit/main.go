// Uinit is the first program of a VIVER machine: it brings the machine from
// the kernel's start to the init of the Linux it will run.
//
// What it does is the list in boot.go, from top to bottom. It is not an init
// system: once the root is there, it becomes the distribution's own init and
// only the storage daemons it started stay behind. The invariant: either the
// list reaches its end, or a person finds a sentence that says what was
// missing, a shell, and a machine that tries again by itself.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args))
}
