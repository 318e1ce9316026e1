package hardware

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ID returns the machine's identity in the form of machine-id(5): 32 lower-case
// hexadecimal digits, a UUID of version 4. It is made of the UUID in SMBIOS, or
// of the address of the boot NIC where that UUID tells no machine from another;
// so it is the same at every boot, whatever is booted. It is a hash, because
// neither is to be read off it (machine-id(5) wants it kept to the machine). ""
// means that the machine has neither.
func (m Machine) ID(mac string) string {
	source := "uuid " + strings.ToLower(m.UUID)
	switch {
	case tellsApart(m.UUID):
	case mac != "":
		source = "mac " + strings.ToLower(mac)
	default:
		return ""
	}
	hash := hmac.New(sha256.New, []byte("VIVER machine-id"))
	hash.Write([]byte(source))
	id := hash.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // the variant of RFC 9562
	return hex.EncodeToString(id)
}

// sharedUUIDs are what makers of boards left in their firmware.
var sharedUUIDs = map[string]bool{
	"0300020004000500 0006000700080009": true, // AMI
	"0002000300040005 0006000700080009": true, // the same in the other byte order
	"0001020304050607 08090a0b0c0d0e0f": true,
	"0123456789abcdef 0123456789abcdef": true,
	"1234567812345678 90abcddeefaabbcc": true,
	"1234567812345678 1234567812345678": true,
	"4c4c454400002010 802080c04f202020": true, // Dell, without a service tag
}

// tellsApart reports whether a UUID is one machine's own.
func tellsApart(uuid string) bool {
	digits := strings.ToLower(strings.ReplaceAll(uuid, "-", ""))
	if b, err := hex.DecodeString(digits); err != nil || len(b) != 16 {
		return false
	}
	// 00…, ff…, fefe… and the like
	return strings.Trim(digits, digits[:2]) != "" && !sharedUUIDs[digits[:16]+" "+digits[16:]]
}
