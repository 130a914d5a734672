#!/usr/bin/env bash
# images.sh DIR: builds the images that BuildKit's suites pull (Dockerfile beside this) into the storage
# of a registry, DIR/data. The suites take an image that is there, whatever its digest. It is called in
# namespaces of its own, with which its daemons end.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
dir=$1 store=$1/data/docker/registry/v2

rm -rf "$dir"
mkdir -p "$dir/context" "$dir/state"
cp "$PEERS/rootfs.tar" "$DEV/suite/Dockerfile" "$dir/context/"
cat >"$dir/registry.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $dir/data}}
http: {addr: "127.0.0.1:0"}
YML
docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
registry=$!
buildkitd --addr "unix://$dir/sock" --root "$dir/state" --oci-worker-net host --containerd-worker=false \
    --otel-socket-path "$dir/otel.sock" >"$dir/buildkitd.log" 2>&1 &
daemon=$!
trap 'kill $registry $daemon' EXIT
host=
for ((tries = 0; tries < 500; tries++)); do
    host=$(sed -nE 's/.*listening on (127[^"]*)".*/\1/p' "$dir/registry.log")
    [[ -n $host && -S $dir/sock ]] && break
    sleep 0.02
done
[[ -S $dir/sock && -n $host ]] || die "no daemons to build the images with: $dir/*.log"

# build TARGET IMAGE [ATTRIBUTE...]
build() {
    local target=$1 image=$2 attribute attributes=
    shift 2
    for attribute in oci-mediatypes=false "$@"; do attributes+=,$attribute; done
    buildctl --addr "unix://$dir/sock" build --progress plain --frontend dockerfile.v0 \
        --local "context=$dir/context" --local "dockerfile=$dir/context" --opt "target=$target" \
        --output "type=image,name=$host/$image,push=true$attributes" >"$dir/build.log" 2>&1 \
        || die "$image is not built: $dir/build.log"
}

build busybox library/busybox:latest
build busybox library/busybox_amd64:latest
build busybox-musl library/busybox:stable-musl
build alpine library/alpine:latest
build debian amd64/debian:bullseye-20230109-slim
build nolayers tonistiigi/test:nolayers
build scanner docker/buildkit-syft-scanner:stable-1
build hellofs tonistiigi/hellofs:latest

# An image whose last layer is elsewhere, where nobody answers: the registry is asked next. BuildKit
# writes none, so a manifest is edited, and put into the registry's storage.
build foreign cpuguy83/buildkit-foreign:latest compression=uncompressed,force-compression=true
blob() { echo "$store/blobs/sha256/${1:0:2}/$1/data"; }
manifests=$store/repositories/cpuguy83/buildkit-foreign/_manifests
link=$manifests/tags/latest/current/link
plain=$(cut -d: -f2 "$link")
perl -0pe 's/rootfs\.diff\.tar"((?:(?!rootfs\.diff\.tar).)*)\z/rootfs.foreign.diff.tar","urls":["https:\/\/127.0.0.1:9\/layer.tar"]$1/s' \
    "$(blob "$plain")" >"$dir/foreign.json"
grep -q foreign.diff.tar "$dir/foreign.json" || die "the manifest with a foreign layer is as it was"
hash=$(sha256sum "$dir/foreign.json" | cut -d' ' -f1)
mkdir -p "$(dirname "$(blob "$hash")")" "$manifests/revisions/sha256/$hash" "$manifests/tags/latest/index/sha256/$hash"
mv "$dir/foreign.json" "$(blob "$hash")"
for link in "$link" "$manifests/revisions/sha256/$hash/link" "$manifests/tags/latest/index/sha256/$hash/link"; do
    printf 'sha256:%s' "$hash" >"$link"
done
say "the images of the suites are there"
