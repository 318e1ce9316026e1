// Package disks searches the disks of the machine: which is the boot medium, and
// which was prepared, by a folder of the right name, to hold data of a node.
//
// It is not a volume manager: members of RAID, LVM and encrypted containers are
// ignored. The one invariant: nothing is written to a disk before its
// folder was found, and the search itself changes no bit; what cannot be used is reported, and
// the node works in memory.
package disks
