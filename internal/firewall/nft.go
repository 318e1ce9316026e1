package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Chains of ours, one of each in every table that needs it. A rule at the top of
// the table's own chains leads there.
const (
	chainIn  = "viver-in"
	chainOut = "viver-out"
)

// firewalldPolicy is a chain that firewalld makes of the policy that the rune
// "firewalld" gives it. Its tables may be closed to all others.
const firewalldPolicy = "filter_IN_policy_viver"

// nft is the kernel's nftables, which iptables-nft, ufw and firewalld use too.
type nft struct {
	in, out []pass
	filled  map[string]bool // chains of ours that this one has filled, by ownKey
}

func newNFT(in, out []pass) ruleset {
	return &nft{in: in, out: out, filled: make(map[string]bool)}
}

// hooked is a chain at which the kernel asks what to do with packets.
type hooked struct {
	*nftables.Chain
	owned bool // its table belongs to one process, nobody else may change it
}

func (c hooked) String() string {
	return fmt.Sprintf("%s %s %s", familyName(c.Table.Family), c.Table.Name, c.Name)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}

// own returns the chain of ours that a chain needs, and what it lets pass.
func (n *nft) own(c *nftables.Chain) (name string, list []pass) {
	hook := *c.Hooknum
	if c.Table.Family == nftables.TableFamilyNetdev {
		switch hook {
		case *nftables.ChainHookIngress:
			return chainIn, n.in
		case *nftables.ChainHookEgress:
			return chainOut, n.out
		}
		return "", nil
	}
	switch hook {
	case *nftables.ChainHookPrerouting, *nftables.ChainHookInput:
		return chainIn, n.in
	case *nftables.ChainHookOutput, *nftables.ChainHookPostrouting:
		return chainOut, n.out
	}
	return "", nil
}

// open implements ruleset.
func (n *nft) open() (r Report, changed []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return r, nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, own, err := listChains(conn)
	if err != nil {
		return r, nil, err
	}
	for _, c := range chains {
		name, list := n.own(c.Chain)
		if name == "" {
			continue
		}
		done, needed, err := n.openChain(conn, c, name, list, own)
		switch {
		case err != nil && own[ownKey(c.Table, firewalldPolicy)]:
			r.Open = append(r.Open, c.String()+" (by firewalld's policy viver)")
		case err != nil && c.owned:
			r.Problems = append(r.Problems, fmt.Sprintf("%s belongs to the program that made it; tell that to open VIVER's ports", c))
		case err != nil:
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %v", c, err))
		case needed:
			r.Open = append(r.Open, c.String())
		}
		if done {
			changed = append(changed, c.String())
		}
	}
	return r, changed, nil
}

