package boothost

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tftpClients are other people's TFTP clients, each with the words that make it
// fetch NAME into the file "got".
var tftpClients = map[string]string{
	"curl":                  "curl -sf -o got tftp://" + selfIP + "/NAME",
	"curl, large blocks":    "curl -sf --tftp-blksize 60000 -o got tftp://" + selfIP + "/NAME",
	"curl, no options":      "curl -sf --tftp-no-options -o got tftp://" + selfIP + "/NAME",
	"tftp-hpa":              "tftp -m binary " + selfIP + " -c get NAME got",
	"tftp-hpa, as text":     "tftp " + selfIP + " -c get NAME got", // and back again, at its end
	"busybox":               "busybox tftp -g -l got -r NAME " + selfIP,
	"busybox, large blocks": "busybox tftp -g -b 1468 -l got -r NAME " + selfIP,
	"atftp":                 "atftp --get --tftp-timeout 1 -l got -r NAME " + selfIP,
	"atftp, windows of 4":   "atftp --get --tftp-timeout 1 --option \"windowsize 4\" -l got -r NAME " + selfIP,
	"atftp, windows of 64":  "atftp --get --tftp-timeout 1 --option \"windowsize 64\" --option \"blksize 1428\" -l got -r NAME " + selfIP,
	"atftp, all options":    "atftp --get --tftp-timeout 1 --option \"windowsize 8\" --option \"blksize 1024\" --option \"timeout 1\" --option \"tsize\" -l got -r NAME " + selfIP,
	"atftp, small blocks":   "atftp --get --tftp-timeout 1 --option \"windowsize 16\" --option \"blksize 128\" -l got -r NAME " + selfIP,
}

// fetch lets a client fetch a file and compares it.
func (b *bench) fetch(client, name string, want []byte) {
	b.t.Helper()
	words := strings.ReplaceAll(tftpClients[client], "NAME", name)
	out, err := b.tryAt("sh", "-c", words)
	got, _ := os.ReadFile(filepath.Join(b.dir, "got"))
	if err != nil || !bytes.Equal(got, want) {
		b.t.Errorf("%s: %s: got %d bytes, want %d, or others; %v\n%s", client, name, len(got), len(want), err, out)
	}
	_ = os.Remove(filepath.Join(b.dir, "got"))
}

// TestNetnsOtherClientsFetchByTFTP lets other people's clients fetch files by all
// that they can ask for, and then again through a link that loses packets in both
// directions.
func TestNetnsOtherClientsFetchByTFTP(t *testing.T) {
	if !inNetns(t, "curl", "tftp", "busybox", "atftp", "nft") {
		return
	}
	b := newBench(t, nil)
	b.at("ip", "addr", "add", "10.77.0.50/16", "dev", "pc")
	grub := b.image.files["boot/grubx64.efi"]
	for client := range tftpClients {
		b.fetch(client, "grubx64.efi", grub)
		b.fetch(client, "shimx64.efi", b.image.files["boot/shimx64.efi"])
	}
	b.at("nft", "add table ip test { counter acks {}; chain out { type filter hook output priority 0; udp dport > 1023 counter name acks; }; }")
	b.fetch("atftp", "grubx64.efi", grub)
	lockstep := b.acks()
	b.fetch("atftp, windows of 4", "grubx64.efi", grub)
	windows := b.acks()
	if blocks := len(grub)/512 + 1; lockstep < blocks || windows < blocks/4 || windows >= blocks {
		t.Errorf("%d blocks: %d confirmations one by one, %d with windows of 4", blocks, lockstep, windows)
	}
	lossy := "add table ip lossy { chain in { type filter hook input priority 0; meta l4proto udp numgen random mod 100 < 1 counter drop; }; }"
	b.at("nft", lossy)
	b.run("nft", lossy)
	for client := range tftpClients {
		b.fetch(client, "undionly.kpxe", b.image.files["boot/undionly.kpxe"])
	}
	for _, rules := range []string{b.at("nft", "list", "table", "ip", "lossy"), b.run("nft", "list", "table", "ip", "lossy")} {
		if !regexp.MustCompile(`counter packets [1-9]`).MatchString(rules) {
			t.Errorf("nothing was lost:\n%s", rules)
		}
	}
}

// acks returns how many packets the client has sent to transfers since it was last
// asked.
func (b *bench) acks() int {
	b.t.Helper()
	rules := b.at("nft", "reset", "counter", "ip", "test", "acks")
	found := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(rules)
	if found == nil {
		b.t.Fatalf("no counter:\n%s", rules)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}
