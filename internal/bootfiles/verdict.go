package bootfiles

import (
	"fmt"
	"io/fs"

	"viver.lan/kernelconfig"
)

// Presence says in which form a kernel has something.
type Presence string

// The forms.
const (
	BuiltIn  Presence = "built in"
	AsModule Presence = "module"
	Absent   Presence = "absent"
	Unknown  Presence = "unknown" // there is no configuration, and no module would tell
)

// Verdict is what a kernel has of one thing that it must be able to do.
type Verdict struct {
	Option string   `json:"option"` // e.g. CONFIG_SQUASHFS
	Has    Presence `json:"has"`
	Reason string   `json:"reason"` // what it is needed for, as a clause
	// Problem says what is wrong, as what follows "the kernel"; "" for nothing.
	Problem string `json:"problem,omitempty"`
}

// JudgeConfig judges a kernel of which only the configuration is there.
func JudgeConfig(config kernelconfig.Config) ([]Verdict, error) {
	return judgeAll(Kernel{}, config, nil)
}

// JudgeKernel judges a kernel of an installed Linux: its configuration, if that is there,
// and its modules.
func JudgeKernel(linux fs.FS, k Kernel) ([]Verdict, error) {
	config, err := readConfig(linux, k)
	if err != nil {
		return nil, err
	}
	index, err := readModuleIndex(linux, k)
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w (depmod writes that file)", k.Release, err)
	}
	return judgeAll(k, config, index)
}

func judgeAll(k Kernel, config kernelconfig.Config, index *moduleIndex) (verdicts []Verdict, err error) {
	options, err := kernelconfig.Options()
	for _, o := range options {
		verdicts = append(verdicts, judge(o, k, config, index))
	}
	return verdicts, err
}

// judge says whether a kernel has an option. Without a configuration its modules tell;
// without their index, which is nil, the configuration is believed.
func judge(o kernelconfig.Option, k Kernel, config kernelconfig.Config, index *moduleIndex) Verdict {
	v := Verdict{Option: o.String(), Reason: o.Reason}
	has, asModule := config.Has(o)
	switch {
	case config == nil && (o.Module == "" || index == nil):
		v.Has = Unknown
	case config == nil && index.builtin[o.Module], has && !asModule:
		v.Has = BuiltIn
	case config == nil && !index.has(o.Module):
		v.Has, v.Problem = Absent, fmt.Sprintf("has no module %s and does not have it built in: %s", o.Module, o.Reason)
	case config == nil, has && (index == nil || index.has(o.Module)):
		v.Has = AsModule
	case has:
		v.Has, v.Problem = Absent, fmt.Sprintf("was built with %s=m, but %s.ko is not in /%s: %s", o, o.Module, k.Modules, o.Reason)
	case o.Need == kernelconfig.Builtin:
		v.Has, v.Problem = Absent, fmt.Sprintf("lacks %s=y: %s", o, o.Reason)
	default:
		v.Has, v.Problem = Absent, fmt.Sprintf("lacks %s (=y or =m): %s", o, o.Reason)
	}
	return v
}
