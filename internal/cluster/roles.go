package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"

	"viver.lan/internal/roles"
)

// The encoding of what a machine can do and which roles it holds: MiB of memory,
// processors, a bit for each feature; then how many roles it holds, and each one's name
// after its length.
const (
	abilityFixed = 4 + 2 + 2 + 1
	memoryUnit   = 1 << 20
	maxMemory    = 1<<32*memoryUnit - 1 // bytes
	maxCPUs      = 1<<16 - 1
)

// checkAbility is the part of check for what follows the names in Meta's encoding.
func (m Meta) checkAbility() error {
	switch {
	case m.Memory > maxMemory || m.CPUs < 0 || m.CPUs > maxCPUs:
		return fmt.Errorf("%d bytes of memory and %d processors: want up to %d and %d", m.Memory, m.CPUs, uint64(maxMemory), maxCPUs)
	case len(m.Claims) > 0 && !m.TakesRoles:
		return fmt.Errorf("the role %s on a machine that takes none", m.Claims[0])
	}
	for _, f := range m.Features {
		if err := roles.CheckFeature(f); err != nil {
			return err
		}
	}
	return roles.CheckClaims(m.Claims)
}

// appendAbility appends its encoding.
func (m Meta) appendAbility(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(m.Memory/memoryUnit))
	b = binary.BigEndian.AppendUint16(b, uint16(m.CPUs))
	var bits uint16
	for i, f := range roles.Features() {
		if slices.Contains(m.Features, f) {
			bits |= 1 << i
		}
	}
	b = binary.BigEndian.AppendUint16(b, bits)
	b = append(b, byte(len(m.Claims)))
	for _, name := range m.Claims {
		text := name.String()
		b = append(append(b, byte(len(text))), text...)
	}
	return b
}

// parseAbility reads what appendAbility wrote and returns what follows. An earlier
// version wrote nothing. Bits of features that a later one has are ignored.
func (m *Meta) parseAbility(b []byte) (rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < abilityFixed {
		return nil, errMeta
	}
	m.Memory = uint64(binary.BigEndian.Uint32(b)) * memoryUnit
	m.CPUs = int(binary.BigEndian.Uint16(b[4:]))
	bits := binary.BigEndian.Uint16(b[6:])
	for i, f := range roles.Features() {
		if bits&(1<<i) != 0 {
			m.Features = append(m.Features, f)
		}
	}
	claims := int(b[8])
	b = b[abilityFixed:]
	for range claims {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return nil, errMeta
		}
		end := 1 + int(b[0])
		name, err := roles.ParseName(string(b[1:end]))
		if err != nil {
			return nil, errMeta
		}
		m.Claims, b = append(m.Claims, name), b[end:]
	}
	return b, nil
}
