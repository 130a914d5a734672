#!/usr/bin/env bash
# dockerd.sh STATE [DOCKERD-OPTION...]: runs Docker Engine from the tree that
# docker-engine.sh made, in the foreground. All it writes is below STATE; its
# socket is STATE/docker.sock. STATE/daemon.json configures it, if it is there.
#
# Its mounts and processes live in namespaces of their own that end with it, so
# nothing is left mounted or running, however it ends. It needs root. To stop it
# in order, send SIGTERM to the child of this process.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tree=$PEERS/docker-engine
[[ -x $tree/usr/sbin/dockerd ]] || die "run \`make peers\`: missing Docker Engine in $tree"
state=$1
shift
mkdir -p "$state"
[[ -e $state/daemon.json ]] || echo '{}' >"$state/daemon.json"

# shellcheck disable=SC2016 # expands in the inner shell
exec unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    tree=$1 state=$2
    shift 2
    mount --bind "$tree" "$tree"            # dockerd wants its root on a mount
    mkdir -p "$tree/state"
    mount --bind "$state" "$tree/state"
    mount -t proc proc "$tree/proc"
    mount --rbind /sys "$tree/sys"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs tmpfs "$tree/run"
    mount -t tmpfs tmpfs "$tree/tmp"
    exec chroot "$tree" dockerd --config-file /state/daemon.json --data-root /state/data \
        --exec-root /state/exec --pidfile /state/docker.pid --host unix:///state/docker.sock \
        --bridge none --iptables=false --ip6tables=false "$@"
' dockerd "$tree" "$(realpath "$state")" "$@"
