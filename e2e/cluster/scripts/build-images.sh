#!/bin/bash
# Builds the images of the cluster itself, each from one static binary.
set -euo pipefail
source "$(dirname "$0")/config.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{pause,coredns}
gcc -Os -static -s -o "$work/pause/pause" "$source/images/pause.c"
cp "$bin/coredns" "$work/coredns/"
for name in pause coredns; do
  "$here/image.py" "$images/$name.tar" "kube.test/$name:1" "$work/$name" "/$name"
done
