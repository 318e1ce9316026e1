package diskroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errPassphrase says that a passphrase does not open a volume.
var errPassphrase = errors.New("the passphrase does not open it")

func (v volume) isEncrypted() bool { return v.fsType == typeLUKS }

// decrypted opens what is encrypted, if there is a passphrase for it.
func (s *stack) decrypted(ctx context.Context, volumes []volume) (list []volume) {
	if len(s.passphrase) == 0 {
		return nil
	}
	for _, v := range volumes {
		if !v.isEncrypted() || ctx.Err() != nil {
			continue
		}
		opened, err := s.decrypt(ctx, v)
		if err != nil {
			s.failures = append(s.failures, fmt.Errorf("%s: %w", v, err))
			continue
		}
		list = append(list, opened)
	}
	return list
}

// wrongPassphrase is an error when a passphrase was given and opened nothing: what else there is may
// be another Linux than the one that was meant.
func (s *stack) wrongPassphrase() error {
	opened := false
	for _, v := range s.volumes {
		opened = opened || v.luks != ""
	}
	if len(s.passphrase) == 0 || opened {
		return nil
	}
	return errors.Join(s.failures...)
}

// decrypt has cryptsetup open a volume. A file of a passphrase mostly ends with a newline that is none of it.
func (s *stack) decrypt(ctx context.Context, v volume) (volume, error) {
	device, err := s.disk.device(v)
	if err != nil {
		return volume{}, err
	}
	name := s.mapping()
	err = s.unlock(ctx, device, name, bytes.TrimSuffix(bytes.TrimSuffix(s.passphrase, []byte("\n")), []byte("\r")))
	if errors.Is(err, errPassphrase) && bytes.HasSuffix(s.passphrase, []byte("\n")) {
		err = s.unlock(ctx, device, name, s.passphrase)
	}
	if err != nil {
		return volume{}, err
	}
	f, err := s.opens(ctx, name)
	if err != nil {
		return volume{}, err
	}
	inside, err := wholeOf(f)
	inside.name, inside.number, inside.luks = v.ref(), v.number, v.uuid
	return inside, err
}

func (s *stack) unlock(ctx context.Context, device, name string, key []byte) error {
	const wrong = 2 // cryptsetup(8): no permission
	file, err := inMemoryOf(key)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = s.run(ctx, []*os.File{file}, "cryptsetup", "open", "--type", "luks", "--readonly", "--batch-mode", "--key-file", "/dev/fd/3", device, name)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == wrong {
		return errPassphrase
	}
	if err != nil {
		return explainTool(err, "cryptsetup", "cryptsetup-bin")
	}
	return nil
}

// holders are the devices of the device mapper that lie on another device.
func holders(f *os.File) (names []string) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil
	}
	list, _ := filepath.Glob(fmt.Sprintf("/sys/dev/block/%d:%d/holders/*/dm/name", unix.Major(st.Rdev), unix.Minor(st.Rdev))) // the pattern is right
	for _, file := range list {
		if name, err := os.ReadFile(file); err == nil {
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	return names
}
