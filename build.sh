#!/usr/bin/env bash
# The entry point of the project: ./build.sh help
# Short verbs only; all logic is in Go.
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
test_packages=(shellcheck minisign openssh-client openssh-server iproute2 nftables iptables dnsmasq-base udhcpc isc-dhcp-client chrony isc-dhcp-server kea-dhcp4-server kea-admin tftp-hpa atftp busybox curl tcpdump
  nbdkit libnbd-bin aria2 transmission-cli python3-libtorrent systemd e2fsprogs xfsprogs btrfs-progs ntfs-3g exfatprogs fdisk util-linux
  bzip2 skopeo umoci cryptsetup-bin dmsetup lvm2 mdadm
  openssl sbsigntool icecc ccache gcc libc6-dev make haproxy
  systemd-journal-remote openmpi-bin netpipe-openmpi slurmctld slurmd slurm-client munge)
deb_packages=(help2man lintian)
kernel_packages=(make gcc libc6-dev flex bison bc libelf-dev libssl-dev kmod)

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
  # Every machine fetches it before it boots. So functions of other people's packages are
  # not copied into those that call them, but where bytes of images pass; there is no
  # HTTP/2, which nobody speaks here; and viver lacks what makes images (its tag "node").
  # The busybox is compiled in GOPATH mode, for which the Go command would set
  # the behaviour of Go 1.20; a flag takes that back. The last one takes back -a, with
  # which u-root has every package compiled each time: the build cache knows what is fresh.
  # shellcheck disable=SC2046 # one word per program
  go tool u-root -o $lib/initramfs.part -initcmd uinit -defaultsh gosh -go-enable-inlining \
    -go-build-tags=node -go-build-tags=nethttpomithttp2 \
    -go-extra-args=-gcflags=github.com/...=-l -go-extra-args=-gcflags=mvdan.cc/...=-l \
    -go-extra-args=-gcflags=github.com/anacrolix/...= -go-extra-args=-gcflags=github.com/klauspost/...= \
    -go-extra-args='-ldflags=-s -w -buildid= -X=runtime.godebugDefault=' -go-extra-args=-a=false \
    -files overlay/runes:etc/viver/runes \
    ./uinit ./cmds/vfield ./cmds/viverd ./cmds/vrune ./cmds/viver $(rescue_programs) >$out/u-root.log 2>&1 ||
    { cat $out/u-root.log >&2; exit 1; }
  # It is packed here, once, and not for every image. What follows it in an initramfs begins
  # at a multiple of 512 bytes, packed or not. The level is that of
  # internal/bootfiles/compress.go; a file without time and name packs to the same bytes.
  truncate -s %512 $lib/initramfs.part
  zstd --quiet --force --rm --threads=0 -18 $lib/initramfs.part -o $lib/initramfs.part.zst
  keep $lib/initramfs.part.zst $lib/initramfs-go.cpio.zst
  images/boot/build.sh $lib/boot
}

# rescue_programs are for people in the rescue shell.
rescue_programs() {
  printf 'github.com/u-root/u-root/cmds/core/%s ' gosh ls cat dmesg ip mount umount ps dd df free grep head tail hexdump kill lsmod shasum sleep
}

# combinations prints the names of the images for TestFullDistributions, one a line.
combinations() { tr ' ' - <images/debian/combinations; }

