#!/usr/bin/env bash
# Builds examples/project six times by plain BuildKit and six times through inlay,
# each with inline cache, and prints both side by side: steps that ran, steps from
# a cache, digest of the image. From nothing: starts its own buildkitd, registry
# and inlay, and stops them. Fails if inlay's digests are not all equal.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

inlay=${INLAY:-${CARGO_TARGET_DIR:-$DEV/../target}/release/inlay}
export PATH=$PEERS/bin:$PATH
[[ -x $PEERS/bin/buildkitd ]] || die "run \`make peers\` first"
[[ -x $inlay ]] || die "run \`make build\` first"
[[ $(id -u) == 0 ]] || die "buildkitd needs root"

work=$(mktemp -d "${TMPDIR:-/tmp}/inlay-demo-XXXXXX")
declare -A pids

# Ends what start began. SIGKILL will do: its state goes next. For a daemon in
# namespaces, its first process goes, and with that all that it runs or has mounted.
stop() {
    local pid=${pids[$1]} inner
    inner=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    kill -KILL ${inner:-"$pid"} 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    unset "pids[$1]"
}

clean_up() {
    local name
    for name in "${!pids[@]}"; do stop "$name"; done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND…
start() {
    local name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 </dev/null &
    pids[$name]=$!
}

# await NAME CONDITION…: until the condition holds; fails if NAME ends or takes too long
await() {
    local name=$1 tries=1000
    shift
    until "$@"; do
        if ! kill -0 "${pids[$name]}" 2>/dev/null || ((--tries == 0)); then
            tail -20 "$work/$name.log" >&2
            die "$name does not start"
        fi
        sleep 0.02
    done
}

start_registry() {
    cat >"$work/registry.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
YML
    start registry docker-registry serve "$work/registry.yml"
    await registry grep -qs 'listening on' "$work/registry.log"
    registry=$(sed -nE 's/.*listening on (127[^"]*)".*/\1/p' "$work/registry.log")
}

# start_daemon NAME: an empty buildkitd
start_daemon() {
    rm -rf "${work:?}/$1" "$work/$1.sock"
    cat >"$work/$1.toml" <<TOML
root = "$work/$1"
[grpc]
  address = ["unix://$work/$1.sock"]
[worker.oci]
  enabled = true
  networkMode = "host"
  gc = false
[worker.containerd]
  enabled = false
TOML
    start "$1" unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
        buildkitd --config "$work/$1.toml"
    await "$1" answers "unix://$work/$1.sock"
}

answers() { buildctl --addr "$1" debug workers >/dev/null 2>&1; }

wipe() {
    stop "$1"
    start_daemon "$1"
}

# build ADDRESS TAG BUILDCTL-OPTION…: sets ran, cached, digest
build() {
    local addr=$1 tag=$2 progress=$work/progress
    shift 2
    buildctl --addr "$addr" build --progress rawjson --frontend dockerfile.v0 \
        --local context="$work/project" --local dockerfile="$work/project" \
        --opt build-arg:SOURCE_DATE_EPOCH=1700000000 \
        --output "type=image,name=$registry/$tag,push=true,rewrite-timestamp=true" \
        --export-cache type=inline --metadata-file "$work/metadata" "$@" >"$progress" 2>&1 \
        || { grep -v '^{' "$progress" >&2; die "a build failed"; }
    digest=$(sed -nE 's/.*"containerimage.digest": "sha256:([0-9a-f]+)".*/\1/p' "$work/metadata" | head -1)
    # One vertex a line; what was once told to be cached is, even if its layer was downloaded later.
    read -r ran cached < <(sed 's/{"digest":"sha256:/\n&/g' "$progress" | awk '
        !/^{"digest":"sha256:/ || !/"name":"\[/ || /"name":"\[(internal|auth)\]/ || /"name":"[^"]*\] FROM / { next }
        { step = substr($0, 12, 71) }
        /"completed":/ && !state[step] { state[step] = "ran" }
        /"cached":true/ { state[step] = "cached" }
        END { for (step in state) n[state[step]]++; print n["ran"] + 0, n["cached"] + 0 }')
}

# The six builds of one column, on daemons of its own. column NAME FRONT: FRONT
# prints the address that reaches a daemon.
column() {
    local name=$1 front=$2 repo=$1/site one two row=0
    start_daemon "$name-1"
    start_daemon "$name-2"
    $front "$name-1" && one=$address
    $front "$name-2" && two=$address

    keep() {
        row=$((row + 1))
        rows[$name$row]=$(printf '%3d %6d   %.12s' "$ran" "$cached" "$digest")
        digests[$name$row]=$digest rans[$name$row]=$ran
    }
    build "$one" "$repo:1"; keep
    wipe "$name-1"
    build "$one" "$repo:2" --import-cache "type=registry,ref=$registry/$repo:1"; keep
    build "$two" "$repo:3"; keep
    build "$two" "$repo:4"; keep
    wipe "$name-1"
    build "$one" "$repo:5" --opt target=random; keep
    wipe "$name-1"
    build "$one" "$repo:6" --opt target=random --import-cache "type=registry,ref=$registry/$repo:5"; keep
    stop "$name-1"
    stop "$name-2"
}

directly() { address=unix://$work/$1.sock; }

through_inlay() {
    local socket=$work/$1-inlay.sock
    start "inlay-$1" "$inlay" serve --addr "unix://$socket" --buildkitd "unix://$work/$1.sock"
    await "inlay-$1" test -S "$socket"
    address=unix://$socket
}

cp -r "$DEV/../examples/project" "$work/project"
cp "$PEERS/rootfs.tar" "$work/project/"
declare -A rows digests rans
start_registry
column plain directly
column inlay through_inlay

# distinct COLUMN ROW…: how many different digests
distinct() {
    local name=$1 row
    shift
    for row in "$@"; do echo "${digests[$name$row]}"; done | sort -u | wc -l
}

version=$(buildctl --version | awk '{ print $3 }')
rule=-----------------------------------------
line() { printf '%-41s  %-26s  %s\n' "$@"; }
echo
line "" "BuildKit $version" "through inlay"
line "one project, inline cache in its image" "ran cached   digest" "ran cached   digest"
line "${rule:0:41}" "${rule:0:26}" "${rule:0:26}"
labels=("empty daemon" "daemon wiped, imports image 1" "another empty daemon, no import"
    "the same once more" "plus random bytes, daemon wiped" "daemon wiped, imports image 5")
for row in 1 2 3 4 5 6; do
    line "$row  ${labels[row - 1]}" "${rows[plain$row]}" "${rows[inlay$row]}"
done
line "${rule:0:41}" "${rule:0:26}" "${rule:0:26}"
line "digests of 1 to 4 (one is right)" "$(distinct plain 1 2 3 4)" "$(distinct inlay 1 2 3 4)"
line "digests of 5 and 6 (one is right)" "$(distinct plain 5 6)" "$(distinct inlay 5 6)"
echo

[[ $(distinct inlay 1 2 3 4) == 1 && $(distinct inlay 5 6) == 1 ]] || die "inlay gave different digests"
[[ ${rans[inlay2]} == 0 && ${rans[inlay6]} == 0 ]] || die "an image of inlay did not serve as a cache"
