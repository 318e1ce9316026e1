package imagesource

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// layout is an OCI layout in the making: its files.
type layout map[string][]byte

func (l layout) add(data []byte) descriptor {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	d := descriptor{Digest: digest, Size: int64(len(data))}
	l[blobOf(d)] = data
	return d
}

func blobOf(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func (l layout) addJSON(t *testing.T, v any) descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return l.add(data)
}

// image adds an image of gzip-compressed layers, each a shell command in the directory that
// is to be its content.
func (l layout) image(t *testing.T, arch string, commands ...string) descriptor {
	t.Helper()
	var layers []descriptor
	var ids []string
	for _, command := range commands {
		dir := t.TempDir()
		testlinux.Run(t, "sh", "-ec", "cd "+dir+"; "+command)
		plain := []byte(testlinux.Run(t, "tar", "-C", dir, "--sort=name", "-c", "."))
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(plain)))
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		w.Write(plain)
		w.Close()
		d := l.add(packed.Bytes())
		d.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		layers = append(layers, d)
	}
	config := l.addJSON(t, map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	config.MediaType = "application/vnd.oci.image.config.v1+json"
	d := l.addJSON(t, map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers})
	d.MediaType = "application/vnd.oci.image.manifest.v1+json"
	return d
}

// index names the images of the layout.
func (l layout) index(t *testing.T, manifests ...descriptor) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": manifests})
	if err != nil {
		t.Fatal(err)
	}
	l[indexFile] = data
	l[layoutFile] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
}

func named(d descriptor, name string) descriptor {
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	return d
}

