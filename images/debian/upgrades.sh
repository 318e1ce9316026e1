#!/bin/bash
# Measures what machines fetch when a Debian gets its updates: builds the default Debian of the
# last point release, edits a file, upgrades one package, then all but the kernel, then
# all, and compares the image of each with the first one, built onto it and without.
# Takes half an hour of CPU, 8 GB of disk and root.
#
# usage: images/debian/upgrades.sh DIRECTORY [LEVEL]
set -euo pipefail
RECIPE=upgrades
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || [ $# = 2 ] || die "usage: $0 DIRECTORY [LEVEL]"
[ "$(id -u)" = 0 ] || die "packages are upgraded in a chroot: run as root"
WORK=$1 LEVEL=${2:-1}
VIVER=$IMAGES/out/bin/viver
[ -x "$VIVER" ] || die "no $VIVER: run ./build.sh build"
need mmdebstrap mmdebstrap
SECURITY=$(repository debian-security)
[ -n "$SECURITY" ] || die "this machine's apt knows no security updates of Debian: add them to its sources"
mkdir -p "$WORK"
TREE=$WORK/tree

# image NAME [OPTION...] builds the tree as it is.
image() {
    local name=$1
    shift
    "$VIVER" image build "$TREE" -o "$WORK/$name" --level "$LEVEL" --profile "$IMAGES/debian/profile" "$@" >/dev/null
}

# inside runs a command in the tree, whose services do not start.
inside() {
    printf '#!/bin/sh\nexit 101\n' >"$TREE/usr/sbin/policy-rc.d"
    chmod 755 "$TREE/usr/sbin/policy-rc.d"
    cp -L /etc/resolv.conf "$TREE/etc/resolv.conf"
    DEBIAN_FRONTEND=noninteractive INITRD=No chroot "$TREE" "$@" >>"$WORK/log"
    rm -f "$TREE/usr/sbin/policy-rc.d" "$TREE/etc/resolv.conf"
}

# measure WHAT NAME shows what a machine with the first image fetches for the present tree.
measure() {
    say "$1"
    image "$2" --onto "$WORK/point"
    image "$2-alone"
    printf '%s: built onto it: %s; without: %s\n' "$1" \
        "$("$VIVER" image diff "$WORK/point" "$WORK/$2" 2>/dev/null | sed -n 3p)" \
        "$("$VIVER" image diff "$WORK/point" "$WORK/$2-alone" 2>/dev/null | sed -n 3p)"
}

rm -rf "$TREE"
# Of the recipe's tree, which has the security updates, only the names of its packages are taken.
[ -e "$IMAGES/out/trees/debian" ] || die "no $IMAGES/out/trees/debian: run ./build.sh image debian"
PACKAGES=$(tar -xOf "$IMAGES/out/trees/debian" ./var/lib/dpkg/status |
    sed -n 's/^Package: //p' | grep -v '^linux-image-[0-9]' | sort -u | paste -sd,)
say "installing the point release"
INITRD=No mmdebstrap --mode=root --variant=minbase --format=directory --architectures=amd64 --include="$PACKAGES" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="sync-in '$IMAGES/debian/files/common' /" --customize-hook="sync-in '$IMAGES/debian/files/debian' /" \
    --customize-hook="chroot \"\$1\" /bin/sh -e <'$IMAGES/debian/configure.sh'" \
    bookworm "$TREE" "deb [signed-by=$KEYRING] $(mirror) bookworm main"
image point

cp -a "$TREE/etc/motd" "$WORK/motd"
echo "Maintenance on Friday." >>"$TREE/etc/motd"
measure "a line of /etc/motd" line
cp -a "$WORK/motd" "$TREE/etc/motd"

echo "deb $SECURITY bookworm-security main" >>"$TREE/etc/apt/sources.list"
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends libssl3
measure "one package" one
inside apt-mark hold linux-image-amd64
inside apt-get upgrade -y -qq
inside apt-mark unhold linux-image-amd64
measure "all but the kernel" several
inside apt-get full-upgrade -y -qq
inside apt-get autoremove -y -qq --purge
measure "all" all