# image NAME builds one image into images/out/NAME, if anything it is made of
# has changed.
image() {
  local name=$1 tree=$out/trees/$1 profile=images/$1/profile dep fresh=yes
  if combinations | grep -qx "$name"; then
    images/debian/build.sh "$tree" "$name"
  elif [ -x "images/$name/build.sh" ]; then
    images/"$name"/build.sh "$tree"
  else
    echo "no recipe images/$name; there are: $(cd images && printf '%s ' */build.sh | sed 's,/build.sh,,g')$(combinations | tr '\n' ' ')" >&2
    exit 1
  fi
  [ -e "$profile" ] || profile=
  for dep in "$tree.stamp" $profile $out/bin/viver $lib/initramfs-go.cpio.zst $lib/boot.stamp "${XDG_CONFIG_HOME:-${HOME:-}/.config}/viver/owner.key"; do
    [ "$out/$name/manifest.json" -nt "$dep" ] || fresh=no
  done
  [ $fresh = yes ] && return
  say "building image $name"
  # The programs of tiny load no modules; the initramfs has loaded them all.
  case $name in tiny) set -- --modules none ;; *) set -- ;; esac
  $out/bin/viver image build "$tree" -o "$out/$name" ${profile:+--profile "$profile"} "$@"
}

# deb makes the Debian package, and lets lintian look at it; "deb test" also installs it in
# fresh systems, Debian 12 and 13.
deb() {
  local package suite
  need "${deb_packages[@]}"
  build
  say "packing"
  package=$(packaging/deb/build.sh $out/deb $out/bin $lib)
  lintian --no-cfg --allow-root --fail-on error,warning "$package"
  say "$package"
  [ "${1:-}" = test ] || return 0
  images/tiny/build.sh $out/trees/tiny
  for suite in bookworm trixie; do packaging/deb/test.sh "$package" $out/trees/tiny $suite; done
}

# profile NAME boots an image of that recipe once, one in which no files share blocks,
# and lists in the recipe the files that it reads.
profile() {
  local trial=$out/trial-$1
  need "${qemu_packages[@]}"
  build
  images/"$1"/build.sh "$out/trees/$1"
  say "building image $1 for its profile"
  $out/bin/viver image build "$out/trees/$1" -o "$trial" --separate
  say "booting it"
  $out/bin/viver image profile "$trial" -o "images/$1/profile"
  rm -rf "$trial"
}

iso() {
  build
  image debian
  say "building the medium"
  $out/bin/viver medium build $out/debian -o $iso
}

# demo_cluster boots a medium for a cluster, with a user and with what the machines do
# together.
demo_cluster() {
  local medium=$out/cluster.iso programs=$out/test/programs
  need_go
  need "${build_packages[@]}" "${qemu_packages[@]}" e2fsprogs
  build
  image cluster
  images/cluster/programs.sh $programs
  say "building the medium"
  $out/bin/viver medium build $out/cluster -o $medium \
    --settings images/cluster/viver.toml --rune images/cluster/users --rune $programs
  qemu-tests/guests/build.sh $out/test
  go build -o $out/bin/demo ./qemu-tests/cmd/demo
  exec $out/bin/demo --cluster "$@" $medium
}

usage() {
  cat <<'EOF'
./build.sh VERB

  demo            build everything, boot a network of three machines in QEMU, show it
  demo cluster    one, two and four machines compile, compute by MPI and work off a queue; one
                  loses its power meanwhile
  test [full]     all tests; "full" also under the race detector, and those that take very long
  test lint|unit|race|netns|qemu [-run NAME] [PACKAGE]
                  one tier, or some of its tests (./build.sh test --help)
  fuzz [SECONDS] [WORD]    fuzz each codec for that long (60), several at a time; WORD: only
                  those with it in their name, such as "cluster" (images/out/test/fuzz)
  sim [FLAGS]     simulate networks of up to 10,000 nodes (images/out/bench/sim.json)
  iso             build the default medium (images/out/viver.iso)
  image NAME      build one image: tiny, debian, debian-sysvinit, cluster, desktop, or one of the
                  inits and network managers in images/debian/combinations
  deb [test]      make a Debian package (images/out/deb); "test": install it in fresh systems
  profile NAME    boot that image once and list the files that it reads in images/NAME/profile,
                  which its later builds lay first
  kernel [config] build a kernel for the fastest boot out of Debian's source (images/out/kernel;
                  hours; "config": only its configuration)
  qemu [ISO] [-n 3] [--firmware bios|uefi|uefi-secure] [--mem 1G] [--display]
                  boot a medium and a network beside it, interactively
  bench [quick]   measure V-FIELD beside NBD, HTTP and BitTorrent clients, in about an hour
                  ("quick": the most important rows, 6 minutes; --publish: show the last
                  results in docs/bench; else flags, see docs/bench/README.md)
  bench boot [quick] [FLAGS]   measure a machine from power-on to login beside a local disk, a
                  root over NBD and live-boot, and a room that is switched on together, in
                  about an hour (--only viver:1: one row; --publish: show the last results)
  bench image [FLAGS]   measure how long an image takes beside mksquashfs alone, and its
                  memory (4 minutes; --publish: show the last results)
  bench storm     switch on 64 machines at one moment, in namespaces (5 minutes)
  build           build the programs only
  setup           install what the build and the tests need (as root)
  clean           remove images/out
