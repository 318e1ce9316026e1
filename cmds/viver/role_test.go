package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
	"viver.lan/internal/sign"
)

// signedLab is a lab whose operator can set something.
type signedLab struct{ *lab }

func (l signedLab) MemberStatus() control.Status { return l.Status() }

func (l signedLab) Status() control.Status {
	s := l.lab.Status()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.ID, s.Overrides = s.Members[0].ID, l.table.Overrides()
	machines, _ := operator.Machines(s.Overrides)
	for i := range s.Members {
		s.Members[i].Labels = machines[s.Members[i].MAC].Labels
	}
	return s
}

// newSignedLab has four machines: a and b hold roles, c none yet; d is dead and held some.
func newSignedLab(t *testing.T) (l signedLab, socket, key string) {
	t.Helper()
	key = filepath.Join(t.TempDir(), "mine.key")
	secret, _, err := sign.OpenKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l = signedLab{newLab(4)}
	l.owner, l.table = secret.Public(), &operator.Table{Network: "lab"}
	held := map[int]string{0: "web/page", 1: "nfs/server web/page", 3: "nfs/server web/balancer web/page"}
	for i := range l.members {
		l.members[i].TakesRoles = true
		for _, text := range strings.Fields(held[i]) {
			name, err := roles.ParseName(text)
			if err != nil {
				t.Fatal(err)
			}
			l.members[i].Roles = append(l.members[i].Roles, name)
		}
	}
	l.members[1].Features, l.members[2].Features = []string{roles.SavedData}, []string{roles.SavedData}
	l.members[3].State = control.Dead
	return l, serve(t, l), key
}

const offers = `{"other": 1, "roles": [
	{"name": "nfs/server", "wants": "one", "needs": ["memory >= 1M"], "bound": "saved-data"},
	{"name": "web/balancer", "wants": "one", "needs": ["label front"]},
	{"name": "web/page", "wants": "others"}, {"name": "gpu/render", "wants": "all", "bound": "gpu"}]}`

func TestRoleList(t *testing.T) {
	l, socket, key := newSignedLab(t)
	file := filepath.Join(t.TempDir(), "runes.json")
	if err := os.WriteFile(file, []byte(offers), 0o600); err != nil {
		t.Fatal(err)
	}
	list := func() (rows map[string]string) {
		code, out, errs := operate(t, "", "role", "list", "--socket", socket, "--runes", file)
		if code != exitOK {
			t.Fatal(errs)
		}
		rows = map[string]string{}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			rows[f[0]] = strings.Join(f[1:], " ")
		}
		return rows
	}
	set := func(args ...string) {
		t.Helper()
		if code, _, errs := operate(t, "", append(args, "--socket", socket, "--key", key)...); code != exitOK {
			t.Fatalf("%v: %s", args, errs)
		}
	}
	expect := func(want map[string]string) {
		t.Helper()
		for name, row := range list() {
			if name != "role" && row != want[name] {
				t.Errorf("%s: %q, want %q", name, row, want[name])
			}
		}
	}
	l.mu.Lock()
	for i := range l.members {
		l.members[i].Memory = 2 << 20
	}
	l.mu.Unlock()
	rows := map[string]string{
		"nfs/server":   "one b bound to saved-data; memory >= 1M; 2 machines have saved-data: pin it to the right one",
		"web/balancer": "one - label front; no machine has what it needs",
		"web/page":     "others a b is changing", // c shall hold it, too
		"gpu/render":   "all - bound to gpu; no machine has gpu",
	}
	expect(rows)
	set("node", "label", l.members[2].MAC.String(), "front,rack-2")
	rows["web/balancer"], rows["web/page"] = "one - label front; is changing", "others a b -"
	expect(rows)
	set("role", "pin", "nfs/server", l.members[1].MAC.String())
	rows["nfs/server"] = "one b pinned to 52:00:00:00:00:01; bound to saved-data; memory >= 1M"
	expect(rows)
	set("role", "pin", "nfs/server", l.members[0].MAC.String())
	rows["nfs/server"] = "one b pinned to 52:00:00:00:00:00; bound to saved-data; memory >= 1M; none of the machines that it is pinned to is on and may hold it"
	expect(rows)
	set("role", "unpin", "nfs/server")
	set("node", "label", l.members[2].MAC.String(), "")

	code, out, errs := operate(t, "", "role", "list", "--socket", socket, "--runes", file+".absent", "-o", "json")
	var known []role
	if err := json.Unmarshal([]byte(out), &known); code != exitOK || err != nil {
		t.Fatal(errs, err)
	}
	if len(known) != 2 || known[0].Role.String() != "nfs/server" || known[0].Wants != "" || len(known[1].Holders) != 2 || known[1].Holders[1].Hostname != "b" {
		t.Errorf("without the runes %+v", known)
	}
}

func TestRolePinRefuses(t *testing.T) {
	l, socket, key := newSignedLab(t)
	many := slices.Repeat([]string{"52:54:00:00:00:01"}, maxPinned+1)
	for said, args := range map[string][]string{
		"is no role":       {"role", "pin", "nfs", many[0]},
		"is no MAC":        {"role", "pin", "nfs/server", "lab-01"},
		"can be pinned to": append([]string{"role", "pin", "nfs/server"}, many...),
		"want RUNE/ROLE":   {"role", "unpin", "nfs"},
		"is no label":      {"node", "label", many[0], "Web"},
		"at least 2 arg":   {"role", "pin", "nfs/server"},
	} {
		code, _, errs := operate(t, "", append(args, "--socket", socket, "--key", key)...)
		if code != exitUsage || !strings.Contains(errs, said) {
			t.Errorf("%v: exit code %d, %q; want %q", args, code, errs, said)
		}
	}
	if code, _, errs := operate(t, "", append([]string{"role", "pin", "nfs/server", "--socket", socket, "--key", key}, many[1:]...)...); code != exitOK {
		t.Errorf("%d machines: %s", maxPinned, errs)
	}
	if e := l.table.Overrides(); len(e) != 1 || len(e[0].Value) != maxPinned*(len(ether.MAC{})*3)-1 {
		t.Errorf("%+v", e)
	}
}

// What the list of machines shows of roles.
func TestNodeListShowsRoles(t *testing.T) {
	l, socket, key := newSignedLab(t)
	if code, _, errs := operate(t, "", "node", "label", l.members[1].MAC.String(), "web,front", "--socket", socket, "--key", key); code != exitOK {
		t.Fatal(errs)
	}
	_, out, _ := operate(t, "", "node", "list", "--socket", socket)
	lines := strings.Split(out, "\n")
	head, b, dead := strings.Fields(lines[0]), strings.Fields(lines[2]), strings.Fields(lines[4])
	if head[7] != "labels" || head[8] != "roles" || b[7] != "front,web" || b[8] != "nfs/server,web/page" || dead[8] != "-" {
		t.Errorf("the list is\n%s", out)
	}
}
