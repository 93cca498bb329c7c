#!/bin/bash
# build-mesh-images.sh BINARIES: OCI archives of the mesh's binaries, named as the chart asks for them, of the test program,
# and of programs that nobody here wrote; FROM scratch. Each is made again when what is in it has changed.
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

# Programs of others, unmodified, each with the libraries that it asks for: what Debian has of Redis, PostgreSQL, nginx and
# curl, a shell and what scripts of clients call, and gRPC's own interoperability client and server.
peers=$("$here/../../scripts/peers")
postgres=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
major=$(basename "$(dirname "$postgres")")
programs=("$(command -v redis-server)" "$(command -v redis-cli)" "$(PATH=$PATH:/usr/sbin command -v nginx)" "$(command -v curl)"
  "$postgres"/{postgres,initdb,psql} "/usr/lib/postgresql/$major/lib/"{plpgsql,dict_snowball}.so
  /bin/bash /usr/bin/{cat,date,grep,mkdir,seq,sleep,timeout})
if ! known applications "${programs[@]}" "$peers"/grpc-{client,server}; then
  root=$work/applications
  libraries=$(ldd "${programs[@]}" | awk '$2 == "=>" { print $3 } $1 ~ /ld-linux/ { print $1 }' | sort -u)
  for file in "${programs[@]}" $libraries; do
    install -D "$file" "$root$file"
  done
  install -D "$peers"/grpc-{client,server} -t "$root/usr/local/bin"
  ln -s bash "$root/bin/sh"
  ln -s "$postgres/psql" "$root/usr/local/bin/psql"
  mkdir -p "$root"/{etc,run,usr/share/postgresql,var/lib/nginx,var/log/nginx}
  mkdir -m 1777 "$root/tmp"
  cp -r "/usr/share/postgresql/$major" "$root/usr/share/postgresql/"
  printf '%s\n' root:x:0:0::/:/bin/sh postgres:x:999:999::/tmp:/bin/sh >"$root/etc/passwd"
  echo root:x:0: >"$root/etc/group"
  "$here/image.py" "$archives/applications.tar" kube.test/applications:1 "$root"
fi
