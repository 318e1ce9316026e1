// Package scenarios holds the tests that boot machines, one file per scenario.
//
// Each draws its network, declares its machines and waits for typed events.
// The machines, networks and media come from package harness; what boots are
// the images that build.sh has made. The tiny image is used wherever the
// booted Linux is not the point.
package scenarios
