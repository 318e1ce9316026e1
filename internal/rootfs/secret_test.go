package rootfs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// wireGuard is what wg genkey writes.
const wireGuard = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

func TestIsPrivateKey(t *testing.T) {
	for text, want := range map[string]bool{
		"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n":                                                          true,
		"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\r\n-----BEGIN ENCRYPTED PRIVATE KEY-----\r\n": true,
		"-----BEGIN PRIVATE KEY-----":                                                                              true,
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\n":                                                                  true,
		"-----BEGIN CERTIFICATE-----\nMII\n":                                                                       false,
		"-----BEGIN PUBLIC KEY-----\n":                                                                             false,
		"a text about -----BEGIN PRIVATE KEY-----\n":                                                               false,
		"# created\nAGE-SECRET-KEY-1QQ\n":                                                                          true,
		"PuTTY-User-Key-File-3: ssh-ed25519\n":                                                                     true,
		"[WireGuard]\nPrivateKey=" + wireGuard + "\n":                                                              true,
		"[Interface]\r\n  PrivateKey = " + wireGuard + "\r\n":                                                      true,
		"[Interface]\nprivatekey\t= " + wireGuard + " # mine\n":                                                    true,
		"[WireGuard]\nPrivateKey=\nPrivateKey=abc=\n":                                                              false,
		"[Peer]\nPublicKey = " + wireGuard + "\n":                                                                  false,
		"[tls]\nPrivateKey=/etc/app/key.pem\nPrivateKey = /etc/application/keys/of/this/machine/private/key.pem\n": false,
		`{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----\n"}`: true,
		`{"key":"-----BEGIN RSA PRIVATE KEY-----\r\nMIIEvQIBADAN"}`:                                                            true,
		`pem := "-----BEGIN PRIVATE KEY-----\n" + body`:                                                                        false,
		`{"certificate": "-----BEGIN CERTIFICATE-----\nMIIEvQIBADAN"}`:                                                         false,
		"\ufeff-----BEGIN PRIVATE KEY-----\r\nMII\r\n":                                                                         true,
		"": false,
	} {
		if got := isPrivateKey([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestPasswords(t *testing.T) {
	got := passwords([]byte("root:$y$j9T$a$b:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nanna:!$6$a$b:1::::::\nbert:!:1::::::\ncarl:!!:1::::::\ndora::1:0:99999:7:::\neve:!*:1::::::\n#no\nbroken\n"))
	want := []string{"the password hash of root", "the password hash of anna (locked)", "dora has an empty password"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := passwords([]byte("root:*::\nsudo:!::anna\nlab:$6$a$b::\nempty:::\n")); !slices.Equal(got, []string{"the password hash of lab"}) {
		t.Errorf("of gshadow: %q", got)
	}
}

func TestSecretsIn(t *testing.T) {
	for text, want := range map[string]string{
		"network:\n  wifis:\n    wlan0:\n      access-points:\n        lab: {password: \"geheim\"}\n": "password",
		"iface wlan0 inet dhcp\n  wpa-ssid lab\n  wpa-psk 0123\n":                                     "psk",
		"# password: no\niface lo inet loopback\n":                                                    "",
		"//srv/x /x cifs user=a,password=b 0 0\n":                                                     "password",
		"bindpw secret\nPASSWORD =\n":                                                                 "bindpw",
	} {
		if got := strings.Join(secretsIn("etc/x", []byte(text)), ","); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestSecrets builds a tree with one secret of each kind.
func TestSecrets(t *testing.T) {
	const key = "-----BEGIN RSA PRIVATE KEY-----\nMII\n"
	root := testlinux.Write(t, []testlinux.File{
		{Name: "etc/shadow", Data: "root:$y$j9T$a$b:19000:0:99999:7:::\n", Mode: 0o640},
		{Name: "etc/nginx/site.key", Data: key}, {Name: "home/anna/keys/lab", Data: key}, {Name: "srv/kept.key", Data: key},
		{Name: "usr/lib/python3/test/keycert.pem", Data: key}, {Name: "usr/local/etc/own.pem", Data: key},
		{Name: "srv/long.pem", Data: key + strings.Repeat("# a comment\n", maxSecret)}, {Name: "srv/late", Data: strings.Repeat("# a comment\n", maxSecret) + key},
		{Name: "etc/ssl/certs/ca.pem", Data: "-----BEGIN CERTIFICATE-----\n"}, {Name: "etc/netplan/wlan.yaml", Data: "  password: x\n"},
	})
	tree, err := imagetree.Scan(t.Context(), root, &exclude.Choice{Keep: []string{"srv/kept.key"}})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var names []string
	for _, m := range streamed(t, tree) {
		if f := strings.Split(m, "|"); f[1] == "0" {
			names = append(names, f[0])
		}
	}
	slices.Sort(names)
	want := []string{"etc/netplan/wlan.yaml", "etc/shadow", "etc/ssl/certs/ca.pem", "srv/kept.key", "srv/late", "usr/lib/python3/test/keycert.pem"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	for name, hint := range map[string]string{
		"etc/shadow": "--exclude leaves it out", "etc/netplan": "--exclude leaves it out", "etc/nginx/site.key": "--keep brings it", "usr/local/etc/own.pem": "--keep brings it", "home/anna/keys": "--keep brings it",
		"srv/kept.key": "--exclude leaves it out",
	} {
		if d := tree.Report.About(name).Differences; len(d) != 1 || d[0].Hint != hint {
			t.Errorf("of %s: %+v", name, d)
		}
	}
}

// TestKeepWithinExclude builds what docs/images.md has as an example, from a directory and
// an archive.
func TestKeepWithinExclude(t *testing.T) {
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n"
	root := testlinux.Write(t, []testlinux.File{
		{Name: "home/anna/text", Data: "hers"}, {Name: "home/guest/text", Data: "his"}, {Name: "home/guest/keys/lab", Data: key},
		{Name: "home/guest/.ssh/id_ed25519", Data: key}, {Name: "home/guest/.gnupg/private-keys-v1.d/a.key", Data: "binary"}, {Name: "home/guest/.netrc", Data: "password x"},
	})
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
	for _, c := range []struct{ keep, want, secret []string }{
		{[]string{"/home/guest"}, []string{"home/guest/text"}, nil},
		{[]string{"/home/guest", "/home/guest/.ssh/id_*", "/home/guest/.gnupg", "/home/guest/keys/lab"},
			[]string{"home/guest/.gnupg/private-keys-v1.d/a.key", "home/guest/.ssh/id_ed25519", "home/guest/keys/lab", "home/guest/text"},
			[]string{"home/guest/.gnupg", "home/guest/.ssh/id_ed25519", "home/guest/keys/lab"}},
	} {
		for _, source := range []string{root, archive} {
			tree, err := imagetree.Scan(t.Context(), source, &exclude.Choice{Exclude: []string{"/home"}, Keep: c.keep})
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			var names, secret []string
			for _, m := range streamed(t, tree) {
				if f := strings.Split(m, "|"); f[1] == "0" {
					names = append(names, f[0])
				}
			}
			for _, d := range tree.Report.Differences {
				for _, f := range d.Files {
					if d.Reason == imagetree.Secret {
						secret = append(secret, f.Name)
					}
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, c.want) || !slices.Equal(secret, c.secret) {
				t.Errorf("--keep %q, %s: got %q, secret %q", c.keep, filepath.Base(source), names, secret)
			}
		}
	}
}

func FuzzSecrets(f *testing.F) {
	f.Add([]byte("PrivateKey = " + wireGuard))
	f.Add([]byte("root:!$6$:1:\n-----BEGIN PRIVATE KEY-----\npassword: x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		isPrivateKey(text)
		secretsIn("etc/shadow", text)
		secretsIn("etc/fstab", text)
	})
}
