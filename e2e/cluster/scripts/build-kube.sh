#!/bin/bash
# Builds kube (every Kubernetes component and etcd) and coredns.
set -euo pipefail
source "$(dirname "$0")/config.sh"
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$source/allinone/go.mod")
IFS=. read -r major minor _ <<<"${version#v}"
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  flags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done
cd "$source/allinone"
CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "$flags" -o "$bin/" ./cmd/...
for component in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubeadm kubectl kubelet; do
  ln -sf kube "$bin/$component"
done
