package control

import (
	"errors"
	"io"
	"testing"
)

func TestAwaitStartEndsWithItsInput(t *testing.T) {
	input, start := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- AwaitStart(input) }()
	for range 3 { // each is read by then, and means nothing
		if _, err := start.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("it begins before its input has ended: %v", err)
	default:
	}
	start.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	input.Close()
	if err := AwaitStart(input); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("an input that cannot be read: %v", err)
	}
}
