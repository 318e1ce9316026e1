// Package netconf brings a machine onto its boot network and keeps it there.
//
// It finds the network cards, asks for an address by DHCP (or takes one by
// itself on an empty network), and guards that address for the life of the
// machine, because the root disk is reached through it. It is not a general
// network manager: it knows one link, IPv4, and one address. The invariant:
// from Connect to the last unmount the boot link is up and carries an address
// that we still believe in; a new address is added before an old one goes.
//
// # What a VIVER boot host must do
//
// A client speaks DHCP with vendor class (option 60) dhcp.NodeClass and client
// identifier (option 61) 01 followed by its MAC. A VIVER boot host puts option
// OptionMark (224, private use by RFC 3942) with the text Mark into every
// answer, to firmware too. By that mark a machine with a medium tells a VIVER
// boot host from a foreign DHCP server.
package netconf
