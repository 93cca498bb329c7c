#!/bin/bash
# Builds helm, which installs the mesh. Unless it is told of a Kubernetes, it renders for the one it was built with.
set -euo pipefail
source "$(dirname "$0")/config.sh"
version=${HELM_VERSION:-v3.22.0}
module=helm.sh/helm/v3
IFS=. read -r _ minor _ < <(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$source/allinone/go.mod")
flags="-s -w -X $module/internal/version.version=$version"
for package in lint/rules chartutil; do
  flags+=" -X $module/pkg/$package.k8sVersionMajor=1 -X $module/pkg/$package.k8sVersionMinor=$minor"
done
CGO_ENABLED=0 GOBIN=$bin go install -buildvcs=false -trimpath -ldflags "$flags" "$module/cmd/helm@$version"
