package boothost

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/journal"
)

// server is another's DHCP server, that a network may have before we come. It
// gives 10.77.200.1 to 10.77.200.200.
type server struct {
	name   string
	advice string // what our page calls the text for it
	conf   string // our advice goes where ADVICE is
	ready  string // what it says when it serves
	run    []string
}

// keaSample is a boot file that the file has for everybody which Debian ships for
// Kea.
const keaSample = "EST5EDT4"

// servers are all those that the tests know, with what Debian's files for them
// set as they are shipped. LINK, CONF and DIR stand for what
// is known only when they start.
func servers() []server {
	return []server{
		{"dnsmasq", "dnsmasq.conf", `
port=0
interface=LINK
bind-interfaces
no-ping
dhcp-leasefile=DIR/leases
dhcp-range=10.77.200.1,10.77.200.200,255.255.0.0,1h
ADVICE`, "sockets bound exclusively", []string{
			"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=CONF", "--user=", "--group=", "--pid-file="}},
		{"ISC dhcpd", "dhcpd.conf", `
option domain-name "example.org";
option domain-name-servers 10.77.0.1, 10.77.0.2;
default-lease-time 600;
max-lease-time 7200;
ddns-update-style none;
authoritative;
ping-check false;
subnet 10.77.0.0 netmask 255.255.0.0 {
  range 10.77.200.1 10.77.200.200;
}
ADVICE`, "Server starting service", []string{
			"dhcpd", "-4", "-f", "-d", "-cf", "CONF", "-lf", "DIR/leases", "-pf", "DIR/pid", "LINK"}},
		{"Kea", "kea.json", `
{ "Dhcp4": {
  "interfaces-config": { "interfaces": [ "LINK" ] },
  "lease-database": { "type": "memfile", "persist": false },
  "loggers": [ { "name": "kea-dhcp4", "severity": "INFO", "output_options": [ { "output": "stderr" } ] } ],
  "option-data": [ { "name": "boot-file-name", "data": "` + keaSample + `" } ],
  "client-classes": [
ADVICE
    { "name": "voip", "test": "substring(option[60].hex,0,6) == 'Aastra'", "next-server": "192.0.2.254", "boot-file-name": "/dev/null" }
  ],
  "subnet4": [ { "id": 1, "subnet": "10.77.0.0/16", "pools": [ { "pool": "10.77.200.1-10.77.200.200" } ] } ]
} }`, "DHCP4_STARTED", []string{
			"kea-dhcp4", "-c", "CONF"}},
	}
}

// start runs the server until the test ends, in a network namespace, or in
// ours when that is "".
func (s server) start(t *testing.T, b *bench, namespace, link, advice string) {
	t.Helper()
	dir := t.TempDir()
	words := strings.NewReplacer("LINK", link, "DIR", dir, "CONF", filepath.Join(dir, "conf"), "ADVICE", advice)
	for name, text := range map[string]string{"conf": words.Replace(s.conf), "leases": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var args []string
	if namespace != "" {
		args = append([]string{"nsenter"}, in(namespace)...)
	}
	for _, word := range s.run {
		args = append(args, words.Replace(word))
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
	said := &journal.Journal{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", s.name, said)
		}
	})
	b.eventually(s.name+" to serve", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended at once: %v\n%s", s.name, err, said)
		default:
		}
		return strings.Contains(said.String(), s.ready)
	})
}
