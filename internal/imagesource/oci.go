package imagesource

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The files that describe the images of a store: those of the OCI image layout, and that
// of docker save.
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	dockerFile = "manifest.json"
)

// What a store can make us do.
const (
	maxJSON   = 16 << 20 // bytes of one description
	maxImages = 1000
	maxLayers = 1000
	maxNested = 4 // indexes in indexes
)

// container is one image of a store.
type container struct {
	names []string // such as docker.io/library/debian:12
	// digest names it when it has no other name: of its manifest, or of its config.
	digest string
	layers []blob // the lowest first
}

// blob is a file of a store and what is said of it.
type blob struct {
	name   string
	digest string // of the file; "" when nobody says
	diffID string // digest of what comes out when it is unpacked, or ""
	size   int64  // -1 when nobody says
}

// descriptor points to a blob (OCI image specification, "Content Descriptors").
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

// fits reports whether nodes can run it. What a builder says of its work, such as an
// attestation, is for the platform "unknown".
func (p *platform) fits() bool {
	return p == nil || cmp.Or(p.OS, "linux") == "linux" && cmp.Or(p.Architecture, "amd64") == "amd64"
}

// digestForm are the digests that are taken. Since one is a part of a file's name, it has
// to be of this form before anything else.
var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// asBlob is where the layout has what a descriptor points to.
func (d descriptor) asBlob() (blob, error) {
	if !digestForm.MatchString(d.Digest) {
		return blob{}, fmt.Errorf("%.80q is no digest", d.Digest)
	}
	if d.Size < 0 {
		return blob{}, fmt.Errorf("%s has %d bytes", d.Digest, d.Size)
	}
	return blob{name: "blobs/" + strings.Replace(d.Digest, ":", "/", 1), digest: d.Digest, size: d.Size}, nil
}

// containers lists the images of a store that nodes can run, and says which others there are.
func containers(s store) (list []container, others []string, err error) {
	if list, others, err = dockerContainers(s); !errors.Is(err, fs.ErrNotExist) {
		return list, others, err
	}
	data, err := readFile(s, indexFile)
	if err != nil {
		return nil, nil, err
	}
	r := ociReader{store: s}
	if err := r.index(data, nil, 0); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return r.list, r.others, nil
}

// ociReader follows the indexes of a layout.
type ociReader struct {
	store  store
	list   []container
	others []string // platforms of images that nodes cannot run
}

// index reads an index; names are those of the descriptor that led to it.
func (r *ociReader) index(data []byte, names []string, depth int) error {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !d.Platform.fits() {
			if d.Platform.OS != "unknown" {
				r.others = append(r.others, d.Platform.OS+"/"+d.Platform.Architecture)
			}
			continue
		}
		if len(r.list) >= maxImages || depth >= maxNested {
			return fmt.Errorf("more than %d images, or indexes in more than %d others", maxImages, maxNested)
		}
		if err := r.manifest(d, namesOf(d, names), depth); err != nil {
			return fmt.Errorf("%.19s: %w", d.Digest, err)
		}
	}
	return nil
}

