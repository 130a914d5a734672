#!/usr/bin/env bash
# Gets protoc, which compiles proto/, where it is missing: Debian's. $PROTOC names another.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if [[ -n ${PROTOC:-} ]]; then
    command -v "$PROTOC" >/dev/null || die "\$PROTOC is $PROTOC, which is no program"
    exit
fi
if command -v protoc >/dev/null; then
    exit
fi
if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
    die "protoc is missing: install it (Debian's package is protobuf-compiler, Fedora's too, Alpine's is protoc), or name it by \$PROTOC"
fi
mkdir -p "$PEERS"
install_package protobuf-compiler
