#!/bin/bash
# Installs the package in a Debian that has nothing else, builds an image there of the tree
# TREE, verifies it, and removes the package again.
#
# usage: packaging/deb/test.sh DEB TREE [SUITE]
set -euo pipefail
deb=$(realpath "$1") tree=$(realpath "$2")
RECIPE=deb
. "$(dirname "$0")/../../images/lib.sh"
SUITE=${3:-bookworm}
mkdir -p "$CACHE/deb/mmdebstrap"

# What runs in the fresh system. "set -x" shows where it stopped.
checks=$(cat <<'EOF'
set -ex
apt-get install -y -qq --no-install-recommends /tmp/viver.deb >/dev/null
if command -v go; then exit 1; fi
cd /root
viver image build /tmp/tree -o lab --modules none
viver image verify lab
vfield --help >/dev/null
for page in viver viver-image-build viver-serve vfield; do test -s /usr/share/man/man1/$page.1.gz; done
bash -n /usr/share/bash-completion/completions/viver
apt-get purge -y -qq viver >/dev/null
test ! -e /usr/lib/viver
EOF
)
say "installing $(basename "$deb") in $SUITE"
mmdebstrap --mode=auto --variant=apt --format=null --architectures=amd64 \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
    --skip=download/empty --skip=essential/unlink \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="sync-in '$CACHE/deb/mmdebstrap' /var/cache/apt/archives" \
    --customize-hook="upload '$deb' /tmp/viver.deb" \
    --customize-hook="mkdir \"\$1/tmp/tree\"" \
    --customize-hook="sync-in '$tree' /tmp/tree" \
    --customize-hook="chroot \"\$1\" /bin/sh -c '$checks'" \
    "$SUITE" /dev/null "deb [signed-by=$KEYRING] $(mirror) $SUITE main"
say "installed, used and removed"
