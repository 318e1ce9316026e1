#!/bin/bash
# Makes what boots where the firmware trusts nobody but the test key that Debian
# publishes with OVMF: stand-ins for what Microsoft and iPXE's makers have signed.
#
#   DIR/snponly.efi   Debian 13's iPXE for UEFI, signed with that key
#   DIR/lib           LIB, where Debian's shim has a signature with that key besides
#
# Debian 12's iPXE is older than the command "shim", which starts a kernel that only
# the shim trusts.
#
# usage: qemu-tests/signed/build.sh DIR LIB
set -euo pipefail
RECIPE=signed
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=images/lib.sh
. "$HERE/../../images/lib.sh"
[ $# = 2 ] || die "usage: $0 DIR LIB"
OUT=$1 LIB=$2
KEY=/usr/share/ovmf/PkKek-1-snakeoil

need apt-get apt
need dpkg-deb dpkg
need openssl openssl
need sbsign sbsigntool
[ -e $KEY.key ] || die "$KEY.key is missing: apt-get install ovmf"

mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/signed.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM

# sign FROM TO
sign() {
    sbsign --key "$WORK/key.pem" --cert $KEY.pem --output "$2" "$1" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; die "sbsign failed"; }
}

deb=$(apt_fetch trixie ipxe)
dpkg-deb --fsys-tarfile "$deb" | tar -xO -f - ./usr/lib/ipxe/snponly.efi >"$WORK/snponly.efi"
[ -s "$WORK/snponly.efi" ] || die "snponly.efi is not in $(basename "$deb")"
openssl rsa -in $KEY.key -passin pass:snakeoil -out "$WORK/key.pem" 2>"$WORK/log" || { cat "$WORK/log" >&2; die "the test key cannot be read"; }

mkdir "$WORK/out"
cp -r "$LIB" "$WORK/out/lib"
sign "$WORK/snponly.efi" "$WORK/out/snponly.efi"
sign "$LIB/boot/shimx64.efi" "$WORK/out/lib/boot/shimx64.efi"
rm -rf "$OUT"
mv "$WORK/out" "$OUT"
