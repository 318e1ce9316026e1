# shellcheck shell=bash
# Shared by the recipes: sourced, never run.
#
# A recipe writes one root file system, as a tree or as a tar, and is built
# again only when something it was built from has changed. Nothing here needs
# root: packages are fetched with an apt configuration of our own, which reads
# and writes below the cache directory only.

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${VIVER_CACHE:-$IMAGES/out/cache}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# say prints what is being built.
say() { printf '%s: %s\n' "$RECIPE" "$*" >&2; }

# die ends the recipe with a reason.
die() { say "$*"; exit 1; }

# need names a program that must exist and the package that has it.
need() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ||
        die "the program $1 is missing: apt-get install $2"
}

# repository PATH prints the address of the Debian archive PATH (debian or
# debian-security) that this machine already uses, so that a site with a mirror
# of its own stays on it; nothing where it uses none.
repository() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -E "/$1/?\$" | head -n 1 | sed 's,/*$,,' || true
}

# mirror prints the address of the Debian archive; VIVER_MIRROR overrides it.
mirror() {
    local found=${VIVER_MIRROR:-$(repository debian)}
    [ -n "$found" ] || die "this machine's apt knows no Debian archive: set VIVER_MIRROR to the address of one"
    printf '%s\n' "$found"
}

# fingerprint hashes the named files and strings.
fingerprint() {
    local input
    for input in "$@"; do
        if [ -d "$input" ]; then
            # Names in it, not where it lies: another checkout has the same trees.
            (cd "$input" && find . -type f -print0 | sort -z | xargs -0r sha256sum)
        elif [ -f "$input" ]; then
            sha256sum <"$input"
        else
            printf '%s\n' "$input"
        fi
    done | sha256sum | cut -d ' ' -f 1
}

# fresh OUT STAMP succeeds when OUT was built from exactly these inputs.
fresh() { [ -e "$1" ] && [ "$(cat "$1.stamp" 2>/dev/null)" = "$2" ]; }

# replace OUT NEW STAMP puts what was built in its place and records what it was
# built from. When it is interrupted, OUT does not count as fresh.
replace() {
    rm -f "$1.stamp"
    rm -rf "$1"
    mv "$2" "$1"
    printf '%s\n' "$3" >"$1.stamp.part"
    mv "$1.stamp.part" "$1.stamp"
}

# apt_root SUITE makes a private apt configuration and prints its directory.
# Its package lists are fetched once a day.
apt_root() {
    local suite=$1 root=$CACHE/apt/$1 lists
    mkdir -p "$root"/{etc/none,lists/partial,archives/partial}
    printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$(mirror)" "$suite" >"$root/etc/sources.list"
    : >"$root/status"
    cat >"$root/apt.conf" <<CONF
Dir::Etc "$root/etc";
Dir::Etc::sourcelist "$root/etc/sources.list";
Dir::Etc::parts "$root/etc/none";
Dir::Etc::sourceparts "$root/etc/none";
Dir::Etc::preferencesparts "$root/etc/none";
Dir::Etc::trustedparts "$root/etc/none";
Dir::State "$root";
Dir::State::lists "$root/lists";
Dir::State::status "$root/status";
Dir::Cache "$root";
Dir::Cache::archives "$root/archives";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    lists=$(find "$root/lists" -maxdepth 1 -name '*_Packages*' -mmin -1440 | head -n 1)
    if [ -z "$lists" ]; then
        say "reading the package lists of Debian $suite"
        if ! APT_CONFIG=$root/apt.conf apt-get -qq -o APT::Update::Post-Invoke-Success::= update >&2; then
            [ -n "$(find "$root/lists" -maxdepth 1 -name '*_Packages*')" ] ||
                die "apt-get update failed for $(mirror) $suite: is the network there?"
            say "the mirror does not answer: going on with older package lists"
        fi
        find "$root/lists" -maxdepth 1 -name '*_Packages*' -exec touch {} +
    fi
    printf '%s\n' "$root"
}

# known FILE ROOT prints what FILE remembers, as long as the package lists of
# the apt root have not been renewed since: asking apt takes seconds.
known() {
    [ -s "$1" ] && [ -z "$(find "$2/lists" -maxdepth 1 -name '*_Packages*' -newer "$1")" ] && cat "$1"
}

# apt_fetch SUITE PACKAGE downloads a package into the cache and prints the
# path of the .deb. With no network a package fetched earlier is used.
apt_fetch() {
    local suite=$1 package=$2 root deb file
    deb=$CACHE/deb/$suite
    mkdir -p "$deb"
    root=$(apt_root "$suite")
    if file=$(known "$root/file-$package" "$root") && [ -e "$deb/$file" ]; then
        printf '%s\n' "$deb/$file"
        return
    fi
    # Asked from an empty directory: apt names nothing that it already sees.
    rm -rf "$deb/.part" && mkdir "$deb/.part"
    file=$(cd "$deb/.part" && APT_CONFIG=$root/apt.conf apt-get -qq --print-uris download "$package" |
        cut -d ' ' -f 2) || die "Debian $suite has no package $package"
    if [ ! -e "$deb/$file" ]; then
        say "fetching $package from Debian $suite"
        # apt checks the hash of what it downloads; the rename makes it whole.
        (cd "$deb/.part" && APT_CONFIG=$root/apt.conf apt-get -qq download "$package") >&2 ||
            die "could not fetch $package"
        mv "$deb/.part"/*.deb "$deb/$file"
    fi
    rmdir "$deb/.part"
    printf '%s\n' "$file" >"$root/file-$package"
    printf '%s\n' "$deb/$file"
}

# kernel_package SUITE prints the package that Debian's kernel meta package
# points to today.
kernel_package() {
    local root name
    root=$(apt_root "$1")
    if name=$(known "$root/kernel" "$root"); then
        printf '%s\n' "$name"
        return
    fi
    name=$(APT_CONFIG=$root/apt.conf apt-cache depends linux-image-amd64 |
        sed -n 's/^ *Depends: \(linux-image-[^ <]*\).*/\1/p' | head -n 1)
    [ -n "$name" ] || die "Debian $1 has no package linux-image-amd64"
    printf '%s\n' "$name" | tee "$root/kernel"
}
