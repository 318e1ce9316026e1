#!/bin/bash
# build.sh OUT: makes OUT/qemu-agent, the rune that brings the tests' agent into
# a guest. Give it to `viver medium build --rune`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m "$1")/qemu-agent
part=$out.part
rm -rf "$part"
mkdir -p "$part"
cp -r "$here/rune/qemu-agent/." "$part/"
(cd "$here/guestexec" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$part/files/usr/local/libexec/viver/qemu-agent" .)
rm -rf "$out"
mv "$part" "$out"
