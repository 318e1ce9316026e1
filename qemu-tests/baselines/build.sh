#!/bin/bash
# Makes what ./build.sh bench boot compares VIVER with, out of the tree that
# VIVER's image is made of and Debian's own packages:
#
#   DIR/disk.ext4                  the tree on a disk
#   DIR/vmlinuz                    its kernel
#   DIR/initrd-disk.img            Debian's initramfs with the modules of that disk
#   DIR/initrd-nbd.img             with nbd-client and overlayroot
#   DIR/initrd-live.img            with live-boot
#   DIR/packages                   the versions of what was added
#
# The agent of the tests comes with each initramfs, so the trees stay the same.
# All of it is made in namespaces: no root is needed, but ranges in /etc/subuid and
# /etc/subgid are, as with mmdebstrap.
#
# usage: qemu-tests/baselines/build.sh DIR TREE.tar AGENT
set -euo pipefail
RECIPE=baselines
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=images/lib.sh
. "$HERE/../../images/lib.sh"

DISK_MIB=1024

# packages KIND prints what an initramfs of that kind needs. Each has its own
# only: live-boot's hooks, for one, add the drivers of all graphics cards.
packages() {
    case $1 in
    disk) echo initramfs-tools zstd busybox ;;
    nbd) echo nbd-client overlayroot ;;
    live) echo live-boot live-boot-initramfs-tools ;;
    esac
}

# inside DIR TREE AGENT runs where it is root: in a mount namespace of its own.
inside() {
    local dir=$1 tree=$2 agent=$3 root=$1/root kind release
    mkdir -p "$root"
    say "unpacking $tree"
    tar -x --numeric-owner --xattrs -C "$root" --exclude='./dev/*' -f "$tree"
    cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
    say "making the local disk"
    truncate -s "${DISK_MIB}M" "$dir/disk.ext4"
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$dir/disk.ext4"

    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp -r "$HERE/initramfs/." "$root/etc/initramfs-tools/"
    install -D -m 755 "$agent" "$root/usr/local/libexec/viver/qemu-agent"
    mkdir -p "$CACHE/deb/baselines"
    cp "$CACHE"/deb/baselines/*.deb "$root/var/cache/apt/archives/" 2>/dev/null || true
    apt_in_root update
    release=$(basename "$root"/boot/vmlinuz-*)
    for kind in disk nbd live; do
        # shellcheck disable=SC2046 # one word per package
        add $(packages $kind)
        say "making the initramfs $kind"
        cat "$HERE/modules/virtio" "$HERE/modules/$kind" >"$root/etc/initramfs-tools/modules"
        in_root mkinitramfs -o "/boot/initrd-$kind.img" "${release#vmlinuz-}" >>"$dir/log" 2>&1 || failed mkinitramfs
        mv "$root/boot/initrd-$kind.img" "$dir/"
        # shellcheck disable=SC2046
        [ $kind = disk ] || apt_in_root purge --autoremove -y $(packages $kind)
    done
    cp -n "$root"/var/cache/apt/archives/*.deb "$CACHE/deb/baselines/" 2>/dev/null || true
}

in_root() { chroot "$root" "$@"; }

# apt_in_root runs apt-get in the tree.
apt_in_root() {
    in_root env DEBIAN_FRONTEND=noninteractive apt-get -qq --no-install-recommends \
        -o APT::Keep-Downloaded-Packages=true -o DPkg::Options::=--force-unsafe-io "$@" >>"$dir/log" 2>&1 || failed "apt-get $1"
}

# add installs packages and notes their versions.
add() {
    say "adding $*"
    apt_in_root install -y "$@"
    # shellcheck disable=SC2016 # dpkg's own variables
    in_root dpkg-query -W -f '${Package} ${Version}\n' "$@" >>"$dir/packages"
}

# failed ends the recipe with the end of the log.
failed() { tail -n 20 "$dir/log" >&2; die "$1 failed in the copy of the tree: is the network there?"; }

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi

[ $# = 3 ] || die "usage: $0 DIR TREE.tar AGENT"
OUT=$1
need mkfs.ext4 e2fsprogs
need unshare util-linux
KEY=$(fingerprint "${BASH_SOURCE[0]}" "$HERE/initramfs" "$HERE/modules" "$2.stamp" "$3")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$(dirname "$OUT")"
WORK=$(mktemp -d "$(dirname "$OUT")/.baselines.XXXXXX")
# as_root runs a command as root of namespaces.
as_root() {
    if [ "$(id -u)" = 0 ]; then unshare --mount "$@"; else unshare --map-root-user --map-auto --mount "$@"; fi
}
trap 'as_root rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$WORK"
as_root "$HERE/build.sh" --inside "$WORK" "$2" "$3"
as_root rm -rf "$WORK/root"
replace "$OUT" "$WORK" "$KEY"
