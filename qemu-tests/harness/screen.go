package harness

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
)

// Screen returns what the machine's screen shows. The picture stays beside the lab's logs,
// under the machine's name and this one.
func (vm *VM) Screen(ctx context.Context, name string) (image.Image, error) {
	file := vm.lab.path(vm.Name(), name+".png")
	if err := vm.command(ctx, "screendump", map[string]any{"filename": file, "format": "png"}); err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: its screen: %w", vm.Name(), err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: its screen, %s: %w", vm.Name(), file, err)
	}
	return picture, nil
}