EOF
}

test_usage() {
  cat <<'EOF'
./build.sh test [TIER [WORD...]]

  ./build.sh test                      lint, unit, netns, qemu
  ./build.sh test full                 also race, and what takes very long
  ./build.sh test lint                 gofmt, go vet, staticcheck, shellcheck (2 minutes, later seconds)
  ./build.sh test unit                 what needs neither namespaces nor machines
  ./build.sh test race                 the same under the race detector
  ./build.sh test netns                networks of namespaces on this machine: TestNetns...
  ./build.sh test qemu [full]          scenarios: networks of virtual machines

Words after the tier choose some of its tests; flags go to go test:

  ./build.sh test qemu -run TestMediumBoots          one scenario
  ./build.sh test netns boothost                     one package's tests in namespaces
  ./build.sh test netns -run BootStorm boothost      those of them with that in their name
  ./build.sh test unit TestFilesStaySmall            without -run, too
  ./build.sh test unit ./internal/dhcp -v            all that they print
  ./build.sh test unit swarm -count 20 -failfast     again and again
  ./build.sh test qemu -list                         which tests there are

Logs are in images/out/test, and tables that tests make in TIER.tables there.
EOF
}

# scripts prints the names of all shell scripts: by their first line, or their name.
scripts() {
  find . \( -path ./.git -o -path ./images/out -o -path ./qemu-tests/out \) -prune -o -type f -print0 |
    xargs -0 awk 'FNR == 1 && (/^#!.*[\/ ](ba)?sh( |$)/ || FILENAME ~ /\.sh$/) { print FILENAME } { nextfile }'
}

# unformatted DIR... prints the Go files that gofmt would change, if any, and fails.
unformatted() {
  local files
  files=$(gofmt -l "$@")
  [ -z "$files" ] || { printf '%s\ngofmt -w mends them\n' "$files"; return 1; }
}

# lint changes nothing. All linters run, also when one fails.
lint() {
  need shellcheck
  local failed=0 dirs files onnode
  dirs=$(go list -f '{{.Dir}}' ./...)
  files=$(scripts)
  mapfile -t dirs <<<"$dirs"
  mapfile -t files <<<"$files"
  say "lint: gofmt"
  unformatted "${dirs[@]}" || failed=1
  say "lint: shellcheck"
  shellcheck "${files[@]}" || failed=1
  say "lint: go vet"
  go vet ./... || failed=1
  say "lint: staticcheck"
  go tool staticcheck ./... || failed=1
  # What is compiled otherwise for booted machines, which is little.
  mapfile -t onnode < <(grep -rlE --include='*.go' '^//go:build node$' . | sed -E 's|/[^/]*$||' | sort -u)
  say "lint: go vet and staticcheck with the tag node: ${onnode[*]}"
  go vet -tags node "${onnode[@]}" || failed=1
  go tool staticcheck -tags node "${onnode[@]}" || failed=1
  return $failed
}

# runtests [FLAGS] TIER [WORD...]: cmds/runtests/main.go says what it takes.
runtests() {
  mkdir -p $out/bin
  go build -o $out/bin/runtests ./cmds/runtests
  $out/bin/runtests "$@"
}

