#!/bin/bash
# Builds a kernel out of Debian's source that has built in what stands between a machine and
# its root disk: Debian's configuration, with the differences in images/kernel/fragment.
#
# usage: images/kernel/build.sh OUT [config]
#
# OUT/boot has kernel and configuration, OUT/lib/modules its modules. With "config" only the
# configuration is made: OUT/config.
set -euo pipefail
RECIPE=kernel
. "$(dirname "$0")/../lib.sh"
case $# in 1) ;; 2) [ "$2" = config ] || die "usage: $0 OUT [config]" ;; *) die "usage: $0 OUT [config]" ;; esac
mkdir -p "$1"
OUT=$(realpath "$1")
SUITE=bookworm
export PATH=$PATH:/usr/sbin:/sbin

need make make
need gcc gcc
need flex flex
need bison bison
need dpkg-deb dpkg

# source_package prints the package with the source of the kernel that Debian has today.
source_package() {
    APT_CONFIG=$(apt_root $SUITE)/apt.conf apt-cache depends linux-source |
        sed -n 's/^ *Depends: \(linux-source-[^ <]*\).*/\1/p' | head -n 1
}

name=$(source_package)
[ -n "$name" ] || die "Debian $SUITE has no package linux-source"
source=$(apt_fetch $SUITE "$name")
image=$(apt_fetch $SUITE "$(kernel_package $SUITE)")

mkdir -p "$CACHE"
WORK=$(mktemp -d "$CACHE/kernel.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM

say "unpacking $(basename "$source")"
mkdir "$WORK/deb" "$WORK/source"
dpkg-deb -x "$source" "$WORK/deb"
only=()
# Of 1.3 GB the configuration needs these.
[ $# = 1 ] || only=(--wildcards '*/Kconfig*' '*/scripts' '*/Makefile' '*/arch/x86' '*/Kbuild')
tar -xf "$WORK"/deb/usr/src/linux-source-*.tar.* -C "$WORK/source" --strip-components=1 "${only[@]}"
dpkg-deb --fsys-tarfile "$image" | tar -x -C "$WORK" --wildcards './boot/config-*'

say "merging images/kernel/fragment with Debian's configuration"
cd "$WORK/source"
./scripts/kconfig/merge_config.sh -m "$WORK"/boot/config-* "$IMAGES/kernel/fragment" >"$WORK/merge.log"
# The kernel's own rules have the last word; what they took back is said.
make -s olddefconfig
lost=$(grep -E '^(CONFIG_|# CONFIG_)' "$IMAGES/kernel/fragment" | while read -r line; do
    case $line in
    '# '*) name=${line#\# }; grep -q "^${name%% *}=" .config && echo "  $line" ;;
    *) grep -qx "$line" .config || echo "  $line" ;;
    esac
done) || true
[ -z "$lost" ] || die "Debian's kernel does not take these lines of images/kernel/fragment (what do they depend on?):
$lost"
if [ $# = 2 ]; then
    cp .config "$OUT/config"
    say "$OUT/config: $(grep -c '=y$' .config) built in, $(grep -c '=m$' .config) modules"
    exit
fi

# What is made with the source's own key would not be trusted by anybody's firmware either.
need bc bc
[ -e /usr/include/libelf.h ] || die "the file libelf.h is missing: apt-get install libelf-dev"
[ -e /usr/include/openssl/evp.h ] || die "the file openssl/evp.h is missing: apt-get install libssl-dev"
need depmod kmod
./scripts/config --set-str SYSTEM_TRUSTED_KEYS '' --set-str LOCALVERSION -viver --disable MODULE_SIG_ALL
make -s olddefconfig
release=$(make -s kernelrelease)
say "building kernel $release: on two cores this takes hours; the log is $OUT/build.log"
started=$SECONDS
make -j"$(nproc)" bzImage modules >"$OUT/build.log" 2>&1 || { tail -n 30 "$OUT/build.log" >&2; die "the build failed: $OUT/build.log"; }
rm -rf "${OUT:?}/boot" "${OUT:?}/lib"
mkdir -p "$OUT/boot"
make -s INSTALL_MOD_PATH="$OUT" INSTALL_MOD_STRIP=1 modules_install >>"$OUT/build.log" 2>&1
rm -f "$OUT/lib/modules/$release"/{build,source}
cp arch/x86/boot/bzImage "$OUT/boot/vmlinuz-$release"
cp .config "$OUT/boot/config-$release"
depmod -b "$OUT" "$release"
say "kernel $release in $((SECONDS - started)) s: $(stat -c %s "$OUT/boot/vmlinuz-$release") bytes, modules $(du -sm "$OUT/lib" | cut -f 1) MB
Copy $OUT/boot and $OUT/lib over a tree, and build an image of that with --kernel $release."
