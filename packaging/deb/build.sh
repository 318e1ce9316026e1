#!/bin/bash
# Makes a Debian package of what ./build.sh build made, with manual pages and shell
# completion from the commands' own help. It installs on Debian 12 and later and on Ubuntu;
# whoever installs it needs no Go.
#
# usage: packaging/deb/build.sh OUT BIN LIB     writes OUT/viver_VERSION_amd64.deb, prints its name
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# = 3 ] || { echo "usage: $0 OUT BIN LIB" >&2; exit 2; }
out=$1 bin=$2 lib=$3
here=packaging/deb

# The commit says which version it is, and when it is from: the same commit makes the same
# package.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
version=0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=8 HEAD)
maintainer=${VIVER_MAINTAINER:-$(git log -1 --format='%an <%ae>')}

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"
doc=$tree/usr/share/doc/viver
mkdir -p "$tree"/usr/{bin,lib/viver,share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,lintian/overrides}} "$doc" "$tree/DEBIAN"
install -m 755 "$bin/viver" "$bin/vfield" "$tree/usr/bin"
cp -R "$lib/." "$tree/usr/lib/viver"
find "$tree/usr/lib/viver" -name '*.stamp' -delete
find "$tree/usr/lib/viver" -type f -exec chmod 644 {} +
cp docs/*.md "$doc"
install -m 644 $here/copyright "$doc/copyright"
install -m 644 $here/lintian-overrides "$tree/usr/share/lintian/overrides/viver"

# page NAME SUMMARY WORD... makes the manual page NAME of what the words call.
page() {
  local name=$1 summary=$2
  shift 2
  help2man --no-info --section=1 --name="$summary" --version-string="${version%%.*}" "$*" |
    sed -e '1d' -e "s/^\.TH .*/.TH ${name^^} 1 \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)\" VIVER \"User Commands\"/" \
      -e "s/^\(viver\|vfield\) [a-z ]*\\\\- /$name \\\\- /" -e 's/^\.SS "\(Usage\|Examples\|Flags\|Available Commands\):"/.SH \U\1/' |
    sed '/^\.SH EXAMPLES/,/^\.SH FLAGS/{s/^\.IP$/&\n.nf/;s/^\.SH FLAGS/.fi\n&/}' |
    gzip -9n >"$tree/usr/share/man/man1/$name.1.gz"
}

# pages SUMMARY WORD... makes the pages of a command and of those below it.
pages() {
  local summary=$1 line help
  shift
  page "$(IFS=-; echo "$*")" "$summary" "$@"
  help=$("$@" --help)
  sed -n '/^Available Commands:/,/^$/s/^  \([a-z]*\)  *\(.*\)/\1 \2/p' <<<"$help" | while read -r line; do
    case ${line%% *} in completion | help) continue ;; esac
    pages "${line#* }" "$@" "${line%% *}"
  done
}

PATH=$tree/usr/bin:$PATH
pages "boot a network of PCs from one medium, without disks" viver
page vfield "serve a VIVER image to NBD clients" vfield
viver completion bash >"$tree/usr/share/bash-completion/completions/viver"
viver completion zsh >"$tree/usr/share/zsh/vendor-completions/_viver"
viver completion fish >"$tree/usr/share/fish/vendor_completions.d/viver.fish"

printf 'viver (%s) unstable; urgency=medium\n\n  * Made of the commit of that number.\n\n -- %s  %s\n' \
  "$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
install -m 755 $here/prerm "$tree/DEBIAN/prerm"
sed -e "s/@VERSION@/$version/" -e "s/@MAINTAINER@/$maintainer/" -e "s/@SIZE@/$(du -k -s --apparent-size "$tree/usr" | cut -f1)/" $here/control >"$tree/DEBIAN/control"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$tree" -type d -exec chmod 755 {} +
find "$tree/usr/share" "$tree/DEBIAN/control" "$tree/DEBIAN/md5sums" -type f -exec chmod 644 {} +

mkdir -p "$out"
deb=$out/viver_${version}_amd64.deb
rm -f "$out"/viver_*_amd64.deb
dpkg-deb --root-owner-group -Zxz --build "$tree" "$deb.part" >&2
mv "$deb.part" "$deb"
echo "$deb"
