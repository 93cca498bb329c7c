#!/bin/bash
# Fetches the definitions of the Gateway API's kinds: a module, so that its checksum is verified as any other's.
set -euo pipefail
source "$(dirname "$0")/config.sh"
module=sigs.k8s.io/gateway-api@${GATEWAY_API_VERSION:-v1.7.0}
folder=$(cd / && GOFLAGS=-modcacherw GOTOOLCHAIN=local go mod download -json "$module" | awk -F'"' '$2 == "Dir" { print $4 }')
rm -rf "$gateway_api"
mkdir -p "$gateway_api"
cp "$folder"/config/crd/standard/*.yaml "$gateway_api"
