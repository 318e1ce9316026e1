#!/usr/bin/env bash
# The one entry to the project: ./build.sh help
# Short verbs only; whatever needs thought is Go.
set -euo pipefail
cd "$(dirname "$0")"

out=images/out
lib=$out/lib
iso=$out/viver.iso
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath"

# Debian packages the build, the demo and the tests need.
build_packages=(squashfs-tools mmdebstrap xorriso grub-common grub-pc-bin grub-efi-amd64-bin
  mtools dosfstools ipxe cpio xz-utils zstd ca-certificates kmod uidmap)
qemu_packages=(qemu-system-x86 qemu-utils ovmf seabios ipxe-qemu)
test_packages=(minisign openssh-client iproute2 nftables iptables dnsmasq-base udhcpc isc-dhcp-client isc-dhcp-server kea-dhcp4-server kea-admin tftp-hpa atftp curl tcpdump
  nbdkit libnbd-bin aria2 transmission-cli python3-libtorrent systemd e2fsprogs xfsprogs btrfs-progs ntfs-3g exfatprogs fdisk util-linux)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

# need installs Debian packages that are missing, or says which they are.
need() {
  local p missing=()
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing Debian packages; as root run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_go() {
  command -v go >/dev/null && return
  echo "no Go toolchain found: install Go $(sed -n 's/^go //p' go.mod) or newer and put it in PATH" >&2
  exit 1
}

# keep NEW OLD gives a freshly built file its name only if it differs, so that
# what was made from an equal one stays fresh.
keep() { if cmp -s "$1" "$2"; then rm "$1"; else mv "$1" "$2"; fi; }

# build makes the host's programs and what viver ships beside it.
build() {
  need_go
  need "${build_packages[@]}"
  mkdir -p $out/bin $lib
  say "building viver and vfield"
  go build -ldflags='-s -w' -o $out/bin/vfield ./cmds/vfield
  go build -ldflags='-s -w' -o $out/bin/viver.part ./cmds/viver
  keep $out/bin/viver.part $out/bin/viver
  say "building the Go part of the initramfs"
  # The busybox is compiled in GOPATH mode, for which the Go command would set
  # the behaviour of Go 1.20; the last flag takes that back.
  # shellcheck disable=SC2046 # one word per program
  go tool u-root -o $lib/initramfs.part -initcmd uinit -defaultsh gosh -go-enable-inlining \
    -go-extra-args='-ldflags=-s -w -buildid= -X=runtime.godebugDefault=' \
    -files overlay/initramfs:. -files overlay/runes:etc/viver/runes \
    ./uinit ./cmds/vfield ./cmds/viverd ./cmds/viver $(rescue_programs) >$out/u-root.log 2>&1 ||
    { cat $out/u-root.log >&2; exit 1; }
  keep $lib/initramfs.part $lib/initramfs-go.cpio
  images/boot/build.sh $lib/boot
}

# rescue_programs are for people in the rescue shell.
rescue_programs() {
  printf 'github.com/u-root/u-root/cmds/core/%s ' gosh ls cat dmesg ip mount umount ps dd df free grep head tail hexdump kill lsmod shasum sleep
}

# image NAME builds one image into images/out/NAME, if anything it is made of
# has changed.
image() {
  local name=$1 tree=$out/trees/$1 dep fresh=yes
  [ -x "images/$name/build.sh" ] || { echo "no recipe images/$name; there are: $(cd images && ls -d */ | grep -v '^out' | tr -d / | tr '\n' ' ')" >&2; exit 1; }
  images/"$name"/build.sh "$tree"
  for dep in "$tree.stamp" $out/bin/viver $lib/initramfs-go.cpio $lib/boot.stamp "${XDG_CONFIG_HOME:-${HOME:-}/.config}/viver/owner.key"; do
    [ "$out/$name/manifest.json" -nt "$dep" ] || fresh=no
  done
  [ $fresh = yes ] && return
  say "building image $name"
  # The programs of tiny load no modules; the initramfs has loaded them all.
  case $name in tiny) set -- --modules none ;; *) set -- ;; esac
  $out/bin/viver image build "$tree" -o "$out/$name" "$@"
}

iso() {
  build
  image debian
  say "building the medium"
  $out/bin/viver medium build $out/debian -o $iso
}

