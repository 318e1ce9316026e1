package imagesource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// docker save's own form: what is said there is a stranger's word, too.
func TestBadDockerArchives(t *testing.T) {
	plain := []byte(testlinux.Run(t, "tar", "-C", testlinux.Write(t, []testlinux.File{{Name: "f", Data: "1"}}), "-c", "f"))
	id := fmt.Sprintf("sha256:%x", sha256.Sum256(plain))
	layer := strings.Repeat("a", 64) + "/layer.tar"
	for name, c := range map[string]struct{ manifest, config, want string }{
		"whole":              {"", "", ""},
		"leads out":          {`[{"Config":"c","Layers":["../../../../../etc/passwd"]}]`, "", "layer 1 (../../../../../etc/passwd) is not there"},
		"config leads out":   {`[{"Config":"/etc/passwd","Layers":[]}]`, "", "\"/etc/passwd\" is not named by its digest"},
		"config missing":     {`[{"Config":"` + strings.Repeat("0", 64) + `.json","Layers":[]}]`, "", "is not there"},
		"for another":        {"", `{"os":"linux","architecture":"arm64"}`, "its images are for linux/arm64, and nodes are linux/amd64"},
		"no list":            {`{}`, "", "cannot unmarshal"},
		"another layer":      {"", `{"rootfs":{"diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`, "it is damaged"},
		"no digest of layer": {"", `{"rootfs":{"diff_ids":["sha256:../x"]}}`, "is no digest of a layer"},
	} {
		config := []byte(cmp.Or(c.config, `{"rootfs":{"diff_ids":["`+id+`"]}}`))
		named := fmt.Sprintf("%x.json", sha256.Sum256(config))
		l := layout{
			dockerFile: []byte(strings.ReplaceAll(cmp.Or(c.manifest, fmt.Sprintf(`[{"Config":"c","RepoTags":["lab:12"],"Layers":[%q]}]`, layer)), `"c"`, `"`+named+`"`)),
			named:      config, layer: plain,
		}
		s, err := Open(context.Background(), l.archive(t), Options{Work: t.TempDir()})
		if err == nil {
			s.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// An archive of docker save with an image for another machine has the rest, each with a config that is
// what its name says.
func TestSeveralDockerImages(t *testing.T) {
	l, images := layout{}, []map[string]any{}
	for i, arch := range []string{"arm64", "amd64", "amd64"} {
		plain := []byte(testlinux.Run(t, "tar", "-C", testlinux.Write(t, []testlinux.File{{Name: "f", Data: strconv.Itoa(i)}}), "-c", "f"))
		layer := l.add(plain)
		config := l.addJSON(t, map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"diff_ids": []string{layer.Digest}}})
		images = append(images, map[string]any{"Config": blobOf(config), "RepoTags": []string{fmt.Sprintf("lab:%d", i)}, "Layers": []string{blobOf(layer)}})
	}
	write := func() {
		data, err := json.Marshal(images)
		if err != nil {
			t.Fatal(err)
		}
		l[dockerFile] = data
	}
	write()
	if lines, kind := listing(t, l.archive(t), Options{Ref: "lab:2"}); !slices.Contains(lines, `0644 f "2"`) {
		t.Errorf("%s: %q", kind, lines)
	}
	images = images[:2] // one that fits needs no choice
	write()
	if lines, kind := listing(t, l.archive(t), Options{}); !slices.Contains(lines, `0644 f "1"`) {
		t.Errorf("%s: %q", kind, lines)
	}
	config := images[1]["Config"].(string)
	l[config] = append(l[config], ' ')
	if _, err := Open(t.Context(), l.archive(t), Options{Work: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "config: it is damaged") {
		t.Errorf("another config: %v", err)
	}
}
