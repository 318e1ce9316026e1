// Package harness boots virtual machines and talks to them, for tests, the
// demo and anyone who wants to see a network boot.
//
// A Lab holds the machines (VM) of one scenario, their networks (package lan)
// and what they leave behind: console log, events and capture. A machine is
// watched through the typed events of its programs, which arrive over
// virtio-serial ports; its console is for people and for the rescue shell. The
// agent in test images runs commands for a test.
//
// It knows QEMU and nothing about what boots there: scenarios are in the
// directory above, disks and media in package media, the story that the demo
// tells in package show.
//
// The invariant: nothing outlives its lab. QEMU has no socket in the file
// system, only descriptors it inherited, and dies with the process that
// started it, whatever ends that one.
package harness