usage() {
  cat <<'EOF'
./build.sh VERB

  demo            build everything, boot a network of three machines in QEMU, show it working
  test [full]     all tests; "full" also under the race detector, and those that take very long
  test unit|race|netns|qemu    one tier only
  fuzz [SECONDS] [WORD]    fuzz each codec for that long (60), several at a time; WORD: only
                  those with it in their name, such as "cluster" (images/out/test/fuzz)
  sim [FLAGS]     simulate networks of up to 10,000 nodes (images/out/bench/sim.json)
  iso             build the default medium (images/out/viver.iso)
  image NAME      build one image: tiny, debian, debian-sysvinit
  qemu [ISO] [-n 3] [--firmware bios|uefi|uefi-secure] [--mem 1G] [--display]
                  boot a medium and a network beside it, interactively
  bench [quick]   measure V-FIELD beside NBD, HTTP and BitTorrent clients, in about an hour
                  ("quick": the most telling rows, 6 minutes; --publish: show the last
                  results in docs/bench; else flags, see docs/bench/README.md)
  bench storm     switch on 64 machines at one moment, in namespaces (5 minutes)
  build           build the programs only
  setup           install what the build and the tests need (as root)
  clean           remove images/out
EOF
}

# boots shows the table of clients that the log of a test run holds, if any.
boots() {
  local rows
  rows=$(grep -oh 'boots: |.*' "$1") || return 0
  printf '%s\n' '| client | network | boots | seconds from power-on to kernel |' '|---|---|---|---|'
  sed 's/^boots: //' <<<"$rows" | sort
}

# failures LOG shows the last lines that each failed test printed with a place in
# the source, each with the lines that continue it. A test that ran in namespaces
# has its lines further in.
failures() {
  awk '
    NR == FNR { if (sub(/^ *--- FAIL: /, "") && !failed[$1]++) order[++tests] = $1; next }
    /^ *=== / { name = $3; more = 0 }
    !failed[name] { next }
    { indent = match($0, /[^ ]/) }
    /^ *[A-Za-z0-9_]+\.go:[0-9]+: / { said[name, ++count[name]] = $0; at = indent; more = 8; next }
    more-- > 0 && (!indent || indent > at) { said[name, ++count[name]] = $0; next }
    { more = 0 }
    END {
      for (i = 1; i <= tests && i <= 20; i++) {
        print "--- FAIL: " order[i]; n = count[order[i]]
        for (j = n > 30 ? n - 29 : 1; j <= n; j++) print said[order[i], j]
      }
    }' "$1" "$1"
}

# tier NAME GO-TEST-ARGS... runs one tier of tests. Its whole output is kept;
# people see what failed and every skip with its reason. In CI a skip fails.
tier() {
  local name=$1 log=$out/test/$1.log status=0 skips
  shift
  mkdir -p $out/test
  say "tests: $name"
  local begin=$SECONDS
  go test -v -count=1 "$@" >"$log" 2>&1 || status=$?
  grep -E '^(ok|FAIL|panic:|--- FAIL|    --- FAIL)' "$log" || true
  say "$name took $((SECONDS - begin)) s"
  grep -oh 'stranger: .*' "$log" | sort -u || true
  boots "$log"
  if skips=$(grep -A3 -E '^ *--- SKIP' "$log"); then
    printf 'skipped in %s:\n%s\n' "$name" "$skips"
    [ -z "${CI:-}" ] || status=1
  fi
  if [ $status -ne 0 ]; then
    echo "--- the whole log is in $log; what the failed tests said:"
    failures "$log"
    grep -E '^#|^[^ ]+\.go:[0-9]+' "$log" | head -n 40 || true
    echo "--- what led to the failure, without what is for debugging:"
    grep -v level=DEBUG "$log" | grep -B60 -E '^ *--- FAIL|^ *panic:|^FAIL.*(build failed|setup failed)' | tail -n 300 || true
    return $status
  fi
}

test_unit() {
  tier unit -skip '^TestNetns' -timeout 10m ./internal/... ./uinit/... ./cmds/... ./kernelconfig/... ./images/... ./qemu-tests/guests/... ./qemu-tests/harness/lan/... ./qemu-tests/harness/outsider/... ./qemu-tests/harness/media/... ./qemu-tests/harness/show/... ./qemu-tests/harness/stall/...
}

# test_race needs a C compiler, which nothing else does. archtest reads source
# and runs nothing at once; under the race detector it takes minutes.
test_race() {
  need gcc libc6-dev
  # shellcheck disable=SC2046 # one word per package
  CGO_ENABLED=1 tier race -race -skip '^TestNetns' -timeout 20m \
    $(go list ./internal/... ./uinit/... ./cmds/... | grep -v '/archtest$')
}

test_netns() {
  tier netns -run '^TestNetns' -timeout 20m -p 1 ./internal/... ./cmds/...
}

# test_qemu [full] builds what the scenarios boot, and runs them one after the
# other. Those that take very long are for "full".
test_qemu() {
  local skip='^TestFull'
  [ "${1:-}" != full ] || skip='^$'
  build
  image tiny
  image debian
  image debian-sysvinit
  say "building the agent for test guests"
  qemu-tests/guests/build.sh $out/test
  go build -o $out/bin/network ./qemu-tests/cmd/network
  tier qemu -skip "$skip" -timeout 90m -p 1 ./qemu-tests/harness ./qemu-tests
}