// namesOf are the names that an image has by its descriptor.
func namesOf(d descriptor, above []string) []string {
	names := slices.Clone(above)
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if name := d.Annotations[key]; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// manifest reads what a descriptor of an index points to: a manifest or another index.
func (r *ociReader) manifest(d descriptor, names []string, depth int) error {
	b, err := d.asBlob()
	if err != nil {
		return err
	}
	data, err := readChecked(r.store, b)
	if err != nil {
		return err
	}
	var m struct {
		Manifests []json.RawMessage `json:"manifests"`
		Config    descriptor        `json:"config"`
		Layers    []descriptor      `json:"layers"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	if len(m.Manifests) > 0 {
		return r.index(data, names, depth+1)
	}
	if b, err = m.Config.asBlob(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if data, err = readChecked(r.store, b); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	config, err := parseConfig(data)
	if err != nil {
		return err
	}
	if !config.fits() {
		r.others = append(r.others, config.OS+"/"+config.Architecture)
		return nil
	}
	c := container{names: names, digest: d.Digest}
	for i, l := range m.Layers {
		b, err := l.asBlob()
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		c.layers = append(c.layers, b)
	}
	if err := c.expect(config.RootFS.DiffIDs); err != nil {
		return err
	}
	r.list = append(r.list, c)
	return nil
}

// imageConfig is what is used of an image's config.
type imageConfig struct {
	platform
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

func parseConfig(data []byte) (c imageConfig, err error) {
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	for _, id := range c.RootFS.DiffIDs {
		if !digestForm.MatchString(id) {
			return c, fmt.Errorf("config: %.80q is no digest of a layer", id)
		}
	}
	return c, nil
}

// expect gives the layers the digests of what comes out of them.
func (c *container) expect(diffIDs []string) error {
	if len(c.layers) > maxLayers {
		return fmt.Errorf("it has %d layers", len(c.layers))
	}
	if len(diffIDs) != len(c.layers) {
		return fmt.Errorf("it has %d layers, and its config speaks of %d", len(c.layers), len(diffIDs))
	}
	for i := range c.layers {
		c.layers[i].diffID = diffIDs[i]
	}
	return nil
}

// dockerContainers reads the description of docker save; fs.ErrNotExist when there is none.
func dockerContainers(s store) (list []container, others []string, err error) {
	data, err := readFile(s, dockerFile)
	if err != nil {
		return nil, nil, err
	}
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dockerFile, err)
	}
	if len(images) > maxImages {
		return nil, nil, fmt.Errorf("%s: %d images", dockerFile, len(images))
	}
	for _, i := range images {
		c := container{names: i.RepoTags, digest: digestOfConfig(i.Config)}
		config, err := readDockerConfig(s, i.Config, c.digest)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c, err)
		}
		if !config.fits() {
			others = append(others, config.OS+"/"+config.Architecture)
			continue
		}
		for _, name := range i.Layers {
			c.layers = append(c.layers, blob{name: name, size: -1})
		}
		if err := c.expect(config.RootFS.DiffIDs); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c, err)
		}
		list = append(list, c)
	}
	return list, others, nil
}

// digestOfConfig takes the digest of a config from its name: HEX.json, or blobs/sha256/HEX.
func digestOfConfig(name string) string {
	return "sha256:" + strings.TrimSuffix(path.Base(name), ".json")
}

func readDockerConfig(s store, name, digest string) (c imageConfig, err error) {
	if !digestForm.MatchString(digest) {
		return c, fmt.Errorf("config: %.80q is not named by its digest", name)
	}
	data, err := readFile(s, name)
	if err != nil {
		return c, missing(err, "its config "+name)
	}
	h := newDigest(digest)
	h.Write(data)
	if err := h.check(); err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	return parseConfig(data)
}

// String names the image to people.
func (c container) String() string {
	const short = len("sha256:") + 12
	digest := c.digest[:min(len(c.digest), short)]
	if len(c.names) == 0 {
		return digest
	}
	return strings.Join(c.names, ", ") + " (" + digest + ")"
}

// isCalled reports whether a person means this image: by a name, with or without the registry
// that Docker assumes, or by the beginning of its digest.
func (c container) isCalled(ref string) bool {
	for _, name := range c.names {
		for _, prefix := range []string{"", "docker.io/", "docker.io/library/"} {
			if name == prefix+ref || name == prefix+ref+":latest" {
				return true
			}
		}
	}
	const shortest = 6
	return len(ref) >= shortest && (strings.HasPrefix(c.digest, ref) || strings.HasPrefix(c.digest, "sha256:"+ref))
}

// choose takes the image that ref names; without it there has to be one only.
func choose(list []container, others []string, ref string) (container, error) {
	var found []container
	for _, c := range list {
		if ref == "" || c.isCalled(ref) {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(list) == 0 && len(others) > 0:
		return container{}, fmt.Errorf("its images are for %s, and nodes are linux/amd64", strings.Join(others, ", "))
	case len(list) == 0:
		return container{}, errors.New("it has no image")
	case len(found) == 0:
		return container{}, fmt.Errorf("it has no image %q; there are:%s", ref, bullets(list))
	}
	return container{}, fmt.Errorf("it has several images; choose one with --ref:%s", bullets(found))
}

func bullets[T any](list []T) string {
	var b strings.Builder
	for _, item := range list {
		fmt.Fprintf(&b, "\n  - %v", item)
	}
	return b.String()
}

// readFile reads a description, which is small.
func readFile(s store, name string) ([]byte, error) {
	r, err := s.open(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxJSON {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", name, r.Size(), maxJSON)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// readChecked reads a description that has to have a size and a digest.
func readChecked(s store, b blob) ([]byte, error) {
	data, err := readFile(s, b.name)
	if err != nil {
		return nil, missing(err, b.digest)
	}
	if int64(len(data)) != b.size {
		return nil, fmt.Errorf("%s has %d bytes, want %d", b.digest, len(data), b.size)
	}
	h := newDigest(b.digest)
	h.Write(data)
	return data, h.check()
}

// missing says in plain words that a file of the store is not there.
func missing(err error, what string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there: the archive or layout is not whole", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}
