package description

import (
	"errors"
	"io/fs"
	"reflect"
	"sync"
	"testing"

	"viver.lan/internal/manifest"
)

// All files are asked for before one has come, or this test never ends.
func TestReadAsksForAllAtOnce(t *testing.T) {
	var asked sync.WaitGroup
	asked.Add(3)
	got, err := Read(func(name string) ([]byte, error) {
		asked.Done()
		asked.Wait()
		return []byte(name), nil
	})
	want := Files{Manifest: []byte(manifest.File), Signature: []byte(manifest.Signature), Metainfo: []byte(manifest.Metainfo)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read = %+v, %v", got, err)
	}
}

// Whichever fails first, what is reported is that of the first file.
func TestReadSaysWhatIsMissing(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		fail map[string]error
		want error
	}{
		"no manifest":   {map[string]error{manifest.File: fs.ErrNotExist, manifest.Metainfo: broken}, fs.ErrNotExist},
		"no signature":  {map[string]error{manifest.Signature: fs.ErrNotExist, manifest.Metainfo: broken}, ErrNotSigned},
		"lost on a way": {map[string]error{manifest.Signature: broken}, broken},
		"no metainfo":   {map[string]error{manifest.Metainfo: broken}, broken},
	} {
		if _, err := Read(func(name string) ([]byte, error) { return nil, tt.fail[name] }); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
