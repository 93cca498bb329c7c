#!/bin/bash
# Builds all that cluster.sh needs into the cache, or what is named of it (kube, containerd, gateway-api, images, helm),
# each part only when its sources have changed since it was last built.
set -euo pipefail
wanted=$*
source "$(dirname "$0")/config.sh"
packages=(runc containernetworking-plugins iptables conntrack procps gcc libc6-dev)
dpkg -s "${packages[@]}" >/dev/null 2>&1 || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
}
mkdir -p "$bin" "$images"
exec 9>"$cache/lock"
flock 9
go=$("$here/go.sh")
export PATH=$go:$PATH

part() { # part NAME SOURCE…: runs build-NAME.sh unless it was done with these sources
  local name=$1 stamp
  [[ -z "$wanted" || " $wanted " == *" $name "* ]] || return 0
  stamp=$(find "$here/build-$name.sh" "${@:2}" -type f -print0 | sort -z | xargs -0 cat | sha256sum)
  [ "$(cat "$cache/$name.stamp" 2>/dev/null)" = "$stamp" ] && return
  echo "building $name (once)"
  "$here/build-$name.sh"
  echo "$stamp" >"$cache/$name.stamp"
}
part kube "$source/allinone"
part containerd "$here/build-containerd.sh"
part gateway-api "$here/build-gateway-api.sh"
part images "$source/images" "$here/image.py"
part helm "$here/build-helm.sh"
