package boothost

import (
	"bytes"
	"io/fs"
	"path"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"

	"viver.lan/internal/dhcp"
)

// externalDir holds what an administrator has to set in a DHCP server that
// names the boot programs itself, one file for each kind of server.
const externalDir = "external"

// externalValues fills the files in assets/external.
type externalValues struct {
	Address   string // of this host
	Script    string // for iPXE
	BIOS, X64 string // boot programs by TFTP
	URL       string // boot program for UEFI HTTP Boot
}

// externals makes those files, by name.
func externals(address, script string, programs map[dhcp.Platform]dhcp.Program) (map[string][]byte, error) {
	values := externalValues{Address: address, Script: script,
		BIOS: programs[dhcp.BIOS].TFTP, X64: programs[dhcp.X64].TFTP, URL: programs[dhcp.X64].URL}
	templates, err := template.ParseFS(assets, "assets/external/*.tmpl")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(assets, "assets/external/*.tmpl")
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte, len(names))
	for _, name := range names {
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, path.Base(name), values); err != nil {
			return nil, err
		}
		files[path.Join(externalDir, strings.TrimSuffix(path.Base(name), ".tmpl"))] = text.Bytes()
	}
	return files, nil
}
