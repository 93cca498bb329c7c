#!/bin/bash
# Fetches the definitions of the Gateway API's kinds, a module's files. Its archive is enough: an older Go than the
# module asks for downloads it and computes its sum, but would not unpack it.
set -euo pipefail
source "$(dirname "$0")/config.sh"
module=sigs.k8s.io/gateway-api@v1.7.0
sum=h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY=
said=$(cd / && GOTOOLCHAIN=local go mod download -json "$module") || true
field() { awk -F'"' -v name="$1" '$2 == name { print $4 }' <<<"$said"; }
[ "$(field Sum)" = "$sum" ] || { echo "$module is not what it was: $said" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m zipfile -e "$(field Zip)" "$work"
rm -rf "$gateway_api"
mkdir -p "$gateway_api"
cp "$work/$module"/config/crd/standard/*.yaml "$gateway_api"
