#!/bin/bash
# Makes a small Debian 12 as a tar archive: init, udev, SSH, network tools and
# Debian's own kernel. `debian` has systemd, `debian-sysvinit` the same with
# sysvinit, `cluster` has systemd and the programs of more runes. A tar keeps owners
# when an ordinary user runs this.
#
# No account has a password. Root logs in by the SSH keys of viver.toml; the
# host's own keys are made at boot where there are none.
#
# usage: images/debian/build.sh FILE [debian | debian-sysvinit | cluster]
set -euo pipefail
RECIPE=debian
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || [ $# = 2 ] || die "usage: $0 FILE [debian | debian-sysvinit | cluster]"
OUT=$1 VARIANT=${2:-debian}
HERE=$IMAGES/debian
SUITE=bookworm

need mmdebstrap mmdebstrap

PACKAGES=(linux-image-amd64 kmod udev dbus ifupdown iproute2 iputils-ping isc-dhcp-client netbase
    openssh-server nftables procps less nano-tiny ca-certificates)
FILES=$HERE/files/$VARIANT
case $VARIANT in
debian) PACKAGES+=(systemd-sysv libpam-systemd systemd-timesyncd) ;;
debian-sysvinit) PACKAGES+=(sysvinit-core initscripts sysv-rc insserv) ;;
cluster)
    FILES=$HERE/files/debian
    PACKAGES+=(systemd-sysv libpam-systemd
        nfs-kernel-server             # nfs: server and client
        icecc ccache zstd             # compile; zstd packs the compiler in a fifth of the time
        gcc g++ libc6-dev make        # compile: what it spreads
        chrony                        # time
        systemd-journal-remote        # logs
        openmpi-bin openssh-client    # mpi
        slurmctld slurmd slurm-client munge # batch
        haproxy python3)              # the web farm of docs/runes-tutorial.md
    ;;
*) die "there is no variant $VARIANT" ;;
esac

KEY=$(fingerprint "$0" "$IMAGES/lib.sh" "$HERE/files" "$HERE/configure.sh" "$VARIANT" "${PACKAGES[*]}")
if fresh "$OUT" "$KEY"; then exit 0; fi

mkdir -p "$CACHE/deb/mmdebstrap" "$(dirname "$OUT")"
PART=$(dirname "$OUT")/.$(basename "$OUT").$$.part.tar
trap 'rm -f "$PART"' EXIT
trap 'exit 130' INT TERM
MIRROR=$(mirror)
SECURITY=$(repository debian-security)

say "installing $VARIANT from $MIRROR"
# INITRD=No: the image has an initramfs of its own, Debian's is not built.
INITRD=No mmdebstrap --mode=auto --variant=minbase --format=tar --architectures=amd64 \
    --include="$(IFS=,; echo "${PACKAGES[*]}")" \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --skip=download/empty --skip=essential/unlink \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="sync-in '$CACHE/deb/mmdebstrap' /var/cache/apt/archives" \
    --customize-hook="sync-out /var/cache/apt/archives '$CACHE/deb/mmdebstrap'" \
    --customize-hook="sync-in '$HERE/files/common' /" \
    --customize-hook="sync-in '$FILES' /" \
    --customize-hook="chroot \"\$1\" /bin/sh -e <'$HERE/configure.sh'" \
    "$SUITE" "$PART" \
    "deb [signed-by=$KEYRING] $MIRROR $SUITE main" \
    "deb [signed-by=$KEYRING] $MIRROR $SUITE-updates main" \
    ${SECURITY:+"deb [signed-by=$KEYRING] $SECURITY $SUITE-security main"} \
    || die "mmdebstrap failed; as an ordinary user it needs ranges in /etc/subuid and /etc/subgid (usermod --add-subuids)"

replace "$OUT" "$PART" "$KEY"
