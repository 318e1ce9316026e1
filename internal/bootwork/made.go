package bootwork

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// checkHardware is for systemd-hwdb-update.service. The administrator's database
// hides the distribution's.
func checkHardware(tree fs.FS) error {
	sources := []string{"etc/udev/hwdb.d", "usr/lib/udev/hwdb.d", "lib/udev/hwdb.d"}
	for _, made := range []string{"etc/udev/hwdb.bin", "usr/lib/udev/hwdb.bin", "lib/udev/hwdb.bin"} {
		err := checkNewest(tree, made, ".hwdb", sources)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.New("there is no /etc/udev/hwdb.bin or /usr/lib/udev/hwdb.bin")
}

// checkCatalog is for systemd-journal-catalog-update.service.
func checkCatalog(tree fs.FS) error {
	const made = "var/lib/systemd/catalog/database"
	err := checkNewest(tree, made, ".catalog", []string{"etc/systemd/catalog", "usr/lib/systemd/catalog", "lib/systemd/catalog"})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no /%s", made)
	}
	return err
}

// checkNewest returns an error when a file is older than one of those that it is made
// of: the files with a suffix in some directories. A directory counts as well, since a
// file that was added to it may be older, and one that was taken away is gone.
func checkNewest(tree fs.FS, made, suffix string, dirs []string) error {
	result, err := fs.Stat(tree, made)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		entries, _ := fs.ReadDir(tree, dir) // a tree need not have all of them
		names := []string{dir}
		for _, e := range entries {
			if path.Ext(e.Name()) == suffix {
				names = append(names, path.Join(dir, e.Name()))
			}
		}
		for _, name := range names {
			source, err := fs.Stat(tree, name)
			if err == nil && source.ModTime().After(result.ModTime()) {
				return fmt.Errorf("/%s is older than /%s", made, name)
			}
		}
	}
	return nil
}