# test_race needs a C compiler, which nothing else does.
test_race() {
  need gcc libc6-dev
  CGO_ENABLED=1 runtests race "$@"
}

# test_qemu [full] [WORD...] builds what the scenarios boot, and runs them. Those that
# take very long are for "full", or for their names.
test_qemu() {
  local flags=() wanted name
  [ "${1:-}" != full ] || { flags=(-full); shift; }
  # A name that is wrong is found before anything is built.
  runtests "${flags[@]}" -check qemu "$@"
  case " $* " in *" -list "*) return ;; esac
  need "${build_packages[@]}" "${qemu_packages[@]}" "${test_packages[@]}"
  for_scenarios
  # Its image and its boots take ten minutes, so it is for "full", or for its name.
  case " ${flags[*]} $* " in *" -full "* | *Cluster*) image cluster ;; esac
  case " ${flags[*]} $* " in *" -full "* | *Desktop*) image desktop-minimal ;; esac
  case " ${flags[*]} $* " in *" -full "* | *KernelConfig*) need "${kernel_packages[@]}" ;; esac
  # So are these, which take an hour; with one in the name of a test it alone is made.
  case " ${flags[*]} $* " in
  *" -full "* | *Distributions*)
    wanted=$(combinations | while read -r name; do case " $* " in *"$name"*) echo "$name" ;; esac; done)
    for name in ${wanted:-$(combinations)}; do image "$name"; done ;;
  esac
  runtests "${flags[@]}" qemu "$@"
}

# for_scenarios builds what the scenarios of a plain run boot.
for_scenarios() {
  build
  image tiny
  image debian
  image debian-sysvinit
  say "building the agent for test guests"
  qemu-tests/guests/build.sh $out/test
  qemu-tests/signed/build.sh $out/signed $lib
  go build -o $out/bin/network ./qemu-tests/cmd/network
}

# tiers TIER... runs these tiers and sets failed to those in which something failed. Each
# has a shell of its own, because a shell that looks at a function's result does not stop
# at what fails inside. The tests in namespaces mostly wait, so what the scenarios boot is
# built meanwhile, by a group of processes that ends with this one. If that fails, it does
# so again, and is shown, before the scenarios.
tiers() {
  local t building=
  for t; do
    if [ "$t" = netns ]; then
      say "building what the scenarios boot: $out/test/build.log"
      mkdir -p $out/test
      set -m
      nice "$0" for-scenarios >$out/test/build.log 2>&1 </dev/null &
      building=$!
      set +m
      # shellcheck disable=SC2064 # it is known now
      trap "kill -- -$building 2>/dev/null" EXIT
    fi
    ./build.sh test "$t" || failed="$failed $t"
  done
  say "waiting for what the scenarios boot"
  wait $building || true
  trap - EXIT
}

# run_tests [TIER [WORD...]] is the verb "test".
run_tests() {
  local tier=${1:-all} failed=
  [ $# -eq 0 ] || shift
  case " $tier $* " in *" -h "* | *" -help "* | *" --help "* | " help "*) test_usage; return ;; esac
  need_go
  # Some tests are skipped where a program is missing, with a line that says so.
  case $tier:$# in
  all:* | full:* | unit:0 | race:0 | netns:0) need "${build_packages[@]}" "${qemu_packages[@]}" "${test_packages[@]}" ;;
  esac
  case $tier in
  lint) lint ;;
  unit | netns) say "tests: $tier"; runtests "$tier" "$@" ;;
  race | qemu) say "tests: $tier"; "test_$tier" "$@" ;;
  all)
    tiers lint unit netns
    ./build.sh test qemu || failed="$failed qemu" ;;
  full)
    tiers lint unit race netns
    ./build.sh test qemu full || failed="$failed qemu"
    ./build.sh deb test || failed="$failed deb" ;;
  *)
    echo "which tests? ./build.sh test unit|race|netns|qemu $tier $*" >&2
    echo "(netns: names that begin with TestNetns; qemu: scenarios in qemu-tests; unit: all others; see ./build.sh test --help)" >&2
    return 2 ;;
  esac
  [ -z "$failed" ] || { echo "failed:$failed" >&2; return 1; }
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
  say "64 machines boot again and again; the table comes in about 5 minutes"
  VIVER_STORM_FULL=1 runtests -log $out/bench netns -run '^TestNetnsBootStorm$' -timeout 30m ./internal/boothost
}

