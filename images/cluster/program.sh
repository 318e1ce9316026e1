#!/bin/bash
# Makes a rune of a program's sources, which lays them as /usr/src/program.tar.gz: Lua, as
# Debian 12 has it, 34 files of C.
#
# usage: images/cluster/program.sh DIR
set -euo pipefail
RECIPE=program
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || die "usage: $0 DIR"
OUT=$1
SOURCE=pool/main/l/lua5.4/lua5.4_5.4.4.orig.tar.gz
SHA256=164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61

KEY=$(fingerprint "$0" "$IMAGES/lib.sh")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$CACHE" "$(dirname "$OUT")"
WORK=$(mktemp -d "$CACHE/program.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
NAME=$(basename "$OUT")
mkdir -p "$WORK/out/files/usr/src"
printf 'name = "%s"\ndescription = "the sources of a program, for the demo"\n' "$NAME" >"$WORK/out/rune.toml"
/usr/lib/apt/apt-helper download-file "$(mirror)/$SOURCE" "$WORK/out/files/usr/src/program.tar.gz" "SHA256:$SHA256" >&2
replace "$OUT" "$WORK/out" "$KEY"
