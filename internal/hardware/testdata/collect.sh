#!/bin/sh
# Writes what this machine is made of, for testdata/machines: the modalias of each device,
# by which drivers are found, and nothing else. A modalias has the IDs of makers, models and
# classes. Serial numbers and network addresses are elsewhere in /sys, which is not read;
# names that a maker's firmware gives the whole machine (dmi:) are left out, since some put
# a serial number there.
#
#	sh collect.sh >machines/NAME.txt
#
# A test's /sys may be given as an argument.
set -eu
sys=${1:-/sys}
printf '# %s\n' "$(cat "$sys/class/dmi/id/sys_vendor" "$sys/class/dmi/id/product_name" 2>/dev/null | tr '\n' ' ' | sed 's/ *$//')"
for device in "$sys"/bus/*/devices/*; do
    case ${device##*/bus/} in
    cpu/*) continue ;; # a list of a hundred features for each
    esac
    if [ -e "$device/modalias" ]; then cat "$device/modalias"; fi
    # SD cards and eMMC have it here only.
    if [ -e "$device/uevent" ]; then sed -n 's/^MODALIAS=mmc:/mmc:/p' "$device/uevent"; fi
done 2>/dev/null | grep -v '^dmi:' | LC_ALL=C sort -u
