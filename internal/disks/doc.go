// Package disks looks at the disks of the machine: which of them is the boot
// medium, and which of them was prepared, by a folder of the right name, to
// hold what a node wants to keep.
//
// It is not a volume manager: members of RAID, LVM and encrypted containers are
// passed over. The one invariant: nothing is written to a disk before its
// folder was found, and the search itself leaves every bit where it was; what
// cannot be used is reported with a sentence and the node works in memory.
package disks
