# Shared by the scripts in dev/: where the peers live, and how to say things.
# shellcheck shell=bash

# Everything fetched or built lands here, outside the source tree.
PEERS=${INLAY_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/inlay/peers}

DEV=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Bring Debian's package lists up to date, once a run.
apt_update() {
    [[ -n ${APT_UPDATED:-} ]] && return
    command -v apt-get >/dev/null || die "no apt-get here: needs Debian or a derivative of it to get $1"
    [[ $(id -u) == 0 ]] || die "getting Debian's package $1 needs root (apt-get update)"
    say "apt-get update"
    apt-get update -qq -o Acquire::Retries=3 >"$PEERS/apt.log" 2>&1 || die "apt-get update failed on the way to $1: see $PEERS/apt.log"
    APT_UPDATED=1
}

# install_package PACKAGE: Debian's package, installed.
install_package() {
    apt_update "$1"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$1" \
        >>"$PEERS/apt.log" 2>&1 || die "apt-get install $1 failed: see $PEERS/apt.log"
    say "$1 installed"
}

# unpack_package PACKAGE: Debian's package, unpacked below $PEERS/debian without
# installing it, so that no service is started and the system stays as it was.
unpack_package() {
    local package=$1 work
    apt_update "$package"
    work=$(mktemp -d)
    (cd "$work" && apt-get download -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root "$package") >>"$PEERS/apt.log" 2>&1 \
        || die "apt-get download $package failed: see $PEERS/apt.log"
    dpkg-deb -x "$work"/*.deb "$PEERS/debian"
    say "$package $(dpkg-deb -f "$work"/*.deb Version) from Debian"
    printf '%s %s\n' "$package" "$(dpkg-deb -f "$work"/*.deb Version)" >>"$PEERS/versions.new"
    rm -rf "$work"
}

# debian_tree DIR PACKAGES SUITE...: a Debian tree with those packages, from the
# first suite that gives them. The suite lands in DIR/suite.
debian_tree() {
    local dir=$1 packages=$2 suite
    shift 2
    command -v mmdebstrap >/dev/null || install_package mmdebstrap
    for suite in "$@"; do
        rm -rf "$dir.new"
        # sid's release file may be older than its validity says: take it all the same.
        if mmdebstrap --quiet --variant=extract --include="base-files,ca-certificates,$packages" \
            --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$dir.new" >"$PEERS/mmdebstrap.log" 2>&1; then
            echo "$suite" >"$dir.new/suite"
            rm -rf "$dir"
            mv "$dir.new" "$dir"
            return
        fi
        say "Debian $suite did not give $packages (see $PEERS/mmdebstrap.log)"
    done
    die "no Debian suite of ($*) gave $packages: see $PEERS/mmdebstrap.log"
}
