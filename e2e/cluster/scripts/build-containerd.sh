#!/bin/bash
# Builds containerd 2, its shim and ctr.
set -euo pipefail
source "$(dirname "$0")/config.sh"
version=${CONTAINERD_VERSION:-v2.3.7}
module=github.com/containerd/containerd/v2
for command in containerd containerd-shim-runc-v2 ctr; do
  CGO_ENABLED=0 GOBIN=$bin go install -buildvcs=false -trimpath -tags 'no_btrfs no_devmapper no_zfs no_aufs' \
    -ldflags "-s -w -X $module/version.Version=$version" "$module/cmd/$command@$version"
done
