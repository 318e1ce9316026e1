#!/bin/bash
# Makes a small Debian as a tar archive: init, udev, SSH, network tools and
# Debian's own kernel. `debian` has Debian 12 with systemd, `debian-sysvinit` the same
# with sysvinit, `cluster` has systemd and the programs of more runes, `desktop` and
# `desktop-minimal` a login screen and what is behind it; SUITE-INIT-MANAGER is one of the
# lines of the file `combinations`. A tar keeps owners when an ordinary user runs this.
#
# No account has a password. Root logs in by the SSH keys of viver.toml; the
# host's own keys are made at boot where there are none. On a login screen the account
# guest needs none.
#
# usage: images/debian/build.sh FILE [debian | debian-sysvinit | cluster | desktop |
#        desktop-minimal | SUITE-INIT-MANAGER]
set -euo pipefail
RECIPE=debian
. "$(dirname "$0")/../lib.sh"
[ $# = 1 ] || [ $# = 2 ] || die "usage: $0 FILE [debian | debian-sysvinit | cluster | desktop | desktop-minimal | SUITE-INIT-MANAGER]"
OUT=$1 VARIANT=${2:-debian}
HERE=$IMAGES/debian
SUITE=bookworm LEAVE=() VALID="" HAS_FILES=""

need mmdebstrap mmdebstrap

PACKAGES=(linux-image-amd64 kmod udev dbus iproute2 iputils-ping netbase openssh-server procps less nano-tiny ca-certificates)
FILES=$HERE/files/$VARIANT
case $VARIANT in
debian | debian-sysvinit | cluster) PACKAGES+=(ifupdown isc-dhcp-client nftables) ;;
desktop | desktop-minimal)
    FILES=$HERE/files/desktop
    PACKAGES+=(systemd-sysv libpam-systemd network-manager polkitd
        xserver-xorg-core xserver-xorg-input-libinput # every card has modesetting
        lightdm lightdm-gtk-greeter console-setup xkb-data locales) ;;
esac
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
desktop)
    PACKAGES+=(xserver-xorg-video-all xserver-xorg-input-all # cards and tablets that have drivers of their own
        firmware-linux-free libgl1-mesa-dri
        xfce4 xfce4-terminal mousepad dbus-x11 pulseaudio pavucontrol xfce4-pulseaudio-plugin
        firefox-esr abiword gnumeric evince fonts-dejavu fonts-liberation) ;;
desktop-minimal) PACKAGES+=(openbox xterm fonts-dejavu-core) ;;
*)
    IFS=- read -r SUITE INIT MANAGER <<<"$VARIANT"
    grep -qx "$SUITE $INIT $MANAGER" "$HERE/combinations" || die "there is no variant $VARIANT: $HERE/combinations has no line \"$SUITE $INIT $MANAGER\""
    FILES=$HERE/files/manager-$MANAGER
    case $INIT in
    systemd) PACKAGES+=(systemd-sysv libpam-systemd) ;;
    # Other packages leave their init scripts to the last of these.
    sysvinit) PACKAGES+=(sysvinit-core initscripts sysv-rc insserv orphan-sysvinit-scripts) ;;
    openrc) PACKAGES+=(sysvinit-core initscripts openrc orphan-sysvinit-scripts) ;;
    runit) PACKAGES+=(runit-init initscripts sysv-rc insserv orphan-sysvinit-scripts) ;;
    esac
    case $MANAGER in
    ifupdown) PACKAGES+=(ifupdown isc-dhcp-client) ;;
    networkd) PACKAGES+=(systemd-resolved libnss-resolve) ;;
    netplan) PACKAGES+=(netplan.io systemd-resolved) ;;
    networkmanager) PACKAGES+=(network-manager) ;;
    *) PACKAGES+=("$MANAGER") ;;
    esac
    # No virtual machine has a use for these, which are half of the modules.
    for dir in drivers/gpu drivers/media drivers/net/wireless drivers/infiniband drivers/staging drivers/iio sound; do
        LEAVE+=("--dpkgopt=path-exclude=*/lib/modules/*/kernel/$dir/*")
    done
    # Nothing but this says how old what a mirror has of sid may be, and some keep one state.
    [ "$SUITE" != sid ] || VALID=' check-valid-until=no'
    ;;
esac

[ ! -d "$FILES" ] || HAS_FILES=yes
KEY=$(fingerprint "$0" "$IMAGES/lib.sh" "$HERE/files/common" "$FILES" "$HERE/configure.sh" "$VARIANT" "${PACKAGES[*]}" "${LEAVE[*]}")
if fresh "$OUT" "$KEY"; then exit 0; fi

# All of it is copied in and out, so each suite has its own.
DEBS=$CACHE/deb/mmdebstrap-$SUITE
mkdir -p "$DEBS" "$(dirname "$OUT")"
PART=$(dirname "$OUT")/.$(basename "$OUT").$$.part.tar
trap 'rm -f "$PART"' EXIT
trap 'exit 130' INT TERM
MIRROR=$(mirror)
SECURITY=$(repository debian-security)
SOURCES=("deb [signed-by=$KEYRING$VALID] $MIRROR $SUITE main")
# sid has no updates but itself.
if [ "$SUITE" != sid ]; then
    SOURCES+=("deb [signed-by=$KEYRING] $MIRROR $SUITE-updates main"
        ${SECURITY:+"deb [signed-by=$KEYRING] $SECURITY $SUITE-security main"})
fi

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
    "${LEAVE[@]}" \
    --skip=download/empty --skip=essential/unlink \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="sync-in '$DEBS' /var/cache/apt/archives" \
    --customize-hook="sync-out /var/cache/apt/archives '$DEBS'" \
    --customize-hook="sync-in '$HERE/files/common' /" \
    ${HAS_FILES:+--customize-hook="sync-in '$FILES' /"} \
    --customize-hook="chroot \"\$1\" /bin/sh -e <'$HERE/configure.sh'" \
    "$SUITE" "$PART" "${SOURCES[@]}" \
    || die "mmdebstrap failed; as an ordinary user it needs ranges in /etc/subuid and /etc/subgid (usermod --add-subuids)"

replace "$OUT" "$PART" "$KEY"
