#!/usr/bin/env bash
# Gets a Debian tree with Docker Engine, its BuildKit inside, into
# ${INLAY_PEERS:-…}/docker-engine, beside the system. Newest Debian first; its
# version lands in `version` there. `dev/dockerd.sh` runs it.
#
# What for: a daemon whose classic image store has no `local` cache exporter,
# the containerd image store beside it, and an older BuildKit than the pinned one.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tree=$PEERS/docker-engine
if [[ -x $tree/usr/sbin/dockerd && -s $tree/version ]]; then
    say "Docker Engine $(cat "$tree/version") is there"
    exit 0
fi
mkdir -p "$PEERS"
debian_tree "$tree" docker.io,docker-cli,runc,containerd ${INLAY_DOCKER_SUITES:-sid trixie}
# "Docker version 28.5.2+dfsg4, build …"; run in the tree for its libraries.
version=$(chroot "$tree" dockerd --version | sed -E 's/.*version ([^,]+),.*/\1/')
echo "$version ($(cat "$tree/suite"))" >"$tree/version"
say "Docker Engine $(cat "$tree/version") from Debian"