// listChains returns the chains that may drop packets for this machine, and which
// chains exist that are for VIVER.
func listChains(conn *nftables.Conn) (list []hooked, own map[string]bool, err error) {
	tables, err := conn.ListTables()
	if err != nil {
		return nil, nil, fmt.Errorf("list nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, nil, fmt.Errorf("list chains of nftables: %w", err)
	}
	own = make(map[string]bool)
	for _, c := range chains {
		if c.Name == chainIn || c.Name == chainOut || c.Name == firewalldPolicy {
			own[ownKey(c.Table, c.Name)] = true
		}
		switch c.Table.Family {
		case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet, nftables.TableFamilyNetdev:
		default:
			continue
		}
		if c.Hooknum == nil || c.Type != nftables.ChainTypeFilter && c.Type != nftables.ChainTypeRoute {
			continue
		}
		const flagOwner = 2 // NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h
		owned := slices.ContainsFunc(tables, func(t *nftables.Table) bool {
			return t.Name == c.Table.Name && t.Family == c.Table.Family && t.Flags&flagOwner != 0
		})
		list = append(list, hooked{c, owned})
	}
	return list, own, nil
}

func ownKey(t *nftables.Table, chain string) string {
	return fmt.Sprintf("%d %s %s", t.Family, t.Name, chain)
}

// openChain makes the chain, if it can drop anything, jump to ours first.
func (n *nft) openChain(conn *nftables.Conn, c hooked, name string, list []pass, own map[string]bool) (done, needed bool, err error) {
	rules, err := dumpRules(c.Table, c.Name)
	if err != nil {
		return false, false, err
	}
	foreign := slices.ContainsFunc(rules, func(r rule) bool { return r.jumps != name })
	if drops := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop; !foreign && !drops {
		return false, false, nil
	}
	want := rulesOf(list, c.Table, iptablesMade(c.Chain))
	if len(want) == 0 {
		return false, false, nil // a table for another protocol
	}
	key := ownKey(c.Table, name)
	if own[key] && n.filled[key] && len(rules) > 0 && rules[0].jumps == name {
		content, err := dumpRules(c.Table, name)
		if err != nil {
			return false, true, err
		}
		if len(content) == len(want) {
			return false, true, nil
		}
	}
	ours := conn.AddChain(&nftables.Chain{Name: name, Table: c.Table})
	conn.FlushChain(ours)
	for _, exprs := range want {
		conn.AddRule(&nftables.Rule{Table: c.Table, Chain: ours, Exprs: exprs})
	}
	for _, r := range rules {
		if r.jumps == name {
			if err := conn.DelRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Handle: r.handle}); err != nil {
				return false, true, err
			}
		}
	}
	conn.InsertRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Exprs: jumpTo(name)})
	if err := conn.Flush(); err != nil {
		return false, true, err
	}
	own[key], n.filled[key] = true, true
	return true, true, nil
}

// rule is what has to be known of a rule of anybody.
type rule struct {
	handle uint64
	jumps  string // the chain that it leads to without a condition, "" for none
}

// dumpRules lists the rules of a chain. It reads no more of them than it has to: they
// may hold anything.
func dumpRules(table *nftables.Table, chain string) ([]rule, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("list rules of %s %s: %w", table.Name, chain, err)
	}
	defer conn.Close()
	filter, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, filter...),
	})
	if err != nil {
		return nil, fmt.Errorf("list rules of %s %s: %w", table.Name, chain, err)
	}
	var rules []rule
	for _, m := range answers {
		r, in, err := parseRule(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list rules of %s %s: %w", table.Name, chain, err)
		}
		if in == chain { // old kernels list all
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// parseRule reads the kernel's message about a rule and returns the chain that it
// is in too.
func parseRule(message []byte) (r rule, chain string, err error) {
	const header = 4 // struct nfgenmsg
	if len(message) < header {
		return r, "", errors.New("a message about a rule is too short")
	}
	ad, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return r, "", err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_HANDLE:
			r.handle = ad.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				r.jumps = parseJump(list)
				return nil
			})
		}
	}
	return r, chain, ad.Err()
}

// parseJump returns where a rule leads that does nothing but count and jump.
func parseJump(list *netlink.AttributeDecoder) (to string) {
	for list.Next() {
		var kind, chain string
		list.Nested(func(e *netlink.AttributeDecoder) error {
			for e.Next() {
				switch {
				case e.Type() == unix.NFTA_EXPR_NAME: // it comes first
					kind = e.String()
				case e.Type() == unix.NFTA_EXPR_DATA && kind == "immediate":
					chain = find(e, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN)
				}
			}
			return nil
		})
		switch kind {
		case "counter":
		case "immediate":
			to = chain
		default:
			return "" // there is a condition
		}
	}
	return to
}

// find returns the text at a path of nested attributes, "" when there is none.
func find(at *netlink.AttributeDecoder, path ...uint16) (text string) {
	at.Nested(func(in *netlink.AttributeDecoder) error {
		for in.Next() {
			switch {
			case in.Type() != path[0]:
			case len(path) == 1:
				text = in.String()
			default:
				text = find(in, path[1:]...)
			}
		}
		return nil
	})
	return text
}
