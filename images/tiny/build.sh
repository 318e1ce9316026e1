#!/bin/bash
# Makes the tree of the image `tiny`: a root of Go programs only, with Debian's
# kernel. It is for tests: seconds to build, seconds to boot. Its programs load
# no modules, so the image can be built with --modules none.
#
# usage: images/tiny/build.sh TREE
set -euo pipefail
RECIPE=tiny
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || die "usage: $0 TREE"
OUT=$1
cd "$IMAGES/.."

need go golang-go
need apt-get apt
need dpkg-deb dpkg
need depmod kmod
need cpio cpio
export PATH=$PATH:/usr/sbin:/sbin CGO_ENABLED=0

PROGRAMS=(gosh ls cat dd echo shasum ip mount umount ps dmesg sleep cp mv rm mkdir
    mknod ln df free grep head tail wc hostname kill ping sync uname touch tee find
    cmp id date seq lsmod pwd losetup hexdump)

deb=$(apt_fetch bookworm "$(kernel_package bookworm)")
KEY=$(fingerprint "$0" "$IMAGES/lib.sh" "$IMAGES/tiny/init" "$deb" go.mod "$(go env GOVERSION)")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/tiny.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
tree=$WORK/tree
mkdir -p "$tree"/{bin,dev,etc/viver/services.d,proc,root,run,sbin,sys,tmp,usr/local/bin,var}
chmod 755 "$tree"

say "building init and ${#PROGRAMS[@]} Go programs"
go build -trimpath -ldflags '-s -w' -o "$tree/sbin/init" ./images/tiny/init
for name in poweroff reboot halt shutdown; do ln -s init "$tree/sbin/$name"; done
go tool u-root -o "$WORK/programs.cpio" -base /dev/null -initcmd= -defaultsh= -go-enable-inlining -go-extra-args=-a=false \
    "${PROGRAMS[@]/#/github.com/u-root/u-root/cmds/core/}" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "u-root failed"; }
(cd "$WORK" && cpio --quiet -id <programs.cpio)
cp -a "$WORK/bbin/." "$tree/bin/"
ln -s gosh "$tree/bin/sh"
printf '#!/bin/sh\nexec shasum -a 256 "$@"\n' >"$tree/bin/sha256sum"
chmod 755 "$tree/bin/sha256sum"

say "taking the kernel from $(basename "$deb")"
dpkg-deb -x "$deb" "$WORK/kernel"
mv "$WORK/kernel/boot" "$tree/boot"
mkdir "$tree/lib"
mv "$WORK/kernel/lib/modules" "$tree/lib/modules"
for release in "$tree"/lib/modules/*; do depmod -b "$tree" "$(basename "$release")"; done

cat >"$tree/etc/os-release" <<OS
NAME="VIVER tiny"
ID=viver-tiny
PRETTY_NAME="VIVER tiny (Go programs on Debian's kernel)"
OS
echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
echo 'root:x:0:' >"$tree/etc/group"
echo tiny >"$tree/etc/hostname"
: >"$tree/etc/machine-id"

mkdir -p "$(dirname "$OUT")"
replace "$OUT" "$tree" "$KEY"
