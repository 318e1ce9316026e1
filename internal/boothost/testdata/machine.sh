#!/bin/sh
# One machine from power-on to the start of its kernel, played by programs that
# know nothing of us: udhcpc for firmware and for iPXE, a TFTP client, curl.
#
#   machine.sh CLIENT FILES [CARD]    in the machine's namespace, in a directory of its own
#
# CLIENT is the TFTP client of a BIOS that loads iPXE, or "uefi" for one that loads
# shim and GRUB, or "uefi-ipxe" for one that loads iPXE's shim and that. Each file has to be equal to that of its name in FILES. As
# udhcpc's script it gets the name of an event, and the lease in variables.
#
# shellcheck disable=SC2317 # ipxe and grub are called by what $start says
set -eu
case $1 in
bound)
  # shellcheck disable=SC2154 # udhcpc sets them
  ip addr replace "$ip/$mask" dev "$interface"
  # shellcheck disable=SC2154
  echo "$siaddr $boot_file" >lease
  exit ;;
deconfig | nak | leasefail) exit ;;
esac
client=$1 files=$2 card=${3:-eth0}

# ask ARCHITECTURE OPTION... sets host and file to what the machine is told to load.
ask() {
  arch=$1
  shift
  udhcpc -i "$card" -f -q -n -t 10 -T 2 -s "$0" -V "PXEClient:Arch:0$arch:UNDI:003001" -x "0x5d:$arch" "$@" >dhcp.log 2>&1 ||
    { cat dhcp.log >&2; exit 1; }
  read -r host file <lease
}

# load NAME fetches a boot program.
load() {
  case $client in
  curl | uefi*) curl -sSf --tftp-blksize 1456 -o program "tftp://$host/$1" ;;
  atftp) atftp --get --option 'blksize 1456' -l program -r "$1" "$host" ;;
  tftp) tftp -m binary "$host" -c get "$1" program ;;
  esac
  cmp program "$files/boot/$1" >&2
}

# fetch URL gets a file by HTTP.
fetch() {
  name=${1##*/}
  name=${name%[?]*}
  [ -e "$files/$name" ] || name=boot/$name
  curl -sSfL -A "$agent" --connect-timeout 10 "$1" | cmp - "$files/$name" >&2
}

# ipxe does once what the script says for kernel and initramfs, and under UEFI with
# Secure Boot on for the shim that starts the kernel.
ipxe() {
  for command in kernel initrd $secure; do
    fetch "$(sed -n "s/^iseq [$]{platform} efi && shim/shim/;/^$command /{s/.*\(http:[^ ]*\).*/\1/;s/[$]{stay}/$stay/;p}" script)" || return
  done
}

# grub does the same, from each HTTP server that the script names, in order.
grub() {
  # shellcheck disable=SC2013 # words, not lines
  for from in $(sed -n 's/.*for from in \(.*\) \$root; do/\1/p' script); do
    for command in linux initrd; do
      fetch "http://${from#http,}$(sed -n "s/.*$command (\$[a-z]*)\([^ ;]*\).*/\1/p" script)" || continue 2
    done
    return
  done
  return 1
}

ip addr flush dev "$card"
secure=
if [ "$client" = uefi ]; then
  ask 0007
  load "$file"
  load grubx64.efi
  mac=$(ip -o link show "$card" | sed 's/.*ether \([^ ]*\).*/\1/; y/:/-/')
  curl -sSf -o script "tftp://$host/grub/grub.cfg-01-$mac"
  start=grub agent=GRUB stay=
else
  arch=0000
  [ "$client" != uefi-ipxe ] || arch=0007
  ask "$arch"
  load "$file"
  if [ "$client" = uefi-ipxe ]; then
    load "${file%-shim*}.efi" # as the shim of iPXE's makers makes a name of its own
    secure=shim
  fi
  ask "$arch" -x 0x4d:69505845 # user class: iPXE
  start=ipxe agent=iPXE/1.21.1 stay=
  curl -sSf -A "$agent" -o script "$file"
fi
for delay in 1 2 4 8 16 32; do
  if $start; then
    exit 0
  fi
  echo "again after $delay s"
  stay=stay
  sleep $delay
done
exit 1