# bench_boot [quick] measures boots; bench_boot --publish shows the last figures.
bench_boot() {
  local args=() name
  case ${1:-} in
  quick) args=(--quick); shift ;;
  --publish) args=(--publish docs/bench); shift ;;
  esac
  need_go
  mkdir -p $out/bin $out/bench/media
  go build -o $out/bin/bootbench ./qemu-tests/cmd/bootbench
  case " ${args[*]} $* " in *" --publish "* | *" --help "* | *" -h "*) exec $out/bin/bootbench "${args[@]}" "$@" ;; esac
  # A name that is wrong is found before anything is built.
  $out/bin/bootbench --check "${args[@]}" "$@"
  need "${build_packages[@]}" "${qemu_packages[@]}" e2fsprogs util-linux nbdkit dnsmasq-base
  build
  qemu-tests/guests/build.sh $out/test
  for name in debian tiny; do
    image $name
    say "building the medium of $name"
    $out/bin/viver medium build $out/$name -o $out/bench/media/$name.iso --rune $out/test/qemu-agent \
      --settings qemu-tests/baselines/viver.toml --append no_timer_check
  done
  qemu-tests/baselines/build.sh $out/bench/baselines $out/trees/debian \
    $out/test/qemu-agent/files/usr/local/libexec/viver/qemu-agent
  exec $out/bin/bootbench "${args[@]}" "$@"
}

# bench_image measures what an image takes; bench_image --publish shows the last figures.
bench_image() {
  local args=()
  case ${1:-} in --publish) args=(--publish docs/bench); shift ;; esac
  need_go
  mkdir -p $out/bin
  go build -o $out/bin/imagebench ./cmds/imagebench
  case " ${args[*]} $* " in *" --publish "* | *" --help "* | *" -h "*) exec $out/bin/imagebench "${args[@]}" "$@" ;; esac
  need "${build_packages[@]}"
  build
  images/debian/build.sh $out/trees/debian
  exec $out/bin/imagebench "$@"
}

# bench [quick] measures; bench --publish shows the last figures in docs/bench.
bench() {
  local args=()
  case ${1:-} in
  storm) storm; return ;;
  boot) shift; bench_boot "$@"; return ;;
  image) shift; bench_image "$@"; return ;;
  esac
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
profile) profile "${1:?which image? ./build.sh profile NAME}" ;;
iso) iso ;;
deb) deb "$@" ;;
test) run_tests "$@" ;;
fuzz) need_go; fuzz "$@" ;;
fuzz-one) fuzz_one "$@" ;;
for-scenarios) for_scenarios ;;
bench) bench "$@" ;;
sim)
  need_go
  mkdir -p $out/bench $out/bin
  go build -o $out/bin/vfield-sim ./cmds/vfield-sim
  [ $# -eq 0 ] || exec $out/bin/vfield-sim "$@"
  $out/bin/vfield-sim -o $out/bench/sim.json
  exec $out/bin/vfield-sim -bed $out/bench/vfield.json ;;
demo)
  case ${1:-} in cluster) shift; demo_cluster "$@" ;; esac
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
kernel)
  need "${kernel_packages[@]}"
  exec images/kernel/build.sh $out/kernel "$@" ;;
clean) rm -rf images/out qemu-tests/out ;;
help | -h | --help) usage ;;
*) usage >&2; exit 2 ;;
esac
