#!/bin/bash
# build-mesh-images.sh BINARIES: OCI archives of the mesh's binaries, of the test program and of Redis, FROM scratch.
set -euo pipefail
source "$(dirname "$0")/config.sh"
binaries=$1
out=$cache/mesh-images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

for name in trefoil-control-plane trefoil-node trefoil-sidecar trefoil-waypoint trefoil-cni trefoil-e2e; do
  [ "$out/$name.tar" -nt "$binaries/$name" ] && continue
  mkdir "$work/$name"
  # Line numbers are for developers; images carry what runs.
  strip -o "$work/$name/$name" "$binaries/$name"
  mkdir "$work/$name/tmp"
  "$here/image.py" "$out/$name.tar" "kube.test/$name:1" "$work/$name" "/$name"
done

redis=$(command -v redis-server)
if [ ! "$out/redis.tar" -nt "$redis" ]; then
  for file in "$redis" $(ldd "$redis" | grep -o '/[^ ]*'); do
    install -D "$file" "$work/redis$file"
  done
  "$here/image.py" "$out/redis.tar" kube.test/redis:1 "$work/redis" "$redis"
fi
