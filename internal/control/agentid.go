package control

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// AgentExists reports whether processes of AgentID can be there: in a container without
// root's help there may be one user only (user_namespaces(7)). Where the kernel does not
// say, they can.
func AgentExists() bool {
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		if text, err := os.ReadFile(file); err == nil && !mapped(string(text), AgentID) {
			return false
		}
	}
	return true
}

// mapped reports whether an ID lies in a range of a map: lines of its first ID inside, its
// first outside and its length.
func mapped(text string, id uint64) bool {
	for r := strings.NewReader(text); ; {
		var inside, outside, length uint64
		if _, err := fmt.Fscan(r, &inside, &outside, &length); err != nil {
			return err != io.EOF // the kernel writes nothing else
		}
		if id >= inside && id-inside < length {
			return true
		}
	}
}
