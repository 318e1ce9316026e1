#!/bin/bash
# Writes depmod's tables about the modules that the machines in testdata/machines ask for,
# and what these need, out of those of a whole kernel. Which modules that is says the
# kernel's own modprobe (Debian package kmod), which shares no code with this package.
#
#	tables.sh TREE RELEASE OUT     TREE/lib/modules/RELEASE -> OUT/lib/modules/RELEASE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tree=$1 release=$2 out=$3/lib/modules/$2
from=$tree/lib/modules/$release
mkdir -p "$out"
modules=$(mktemp)
trap 'rm -f "$modules"' EXIT
sed 's/ *#.*//' "$here"/machines/*.txt | LC_ALL=C sort -u | while read -r modalias; do
    [ -z "$modalias" ] || /sbin/modprobe -d "$tree" -S "$release" -R "$modalias" 2>/dev/null || true
done | LC_ALL=C sort -u >"$modules"
# What they need, by file; then the lines about these, and of aliases those of drivers that
# the machines are asked about: of display and sound there are thousands.
awk -v names="$modules" '
    function name(file) { sub(/.*\//, "", file); sub(/\.ko.*/, "", file); gsub(/-/, "_", file); return file }
    BEGIN { while ((getline m <names) > 0) wanted[m] = 1 }
    { file = $1; sub(/:$/, "", file); line[file] = $0 }
    END {
        for (f in line) if (wanted[name(f)] && f ~ /drivers\/(ata|block|hid|hv|input|message|misc\/cardreader|mmc|net\/[^w]|nvme|pci|scsi|usb|virtio|xen)/) {
            keep[f] = 1
            n = split(line[f], words, " ")
            for (i = 2; i <= n; i++) keep[words[i]] = 1
        }
        for (f in keep) print line[f]
    }' "$from/modules.dep" | LC_ALL=C sort >"$out/modules.dep"
awk -v dep="$out/modules.dep" '
    function name(file) { sub(/.*\//, "", file); sub(/\.ko.*/, "", file); gsub(/-/, "_", file); return file }
    BEGIN { while ((getline l <dep) > 0) { split(l, w, ":"); keep[name(w[1])] = 1 } }
    keep[$NF] && $2 ~ /^(pci|usb|acpi|hid|virtio|vmbus|xen|mmc|serio|platform)\*?:/' "$from/modules.alias" >"$out/modules.alias"
awk -v dep="$out/modules.dep" '
    function name(file) { sub(/.*\//, "", file); sub(/\.ko.*/, "", file); gsub(/-/, "_", file); return file }
    BEGIN { while ((getline l <dep) > 0) { split(l, w, ":"); keep[name(w[1])] = 1 } }
    keep[$2]' "$from/modules.softdep" >"$out/modules.softdep"
cp "$from/modules.builtin" "$out/modules.builtin"
