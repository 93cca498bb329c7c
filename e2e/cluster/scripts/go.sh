#!/bin/bash
# Prints the folder of a Go that is recent enough to build what is built here. A machine that has none gets
# one into the cache: Go's toolchains are modules too, so an older go command, such as Debian's, fetches it
# and checks it against the checksum database as it does any other.
set -euo pipefail
source "$(dirname "$0")/config.sh"
version=1.26.8
least=$(awk '$1 == "go" { print $2; exit }' "$source/allinone/go.mod")

recent() { # recent GO: whether it is at least what the sources ask for
  local has
  has=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION | awk '{ print $1 }') && printf '%s\n' "$least" "${has#go}" | sort -VC
}
if go=$(command -v go) && recent "$go"; then
  dirname "$go"
  exit
fi

folder=$cache/go-$version
mkdir -p "$cache"
if [ ! -x "$folder/bin/go" ]; then
  if ! command -v go >/dev/null; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends golang-go ca-certificates >/dev/null
  fi
  work=$(mktemp -d "$cache/go.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  module=golang.org/toolchain@v0.0.1-go$version.linux-amd64
  (cd "$work" && GOMODCACHE=$work/modules GOFLAGS=-modcacherw GOTOOLCHAIN=local go mod download "$module")
  unpacked=$work/modules/$module
  # What a module cannot hold: files that are programs, and modules within it.
  chmod -R +x "$unpacked"/{bin,pkg/tool}
  find "$unpacked" -name _go.mod -execdir cp {} go.mod \;
  mv "$unpacked" "$folder"
fi
echo "$folder/bin"
