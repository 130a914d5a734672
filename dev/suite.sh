#!/usr/bin/env bash
# suite.sh [SUITE...]: BuildKit's own integration suites (client, dockerfile, buildctl, frontend,
# solver) with inlay proxying to each of their daemons. Fails where a test does not pass that passes on
# buildkitd itself (dev/suite/passes/), or where inlay panics.
#
#   FILTER=Cache     only the tests with that in their names
#   DIRECT=1         on buildkitd itself, and writes the lists of what passes anew
#   SUITE_DIR        where all is kept (/var/tmp/inlay-suite): what passed with this inlay is not run
#                    again, so a run that was stopped goes on
#
# A test that does not pass is run again alone, both ways, up to three times: it is lost if it passes
# directly more often than through inlay.
set -euo pipefail
export LC_ALL=C
# All that is started ends with this script, and so do its mounts.
if [[ -z ${SUITE_NAMESPACES:-} ]]; then
    [[ $(id -u) == 0 ]] || { echo "suite.sh: error: needs root" >&2; exit 1; }
    SUITE_NAMESPACES=1 exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

declare -A package=([client]=client [dockerfile]=frontend/dockerfile [buildctl]=cmd/buildctl
    [frontend]=frontend [solver]=solver)
suites=("$@")
((${#suites[@]})) || suites=(client dockerfile buildctl frontend solver)
for suite in "${suites[@]}"; do
    [[ -n ${package[$suite]:-} ]] || die "no suite $suite"
done
inlay=$(realpath "${INLAY:-${CARGO_TARGET_DIR:-$DEV/../target}/release/inlay}") || die "run \`make build\` first"
[[ -x $inlay ]] || die "run \`make build\` first"
[[ -x $PEERS/bin/buildkitd ]] || die "run \`make peers\` first"
version=$(awk '$1 == "github.com/moby/buildkit" { print $2 }' "$DEV/peers/go.mod")
work=${SUITE_DIR:-/var/tmp/inlay-suite}/$version
mkdir -p "$work"/{bin,direct,through,tmp,logs}
exec 8>"$work/lock"
flock 8 # one at a time

# --- what the suites need -------------------------------------------------------------------------

for tool in git gpg ssh-keygen; do
    command -v "$tool" >/dev/null || { [[ $tool == gpg ]] && tool=gnupg; [[ $tool == ssh-keygen ]] && tool=openssh-client; install_package "$tool"; }
done
go=go
[[ -x $PEERS/go/usr/bin/go ]] && go=$PEERS/go/usr/bin/go
command -v "$go" >/dev/null || die "needs Go; \`make peers\` gets it"
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false'
# A module of its own: tests need more than the programs in dev/peers.
if [[ ! -f $work/module/go.mod ]]; then
    mkdir -p "$work/module"
    (cd "$work/module" && "$go" mod init suite && "$go" get "github.com/moby/buildkit@$version") \
        >"$work/go.log" 2>&1 || { rm -f "$work/module/go.mod"; die "no BuildKit $version: $work/go.log"; }
fi
cd "$work/module"
sources=$("$go" list -m -f '{{.Dir}}' github.com/moby/buildkit)
for suite in "${suites[@]}"; do
    [[ -x $work/bin/$suite.test ]] && continue
    say "building the suite $suite"
    { "$go" get -t "github.com/moby/buildkit/${package[$suite]}@$version" \
        && "$go" test -c -o "$work/bin/$suite.test" "github.com/moby/buildkit/${package[$suite]}"; } \
        >>"$work/go.log" 2>&1 || die "the suite $suite does not build: $work/go.log"
done

ln -sfn "$PEERS/bin/docker-registry" "$work/bin/registry"
for way in direct through; do
    for program in buildctl runc; do ln -sfn "$PEERS/bin/$program" "$work/$way/$program"; done
    ln -sfn "$work/bin/registry" "$work/$way/registry"
done
ln -sfn "$PEERS/bin/buildkitd" "$work/direct/buildkitd"
ln -sfn "$DEV/suite/buildkitd" "$work/through/buildkitd"

images=$(sha256sum "$DEV/suite/Dockerfile" "$DEV/suite/images.sh" "$PEERS/rootfs.tar" | sha256sum)
if [[ $(cat "$work/images.stamp" 2>/dev/null) != "$images" ]]; then
    PATH=$PEERS/bin:$PATH "$DEV/suite/images.sh" "$work/images"
    echo "$images" >"$work/images.stamp"
fi
if [[ ! -f $work/keys.stamp ]]; then
    rm -rf "$work/keys"
    for user in user1 user2; do
        for kind in gpg ssh; do
            BUILDKIT_TEST_SIGN_FIXTURES=$work/keys sh "$sources/hack/fixtures/gen_${kind}_test_env.sh" "$user" >>"$work/keys.log" 2>&1 \
                || die "no keys for the suites: $work/keys.log"
        done
    done
    touch "$work/keys.stamp"
fi
# The state of the daemons in memory: most of a test's time goes into syncing it to a disk.
mount -t tmpfs -o mode=1777 suite "$work/tmp"
export BUILDKIT_REGISTRY_MIRROR_DIR=$work/images BUILDKIT_TEST_SIGN_FIXTURES=$work/keys \
    SUITE_BUILDKITD=$PEERS/bin/buildkitd SUITE_INLAY=$inlay SUITE_LOGS=$work/logs

# --- runs -----------------------------------------------------------------------------------------

# How many tests are run by one program. What passed is kept after each.
CHUNK=40

# run WAY SUITE LOG TESTS...: tests as Top/Name, each with all that is below it
run() {
    local way=$1 suite=$2 log=$3 tops names
    shift 3
    tops=$(printf '%s\n' "$@" | cut -d/ -f1 | sort -u | paste -sd'|')
    names=$(printf '%s\n' "$@" | cut -d/ -f2 | sort -u | paste -sd'|')
    (cd "$sources/${package[$suite]}" && TMPDIR=$work/tmp PATH=$work/$way:$PATH timeout -k 30 1200 \
        "$work/bin/$suite.test" -test.run "^($tops)\$/^($names)\$/^worker=oci\$" -test.v=test2json \
        -test.timeout 1200s -test.parallel 2 >"$log" 2>&1 </dev/null) || true # its log tells
}

# What passed by logs: tests of one worker, and what is below them.
passed() { sed -nE 's/^.*--- PASS: ([^ ]*\/worker=oci[^ ]*) \([0-9.]+s\).*$/\1/p' "$@" | sort -u; }

# top FILE: its tests as Top/Name
top() { cut -d/ -f1-2 "$1" | sort -u; }

# run_all WAY SUITE TESTS PASSED: runs the tests of a file in chunks, and appends what passes
run_all() {
    local way=$1 suite=$2 tests=$3 into=$4 chunk number=0
    while mapfile -t -n "$CHUNK" chunk && ((${#chunk[@]})); do
        run "$way" "$suite" "$work/$way-$suite-$((++number)).log" "${chunk[@]}"
        passed "$work/$way-$suite-$number.log" >>"$into"
    done <"$tests"
}

if [[ -n ${DIRECT:-} ]]; then
    for suite in "${suites[@]}"; do
        run direct "$suite" "$work/direct-$suite.log" '[^/]*/.*'
        passed "$work/direct-$suite.log" >"$DEV/suite/passes/$suite.txt"
        say "$suite: $(wc -l <"$DEV/suite/passes/$suite.txt") tests pass directly"
    done
    exit
fi

# How often a test passes alone, of three times.
alone() {
    local way=$1 suite=$2 test=$3 name times=0
    name=$(cut -d/ -f1-2 <<<"$test")
    for _ in 1 2 3; do
        run "$way" "$suite" "$work/alone-$way-$suite.log" "$name"
        if passed "$work/alone-$way-$suite.log" | grep -qxF -- "$test"; then times=$((times + 1)); fi
    done
    echo "$times"
}

this=$(sha256sum "$inlay" "$DEV/suite/buildkitd" | sha256sum | cut -c1-16)
lost=0
for suite in "${suites[@]}"; do
    start=$SECONDS
    wanted=$work/$suite.wanted done=$work/$suite.$this.passed
    awk -F/ -v filter="${FILTER:-}" '$2 ~ filter' "$DEV/suite/passes/$suite.txt" >"$wanted"
    [[ -s $wanted ]] || die "no test of $suite has $FILTER in its name"
    touch "$done"
    # A test is run again unless all below it has passed.
    sort -u "$done" | comm -23 "$wanted" - >"$work/$suite.open"
    top "$work/$suite.open" >"$work/$suite.tests"
    run_all through "$suite" "$work/$suite.tests" "$done"
    sort -u "$done" | comm -23 "$wanted" - >"$work/$suite.open"
    if (($(top "$work/$suite.open" | wc -l) > 60)); then
        say "$suite: more is missing than is worth single runs: $work/through-$suite-*.log"
        lost=$((lost + $(wc -l <"$work/$suite.open")))
        continue
    fi
    while read -r test; do
        through=$(alone through "$suite" "$test") direct=$(alone direct "$suite" "$test")
        if ((direct == 0)); then
            say "fails here directly as well: $test"
        elif ((through >= direct)); then
            say "passes alone: $test ($through of 3, directly $direct)"
            echo "$test" >>"$done"
        else
            say "lost: $test ($through of 3, directly $direct)"
            lost=$((lost + 1))
        fi
    done <"$work/$suite.open"
    say "$suite: $(sort -u "$done" | comm -12 "$wanted" - | wc -l) of $(wc -l <"$wanted") in $((SECONDS - start)) s"
done
if grep -l 'panicked at' "$work"/logs/*.log 2>/dev/null; then
    say "inlay panicked"
    lost=$((lost + 1))
fi
rm -f "$work"/logs/*.log
((lost == 0)) || die "$lost tests are lost"
