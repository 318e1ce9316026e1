#!/bin/bash
# Collects the boot programs into DIR:
#
#   undionly.kpxe   iPXE for BIOS machines, from the package ipxe
#   shimx64.efi     Debian 13's shim, signed by Microsoft
#   grubx64.efi     Debian 13's network GRUB, signed by Debian; this pair boots
#                   with Secure Boot on, from the network and from a medium;
#                   GRUB 2.06 of Debian 12 does not netboot
#   mmx64.efi       Debian 13's MokManager, which shim starts to let the user
#                   enroll a key of their own
#
# usage: images/boot/build.sh DIR
set -euo pipefail
RECIPE=boot
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || die "usage: $0 DIR"
OUT=$1

need apt-get apt
need dpkg-deb dpkg

KEY=$(fingerprint "$0" "$IMAGES/lib.sh")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/boot.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
mkdir "$WORK/out"

# take SUITE PACKAGE PATH NAME
take() {
    local deb
    deb=$(apt_fetch "$1" "$2")
    dpkg-deb --fsys-tarfile "$deb" | tar -xO -f - ".$3" >"$WORK/out/$4"
    [ -s "$WORK/out/$4" ] || die "$3 is not in $2"
    printf '%s\t%s\t%s\n' "$4" "$2" "$(dpkg-deb -f "$deb" Version)" >>"$WORK/out/VERSIONS"
}
take bookworm ipxe /usr/lib/ipxe/undionly.kpxe undionly.kpxe
take trixie shim-signed /usr/lib/shim/shimx64.efi.signed shimx64.efi
take trixie grub-efi-amd64-signed /usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed grubx64.efi
take trixie shim-helpers-amd64-signed /usr/lib/shim/mmx64.efi.signed mmx64.efi

mkdir -p "$(dirname "$OUT")"
replace "$OUT" "$WORK/out" "$KEY"
