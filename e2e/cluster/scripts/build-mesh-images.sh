#!/bin/bash
# build-mesh-images.sh BINARIES: OCI archives of the mesh's binaries, named as the chart asks for them, and of the test
# program and Redis; FROM scratch. Each is made again when what is in it has changed.
set -euo pipefail
source "$(dirname "$0")/config.sh"
binaries=$1
version=$(awk -F'"' '/^version = / { print $2; exit }' "$here/../../../Cargo.toml")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$archives"

known() { # known NAME FILE…: whether the archive was made of these; notes that it is, for the next time
  local sum
  sum=$(cat "$0" "$here/image.py" "${@:2}" | sha256sum)
  [ -f "$archives/$1.tar" ] && [ "$(cat "$archives/$1.sum" 2>/dev/null)" = "$sum" ] && return
  rm -f "$archives/$1.tar"
  echo "$sum" >"$archives/$1.sum"
  return 1
}

for name in trefoil-control-plane trefoil-node trefoil-sidecar trefoil-waypoint trefoil-cni trefoil-e2e; do
  known "$name" "$binaries/$name" && continue
  mkdir "$work/$name"
  # Line numbers are for developers; images carry what runs.
  strip -o "$work/$name/$name" "$binaries/$name"
  mkdir "$work/$name/tmp"
  image=trefoil.dev/$name:$version user=0
  case $name in
  trefoil-control-plane) user=15000 ;;
  trefoil-sidecar) user=15008 ;;
  trefoil-waypoint) user=15009 ;;
  trefoil-e2e) image=kube.test/$name:1 ;;
  esac
  "$here/image.py" --user "$user" "$archives/$name.tar" "$image" "$work/$name" "/$name"
done

redis=$(command -v redis-server)
if ! known redis "$redis"; then
  for file in "$redis" $(ldd "$redis" | grep -o '/[^ ]*'); do
    install -D "$file" "$work/redis$file"
  done
  "$here/image.py" "$archives/redis.tar" kube.test/redis:1 "$work/redis" "$redis"
fi
