package mountinfo

import (
	"reflect"
	"testing"
)

func TestParseTable(t *testing.T) {
	got := ParseTable([]byte(`# what the tree says
UUID=1	/	ext4 noatime,errors=remount-ro 0 1

LABEL=a\040b /home\040x xfs
/dev/sdb1 /short
tmpfs /tmp tmpfs defaults`))
	want := []Line{
		{"UUID=1", "/", "ext4", []string{"noatime", "errors=remount-ro"}},
		{"LABEL=a b", "/home x", "xfs", nil},
		{"tmpfs", "/tmp", "tmpfs", []string{"defaults"}},
	}
	if !reflect.DeepEqual(got, want) || !got[0].Has("noatime") || got[0].Has("noauto") {
		t.Errorf("got %+v", got)
	}
}
