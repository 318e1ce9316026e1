package hardware

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"viver.lan/internal/ether"
)

// ID returns the machine's identity in the form of machine-id(5): 32 lower-case
// hexadecimal digits, a UUID of version 4. It is made of the UUID in SMBIOS and
// the address of the boot NIC, so it is the same at every boot, whatever is
// booted. Neither is enough alone: makers ship whole series of boards with one
// UUID, and a USB adapter takes its address from machine to machine. It is a
// hash, because neither is to be read off it (machine-id(5) wants it kept to the
// machine). "" means that the boot NIC is not known.
func (m Machine) ID(mac ether.MAC) string {
	if mac == (ether.MAC{}) {
		return ""
	}
	hash := hmac.New(sha256.New, []byte("VIVER machine-id"))
	hash.Write([]byte("uuid " + strings.ToLower(m.UUID) + " mac " + mac.String()))
	id := hash.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // the variant of RFC 9562
	return hex.EncodeToString(id)
}
