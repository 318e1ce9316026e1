package runes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Target says where the runes go.
type Target struct {
	// Root is the directory that is going to be "/".
	Root string
	// Run is the tmpfs that is going to be /run in it. What a rune lays under
	// /run goes there, because Root's own run directory will be covered.
	Run string
}

// Outcome says what became of a rune.
type Outcome string

// The outcomes.
const (
	Applied Outcome = "applied"
	// Skipped: its conditions do not hold on this machine or image.
	Skipped Outcome = "skipped"
	// Degraded: something of it failed; the rest of it is in place.
	Degraded Outcome = "degraded"
	// Broken: its folder is no proper rune, so nothing of it is in place.
	Broken Outcome = "broken"
)

// Result is what became of one rune.
type Result struct {
	Rune    string  `json:"rune"`
	Outcome Outcome `json:"outcome"`
	// Reason is a sentence for people; empty when applied.
	Reason string `json:"reason,omitempty"`
	// Files are the paths in the root that are now as the rune wants them.
	Files []string `json:"files,omitempty"`
}

// Apply lays the bundles over the target, in the order of Merge, and runs
// their hooks. A failure degrades the rune it belongs to and nothing else, so
// there is one Result per bundle, in order. When ctx ends, the rest is
// reported as degraded.
func Apply(ctx context.Context, where Target, bundles []Bundle, facts Facts, log *slog.Logger) []Result {
	bundles = Merge(bundles)
	facts, wrong := facts.Checked()
	for _, err := range wrong {
		log.Warn("a fact is not given to runes", "error", err)
	}
	results := make([]Result, 0, len(bundles))
	t, err := openTarget(where)
	if err != nil {
		for _, b := range bundles {
			results = append(results, Result{Rune: b.Name, Outcome: Degraded, Reason: fmt.Sprintf("open the root: %v", err)})
		}
		return results
	}
	defer t.Close() // opened for reading: nothing can be lost
	for _, b := range bundles {
		r := applyOne(ctx, t, where, b, facts, log)
		log.Info("rune", "name", r.Rune, "outcome", r.Outcome, "files", len(r.Files), "reason", r.Reason)
		results = append(results, r)
	}
	return results
}

// Uses reports whether a bundle that is wanted on this root mentions a fact: some cost
// a look into a root that comes over a network.
func Uses(where Target, bundles []Bundle, fact string) bool {
	t, err := openTarget(where)
	if err != nil {
		return false // Apply says why
	}
	defer t.Close()
	return slices.ContainsFunc(bundles, func(b Bundle) bool {
		paths := b.when
		paths.Facts = nil
		return b.mentions(fact) && paths.unmet(t, Facts{}) == ""
	})
}

// mentions reports whether the bundle asks for a fact: by its name in a condition or a
// template, or by that of the variable in a hook. What is laid as it stands, such as a
// large program, is not searched.
func (b Bundle) mentions(fact string) bool {
	for name, n := range b.tree {
		word := fact
		switch {
		case strings.HasPrefix(name, "hooks/"):
			word = variable(fact)
		case name != manifestName && !strings.HasSuffix(name, templateExt):
			continue
		}
		if bytes.Contains(n.data, []byte(word)) {
			return true
		}
	}
	return false
}

func applyOne(ctx context.Context, t *target, where Target, b Bundle, facts Facts, log *slog.Logger) Result {
	r := Result{Rune: b.Name, Outcome: Applied}
	if reason := b.skips(t, facts); reason != "" {
		r.Outcome, r.Reason = Skipped, reason
		return r
	}
	var errs []error
	for _, it := range b.items {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s and what follows: %w", it.path, context.Cause(ctx)))
			break
		}
		path, err := layItem(t, it, scope{t: t, b: b, facts: facts})
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", it.path, err))
		case path != "":
			r.Files = append(r.Files, path)
			if other := t.owner[path]; other != "" && it.replaces() {
				errs = append(errs, overlap(path, other, b.Name))
			}
			t.owner[path] = b.Name
		}
	}
	if h, ok := b.hooks[MomentRoot]; ok {
		if err := runHook(ctx, t, where, b, h, facts, log); err != nil {
			errs = append(errs, fmt.Errorf("hook %s: %w", MomentRoot, err))
		}
	}
	if len(errs) > 0 {
		r.Outcome, r.Reason = Degraded, joinReasons(errs)
	}
	return r
}

// layItem returns the path that is now as the rune wants it, or "" when the
// item is not wanted here.
func layItem(t *target, it item, s scope) (string, error) {
	if it.when.unmet(t, s.facts) != "" {
		return "", nil
	}
	if len(it.roles) > 0 { // nobody holds one yet; saved data may have it of an earlier boot
		return "", t.remove(it.path)
	}
	it, err := rendered(it, s)
	if err != nil {
		return "", err
	}
	if it.tmpl != nil && len(it.data) == 0 && !t.exists(it.path) {
		return "", nil // it renders to nothing, and there is no file to correct
	}
	return it.path, t.lay(it, s.b.dirModes)
}

func runHook(ctx context.Context, t *target, where Target, b Bundle, h hookProgram, facts Facts, log *slog.Logger) error {
	if where.Run == "" {
		return errors.New("hooks need a /run of their own")
	}
	if len(h.interpreter) > 0 && !t.exists(h.interpreter[0]) {
		return fmt.Errorf("it wants %s, which is not in the image", h.interpreter[0])
	}
	c, err := openChroot(where)
	if err != nil {
		return err
	}
	return errors.Join(c.run(ctx, b.Name, h, b.environment(facts), log), c.Close())
}
