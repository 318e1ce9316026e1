// Package hardware finds out what the machine is made of and gives each device
// its driver: kernel modules by modalias, devices that arrive late, and a
// description of the machine for people and for runes.
//
// It does what udev and kmod do in a distribution's initramfs, in one process:
// it reads depmod's text files, resolves aliases, dependencies and soft
// dependencies, and hands modules to the kernel. It removes nothing and writes
// nothing outside the kernel. The one invariant: a device or module that
// cannot be handled is an error in a report, and never ends the boot.
package hardware
