package bootwork

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// checkUsers is for systemd-sysusers.service: the users and groups of sysusers.d(5)
// are in /etc/passwd and /etc/group.
func checkUsers(tree fs.FS) error {
	users, groups := accounts(tree, "etc/passwd"), accounts(tree, "etc/group")
	texts := sysusers(tree)
	for _, name := range slices.Sorted(maps.Keys(texts)) { // always the same reason
		for line := range strings.Lines(texts[name]) {
			if missing := missingAccount(line, users, groups); missing != "" {
				return fmt.Errorf("there is no %s of /%s", missing, name)
			}
		}
	}
	return nil
}

// accounts reads passwd(5) or group(5): names, each with its last field.
func accounts(tree fs.FS, name string) map[string]string {
	data, _ := fs.ReadFile(tree, name) // without it there is nobody
	found := map[string]string{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		found[fields[0]] = fields[len(fields)-1]
	}
	return found
}

// sysusers returns the files of sysusers.d(5), by name. One of the administrator's
// takes the place of the distribution's of the same name.
func sysusers(tree fs.FS) map[string]string {
	texts := map[string]string{}
	var seen []string
	for _, dir := range []string{"etc/sysusers.d", "usr/local/lib/sysusers.d", "usr/lib/sysusers.d"} {
		entries, _ := fs.ReadDir(tree, dir) // a tree need not have all of them
		for _, e := range entries {
			if path.Ext(e.Name()) != ".conf" || slices.Contains(seen, e.Name()) {
				continue
			}
			seen = append(seen, e.Name())
			text, _ := fs.ReadFile(tree, path.Join(dir, e.Name())) // a link to /dev/null takes it away
			texts[path.Join(dir, e.Name())] = string(text)
		}
	}
	return texts
}

// missingAccount says what a line of sysusers.d(5) asks for that does not exist. Lines
// of a kind that is not known here, or with a specifier, ask for something.
func missingAccount(line string, users, groups map[string]string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
		return ""
	}
	_, isUser := users[fields[1]]
	_, isGroup := groups[fields[1]]
	switch kind := strings.TrimRight(fields[0], "!"); kind {
	case "u":
		// With an ID like 4:65534 it has the group of another name.
		if !isUser || !isGroup && !(len(fields) > 2 && strings.Contains(fields[2], ":")) {
			return "user " + fields[1]
		}
	case "g":
		if !isGroup {
			return "group " + fields[1]
		}
	case "m":
		if len(fields) > 2 && !slices.Contains(strings.Split(groups[fields[2]], ","), fields[1]) {
			return fmt.Sprintf("member %s of group %s", fields[1], fields[2])
		}
	case "r":
	default:
		return "line " + strings.TrimSpace(line)
	}
	return ""
}
