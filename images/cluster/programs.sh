#!/bin/bash
# Makes a rune of what the machines of the demo do together, which lays it in
# /usr/src/programs: Lua as Debian 12 has it (34 files of C), the files beside this one, and
# the headers that MPI programs need. The image has none: Debian's package of them brings a
# Fortran compiler, 100 MB.
#
# usage: images/cluster/programs.sh DIR
set -euo pipefail
RECIPE=programs
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || die "usage: $0 DIR"
OUT=$1
HERE=$IMAGES/cluster/programs
LUA=pool/main/l/lua5.4/lua5.4_5.4.4.orig.tar.gz
LUA_SHA256=164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61

KEY=$(fingerprint "$0" "$IMAGES/lib.sh" "$HERE")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$CACHE" "$(dirname "$OUT")"
WORK=$(mktemp -d "$CACHE/programs.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
TO=$WORK/out/files/usr/src/programs
mkdir -p "$TO" "$WORK/dev"
printf 'name = "%s"\ndescription = "what the machines of the demo do together"\n' "$(basename "$OUT")" >"$WORK/out/rune.toml"
install -m 644 "$HERE"/* "$TO"
say "fetching the sources of Lua"
/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$(mirror)/$LUA" "$TO/lua.tar.gz" "SHA256:$LUA_SHA256" >&2
DEB=$(apt_fetch bookworm libopenmpi-dev)
dpkg-deb -x "$DEB" "$WORK/dev"
cp "$WORK"/dev/usr/lib/x86_64-linux-gnu/openmpi/include/mpi{,_portable_platform}.h "$TO"
replace "$OUT" "$WORK/out" "$KEY"
