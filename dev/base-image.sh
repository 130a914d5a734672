#!/usr/bin/env bash
# base-image.sh BUSYBOX TAR: a root file system of one static busybox and links
# for its applets, for `FROM scratch` + `ADD rootfs.tar /`. Nothing can be pulled
# where the tests run. The same busybox always gives the same bytes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
busybox=$1 out=$2

umask 022
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{bin,dev,etc,proc,root,sys,usr}
mkdir -m 1777 "$root/tmp"
install -m 755 "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
tar --sort=name --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$out.new" .
mv "$out.new" "$out"
say "base image: $(stat -c %s "$out") bytes, sha256 $(sha256sum "$out" | cut -c1-12)"