// write lays the files out in a directory.
func (l layout) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range l {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// archive packs the files into a tar.
func (l layout) archive(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.tar")
	testlinux.Run(t, "tar", "-C", l.write(t), "-cf", name, ".")
	return name
}

// threeLayers have every way to take something away.
func threeLayers() []string {
	return []string{
		`mkdir -p a/deep etc usr/lib; echo 1 >a/x; echo 2 >a/deep/y; echo 3 >b; ln -s usr/lib lib; echo 4 >usr/lib/so; ln b c; chmod 4711 b`,
		`mkdir a; echo 5 >a/x; : >a/.wh.deep; echo 6 >.x; : >.wh.b`,
		`mkdir -p a usr/lib; : >a/.wh..wh..opq; echo 7 >a/z; echo 8 >usr/lib/so; ln -s nowhere link`,
	}
}

// listing has a line for each file of a source: mode, name, content.
func listing(t *testing.T, name string, o Options) (lines []string, kind string) {
	t.Helper()
	o.Work = t.TempDir()
	s, err := Open(context.Background(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tree, err := s.Scan(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	err = tree.Walk(func(name string, e *imagetree.Entry) error {
		text := e.Header.Linkname
		if e.Header.Typeflag == tar.TypeReg || e.Header.Typeflag == tar.TypeLink {
			data, err := tree.ReadFile(name)
			if err != nil {
				return err
			}
			text = string(data)
		}
		lines = append(lines, fmt.Sprintf("%04o %s %q", e.Header.Mode&0o7777, name, text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines, s.Kind
}

// What umoci unpacks is what a source has, be the image a layout, an archive of one, what
// docker save would write, or one of these compressed.
func TestImageOfAContainer(t *testing.T) {
	l := layout{}
	l.index(t, named(l.image(t, "amd64", threeLayers()...), "lab"))
	dir := l.write(t)
	bundle := filepath.Join(t.TempDir(), "bundle")
	testlinux.Run(t, "umoci", "raw", "unpack", "--rootless", "--image", dir+":lab", bundle)
	want, _ := listing(t, bundle, Options{})
	if len(want) < 8 {
		t.Fatalf("umoci unpacked %q", want)
	}

	archive := l.archive(t)
	docker := filepath.Join(t.TempDir(), "docker.tar")
	testlinux.Run(t, "skopeo", "--insecure-policy", "copy", "oci:"+dir+":lab", "docker-archive:"+docker+":lab:12")
	ociArchive := filepath.Join(t.TempDir(), "oci.tar")
	testlinux.Run(t, "skopeo", "--insecure-policy", "copy", "oci:"+dir+":lab", "oci-archive:"+ociArchive+":lab")
	zstd := filepath.Join(t.TempDir(), "z")
	testlinux.Run(t, "zstd", "-q", docker, "-o", zstd)
	for source, kind := range map[string]string{
		dir: "an OCI layout: lab (sha256:", archive: "an archive of container images: lab (sha256:", ociArchive: "an archive of container images: lab (sha256:",
		docker: "an archive of container images: docker.io/library/lab:12 (sha256:", zstd: "an archive of container images, compressed with zstd: docker.io/library/lab:12 (sha256:",
	} {
		got, is := listing(t, source, Options{})
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", source, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
		if !strings.HasPrefix(is, kind) || !strings.HasSuffix(is, ", 3 layers") {
			t.Errorf("%s is %q, want %q", source, is, kind)
		}
	}
}

func TestSeveralImages(t *testing.T) {
	l := layout{}
	one, two := l.image(t, "amd64", "echo 1 >f"), l.image(t, "amd64", "echo 2 >f")
	arm := l.image(t, "arm64", "echo 3 >f")
	arm.Platform = &platform{OS: "linux", Architecture: "arm64"}
	attestation := l.add([]byte("whatever"))
	attestation.Platform = &platform{OS: "unknown", Architecture: "unknown"}
	nested := l.addJSON(t, map[string]any{"manifests": []descriptor{arm, two, attestation}})
	l.index(t, named(one, "docker.io/library/lab:12"), named(nested, "lab:13"))
	for ref, want := range map[string]string{"lab:12": "1", "docker.io/library/lab:12": "1", "lab:13": "2", two.Digest: "2", strings.TrimPrefix(one.Digest, "sha256:")[:8]: "1"} {
		lines, kind := listing(t, l.archive(t), Options{Ref: ref})
		if !strings.Contains(strings.Join(lines, "\n"), fmt.Sprintf(`f "%s\n"`, want)) {
			t.Errorf("%s: %s: %q", ref, kind, lines)
		}
	}
	for ref, want := range map[string]string{
		"":    "choose one with --ref:\n  - docker.io/library/lab:12 (" + one.Digest[:19] + ")\n  - lab:13 (" + two.Digest[:19] + ")",
		"lab": `no image "lab"; there are:`,
	} {
		if _, err := Open(context.Background(), l.archive(t), Options{Ref: ref}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", ref, err, want)
		}
	}
	l.index(t, arm)
	if _, err := Open(context.Background(), l.write(t), Options{}); err == nil || !strings.Contains(err.Error(), "for linux/arm64, and nodes are linux/amd64") {
		t.Errorf("for another machine: %v", err)
	}
}

// Whatever a stranger's archive says, it is refused with a reason, and no file of this machine
// is read.
func TestBadImages(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l layout, image descriptor, layers []descriptor)
		want  string
	}{
		"layer missing":          {func(l layout, _ descriptor, layers []descriptor) { delete(l, blobOf(layers[1])) }, "layer 2 (" + "blobs/sha256/"},
		"manifest missing":       {func(l layout, image descriptor, _ []descriptor) { delete(l, blobOf(image)) }, "is not there: the archive or layout is not whole"},
		"layer damaged":          {func(l layout, _ descriptor, layers []descriptor) { l[blobOf(layers[0])][20] ^= 1 }, "it is damaged: its digest is"},
		"manifest damaged":       {func(l layout, image descriptor, _ []descriptor) { l[blobOf(image)][1] ^= 1 }, "it is damaged: its digest is"},
		"layer cut off":          {func(l layout, _ descriptor, layers []descriptor) { b := blobOf(layers[0]); l[b] = l[b][:50] }, "has 50 bytes, want"},
		"layer larger than said": {func(l layout, _ descriptor, layers []descriptor) { b := blobOf(layers[0]); l[b] = append(l[b], 0) }, "bytes, want"},
		"digest leads out": {func(l layout, image descriptor, _ []descriptor) {
			image.Digest = "sha256:../../../../../../../../etc/passwd"
			l.index(t, image)
		}, "is no digest"},
		"index nested without end": {func(l layout, image descriptor, _ []descriptor) {
			d := image
			for range 10 {
				d = l.addJSON(t, map[string]any{"manifests": []descriptor{d}})
			}
			l.index(t, d)
		}, "indexes in more than"},
		"index no JSON": {func(l layout, _ descriptor, _ []descriptor) { l[indexFile] = []byte("{") }, "unexpected end of JSON"},
		"index missing": {func(l layout, _ descriptor, _ []descriptor) { delete(l, indexFile) }, indexFile},
		"no image":      {func(l layout, _ descriptor, _ []descriptor) { l.index(t) }, "it has no image"},
		"layers unknown": {func(l layout, _ descriptor, _ []descriptor) {
			layer := l.add([]byte("encrypted, perhaps"))
			config := l.addJSON(t, map[string]any{"rootfs": map[string]any{"diff_ids": []string{layer.Digest}}})
			l.index(t, l.addJSON(t, map[string]any{"config": config, "layers": []descriptor{layer}}))
		}, "not a whole tar archive"},
		"not what the config says": {func(l layout, _ descriptor, layers []descriptor) {
			config := l.addJSON(t, map[string]any{"rootfs": map[string]any{"diff_ids": []string{layers[0].Digest, layers[1].Digest}}})
			l.index(t, l.addJSON(t, map[string]any{"config": config, "layers": layers}))
		}, "it is damaged: its digest is"},
		"fewer layers than the config says": {func(l layout, _ descriptor, layers []descriptor) {
			config := l.addJSON(t, map[string]any{"rootfs": map[string]any{"diff_ids": []string{layers[0].Digest}}})
			l.index(t, l.addJSON(t, map[string]any{"config": config, "layers": layers}))
		}, "2 layers, and its config speaks of 1"},
	} {
		l := layout{}
		image := l.image(t, "amd64", "echo 1 >f", "echo 2 >f")
		l.index(t, image)
		var m struct{ Layers []descriptor }
		if err := json.Unmarshal(l[blobOf(image)], &m); err != nil {
			t.Fatal(err)
		}
		c.spoil(l, image, m.Layers)
		for _, source := range []string{l.write(t), l.archive(t)} {
			s, err := Open(context.Background(), source, Options{Work: t.TempDir()})
			if err == nil {
				_, err = s.Scan(context.Background(), nil)
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
}

// A blob of a layout that is a link to a file of this machine is not read.
func TestLinkOutOfALayout(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", "echo 1 >f"))
	dir := l.write(t)
	if err := os.Rename(filepath.Join(dir, indexFile), dir+".index"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+".index", filepath.Join(dir, indexFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("got %v", err)
	}
}

// A pipe in a layout holds nobody up.
func TestPipeInALayout(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", "echo 1 >f"))
	dir := l.write(t)
	testlinux.Run(t, "sh", "-ec", "cd "+dir+"; rm index.json; mkfifo index.json")
	if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}

// An archive that was cut off is never taken for another with fewer files.
func TestArchiveOfImagesCutOff(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", threeLayers()...))
	data, err := os.ReadFile(l.archive(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{100, 512, 1000, 1024, 2000, len(data) / 2} {
		name := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(name, data[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(context.Background(), name, Options{Work: t.TempDir()})
		if err == nil {
			_, err = s.Scan(context.Background(), nil)
			s.Close()
		}
		if err == nil {
			t.Errorf("%d of %d bytes passed for a source", size, len(data))
		}
	}
}

// fakeStore is one file by every name.
type fakeStore []byte

func (f fakeStore) open(name string) (*io.SectionReader, error) {
	if name == dockerFile {
		return nil, fs.ErrNotExist
	}
	return section(f), nil
}

func FuzzContainers(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":3}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := containers(fakeStore(data)); err == nil && len(data) == 0 {
			t.Error("nothing is an index")
		}
		if c, err := parseConfig(data); err == nil {
			for _, id := range c.RootFS.DiffIDs {
				newDigest(id)
			}
		}
	})
}