# fuzz SECONDS [WORD] runs each fuzz target for that long, on one core each. The
# rows of its table come as the targets end, and are kept with their logs.
fuzz() {
  local seconds=${1:-60} word=${2:-} dir=$out/test/fuzz
  mkdir -p "$dir"
  rm -f "$dir"/*
  printf '%s\n' '| target | executions | for | result |' '|---|---|---|---|' | tee "$dir/table"
  grep -rEo --include=*_test.go '^func Fuzz\w+' internal uinit cmds qemu-tests |
    sed -E 's|/[^/]*:func | |' | sort | { grep -e "$word" || true; } |
    xargs -r -P "$(nproc)" -L 1 "$0" fuzz-one "$seconds" | tee -a "$dir/table"
  ! grep -q 'FAILED' "$dir/table"
}

# fuzz_one SECONDS PACKAGE TARGET runs one of them and prints its row. Inputs are
# hardly made smaller: where coverage changes from run to run, as with threads,
# each new one would take a minute of it.
fuzz_one() {
  local log=$out/test/fuzz/${2//\//-}-$3 result=ok last
  go test -run '^$' -fuzz "^$3\$" -fuzztime "$1s" -fuzzminimizetime 20x -parallel 1 -timeout 0 "./$2" >"$log" 2>&1 || result="FAILED: $log"
  last=$(sed -nE 's/^fuzz: elapsed: (\w+), execs: ([0-9]+) .*/\2 | \1/p' "$log" | tail -n 1)
  printf '| %s %s | %s | %s |\n' "$2" "$3" "${last:--}" "$result"
}

# storm measures how a room boots that is switched on together.
storm() {
  need_go
  need iproute2 udhcpc tftp-hpa atftp curl util-linux
  local log=$out/bench/storm.log
  mkdir -p $out/bench
  say "64 machines boot again and again; the table comes in about 5 minutes"
  VIVER_STORM_FULL=1 go test -v -count=1 -timeout 30m -run '^TestNetnsBootStorm$' ./internal/boothost/ >"$log" 2>&1 ||
    { tail -n 100 "$log"; exit 1; }
  sed -n 's/.*storm: //p' "$log"
}

# bench [quick] measures; bench --publish shows the last figures in docs/bench.
bench() {
  local args=()
  [ "${1:-}" != storm ] || { storm; return; }
  case ${1:-} in
  quick) args=(-quick); shift ;;
  --publish) args=(-publish docs/bench); shift ;;
  esac
  need_go
  need nbdkit libnbd-bin python3-libtorrent iproute2 util-linux
  mkdir -p $out/bin
  go build -ldflags='-s -w' -o $out/bin/vfield ./cmds/vfield
  go build -o $out/bin/vfield-bench ./cmds/vfield-bench
  exec $out/bin/vfield-bench "${args[@]}" "$@"
}

verb=${1:-help}
[ $# -eq 0 ] || shift
case $verb in
setup)
  need "${build_packages[@]}" "${qemu_packages[@]}" "${test_packages[@]}"
  need_go ;;
build) build ;;
image) build; image "${1:?which one? ./build.sh image NAME}" ;;
iso) iso ;;
test)
  need_go
  need "${build_packages[@]}" "${qemu_packages[@]}" "${test_packages[@]}"
  failed=
  case ${1:-all} in
  unit | race | netns | qemu) "test_$@" ;;
  # Each in a shell of its own, because a shell that looks at a function's
  # result does not stop at what fails inside.
  all) for t in unit netns qemu; do ./build.sh test $t || failed="$failed $t"; done ;;
  full) for t in unit race netns "qemu full"; do ./build.sh test $t || failed="$failed ${t% *}"; done ;;
  *) usage; exit 2 ;;
  esac
  [ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; } ;;
fuzz) need_go; fuzz "$@" ;;
fuzz-one) fuzz_one "$@" ;;
bench) bench "$@" ;;
sim)
  need_go
  mkdir -p $out/bench $out/bin
  go build -o $out/bin/vfield-sim ./cmds/vfield-sim
  [ $# -eq 0 ] || exec $out/bin/vfield-sim "$@"
  $out/bin/vfield-sim -o $out/bench/sim.json
  exec $out/bin/vfield-sim -bed $out/bench/vfield.json ;;
demo)
  need_go
  need "${build_packages[@]}" "${qemu_packages[@]}"
  iso
  qemu-tests/guests/build.sh $out/test
  go build -o $out/bin/demo ./qemu-tests/cmd/demo
  exec $out/bin/demo "$@" ;;
qemu)
  need "${qemu_packages[@]}"
  case ${1:-} in "" | -*) [ -e $iso ] || iso; set -- $iso "$@" ;; esac
  go build -o $out/bin/network ./qemu-tests/cmd/network
  exec $out/bin/network "$@" ;;
clean) rm -rf images/out qemu-tests/out ;;
help | -h | --help) usage ;;
*) usage >&2; exit 2 ;;
esac
