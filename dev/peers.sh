#!/usr/bin/env bash
# Gets the real programs that tests, benches and the demo run against, pinned,
# into ${INLAY_PEERS:-${XDG_CACHE_HOME:-~/.cache}/inlay/peers}:
#
#   bin/buildkitd bin/buildctl bin/buildx   built from dev/peers/go.mod
#   bin/{direct,descriptors,oracle,bench}   tests/clients, with the same modules
#   bin/runc bin/docker-registry            Debian's packages, unpacked
#   rootfs.tar                              a base image of Debian's busybox
#   docker-engine/                          a Debian tree with Docker Engine, containerd
#
# Quick when all is there. `versions` in that directory says what was taken.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

mkdir -p "$PEERS/bin"
exec 9>"$PEERS/lock"
flock 9 # one at a time: sessions share the directory

# Whatever decides what the peers are is part of the stamp.
clients=$DEV/../tests/clients
stamp=$(cat "$DEV"/peers/go.{mod,sum} "$DEV"/{lib,peers,base-image,docker-engine}.sh "$clients"/*/*.go | sha256sum | cut -d' ' -f1)
complete() {
    local file
    for file in bin/{buildkitd,buildctl,buildx,direct,descriptors,oracle,bench,runc,docker-registry} rootfs.tar docker-engine/version; do
        [[ -e $PEERS/$file ]] || return 1
    done
    [[ $(cat "$PEERS/stamp" 2>/dev/null) == "$stamp" ]]
}
if complete; then
    say "all there in $PEERS"
    exit 0
fi
rm -f "$PEERS/stamp" "$PEERS/versions.new"

# --- buildkitd, buildctl, buildx ---------------------------------------------

# The version of a module, as pinned.
pinned() { awk -v module="$1" '$1 == module { print $2 }' "$DEV/peers/go.mod"; }
go_needed=$(awk '$1 == "go" { print $2 }' "$DEV/peers/go.mod")

go_is_enough() {
    local have
    have=$("$1" env GOVERSION 2>/dev/null) || return 1
    [[ $(printf '%s\n' "$go_needed" "${have#go}" | sort -V | head -1) == "$go_needed" ]]
}

# Go: the machine's own, or Debian's where that is missing or too old.
export GOTOOLCHAIN=local CGO_ENABLED=0
go=go
if ! go_is_enough "$go"; then
    unset GOROOT
    go=$PEERS/go/usr/bin/go
    if ! go_is_enough "$go"; then
        say "no Go $go_needed here: taking Debian's"
        debian_tree "$PEERS/go" golang-go sid
        go_is_enough "$go" || die "needs Go $go_needed or later; Debian has $("$go" env GOVERSION)"
    fi
fi

# build PROGRAM MODULE: its package is cmd/PROGRAM in that module
build() {
    local program=$1 module=$2 version start=$SECONDS
    version=$(pinned "$module")
    printf '%s %s\n' "$program" "$version" >>"$PEERS/versions.new"
    if [[ $("$PEERS/bin/$program" --version 2>/dev/null || "$PEERS/bin/$program" version 2>/dev/null) == *" $version "* ]]; then
        say "$program $version is there"
        return
    fi
    say "building $program $version (minutes on a new machine)"
    (cd "$DEV/peers" && "$go" build -trimpath -buildvcs=false \
        -ldflags "-s -w -X $module/version.Version=$version" -o "$PEERS/bin/$program" "$module/cmd/$program") \
        || die "building $program failed"
    say "$program $version built in $((SECONDS - start)) s"
}

build buildkitd github.com/moby/buildkit
build buildctl github.com/moby/buildkit
build buildx github.com/docker/buildx

# --- clients of our own, for what BuildKit's tools do not do ------------------

for client in direct descriptors oracle bench; do
    (cd "$DEV/peers" && "$go" build -trimpath -buildvcs=false -ldflags "-s -w" -o "$PEERS/bin/$client" "$clients/$client/main.go") \
        || die "building the client $client failed"
    say "$client built"
done

# --- runc, docker-registry, busybox from Debian ------------------------------

unpack_package runc
unpack_package docker-registry
unpack_package busybox-static
ln -sfn ../debian/usr/sbin/runc "$PEERS/bin/runc"
ln -sfn ../debian/usr/bin/docker-registry "$PEERS/bin/docker-registry"
"$PEERS/bin/runc" --version >/dev/null || die "Debian's runc does not start: install its package runc, with what it depends on"

"$DEV/base-image.sh" "$PEERS/debian/bin/busybox" "$PEERS/rootfs.tar"

# --- Docker Engine -----------------------------------------------------------

"$DEV/docker-engine.sh"
printf 'docker-engine %s\n' "$(cat "$PEERS/docker-engine/version")" >>"$PEERS/versions.new"

mv "$PEERS/versions.new" "$PEERS/versions"
echo "$stamp" >"$PEERS/stamp"
say "all there in $PEERS"
