#!/bin/bash
# cluster.sh up                      make the cluster, wait until it is ready
# cluster.sh down                    remove every trace of it
# cluster.sh stop NODE | start NODE  a power cut, and the power back
# cluster.sh exec NODE COMMAND…      run a command in a node (kubectl is admin's)
# cluster.sh run COMMAND…            run a program of this machine, such as helm, that asks the API server
# cluster.sh load IMAGE.tar          import an image into every node
#
# A Kubernetes cluster on this machine, each node in namespaces of its own.
# n1 also runs the control plane, and is a worker too. Nothing is reachable
# from outside the namespaces: use `cluster.sh exec n1 kubectl …`.
set -euo pipefail
source "$(dirname "$0")/config.sh"
names=$(seq -f n%g "$nodes")

network() {
  ip netns add $lan
  ip -n $lan link set lo up
  ip -n $lan link add br0 type bridge
  ip -n $lan addr add $gateway/24 dev br0
  ip -n $lan link set br0 up
}

# What the machine that a node is has of the network as it starts: an address, and routes to the others' pods.
attach() { # attach NODE
  local node=$1 other
  ip netns add "$lan-$node"
  ip -n "$lan-$node" link set lo up
  ip -n $lan link add "$node" type veth peer name eth0 netns "$lan-$node"
  ip -n $lan link set "$node" master br0 up
  ip -n "$lan-$node" addr add "$(node_ip "$node")/24" dev eth0
  ip -n "$lan-$node" link set eth0 up
  ip -n "$lan-$node" route add default via $gateway
  ip netns exec "$lan-$node" sysctl -qw net.ipv4.ip_forward=1
  for other in $names; do
    [ "$other" = "$node" ] || ip -n "$lan-$node" route add "$(node_pods "$other")" via "$(node_ip "$other")"
  done
}

# The cluster's keys and certificates, made by kubeadm.
authority() {
  cat >"$state/kubeadm.yaml" <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: $server}
nodeRegistration: {name: n1}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $("$bin/kube" kubelet --version | awk '{ print $2 }')
certificatesDir: $state/pki
controlPlaneEndpoint: $server:6443
networking: {serviceSubnet: $services, podSubnet: $pods}
END
  "$bin/kube" kubeadm init phase certs all --config "$state/kubeadm.yaml" >"$state/kubeadm.log" 2>&1
}

user() { # user NAME [--org GROUP]: prints a kubeconfig
  "$bin/kube" kubeadm kubeconfig user --config "$state/kubeadm.yaml" --client-name "$@" 2>>"$state/kubeadm.log"
}

# The node's root file system.
create() { # create NODE
  local node=$1 new=$state/$1 file component
  mkdir -p "$new"/{dev,etc/{cni/net.d,containerd,kubernetes/pki},mnt,opt/cni/bin,proc,root,run,sys,tmp,usr,var/{lib/images,log}}
  for file in bin sbin lib lib64; do ln -s "usr/$file" "$new/$file"; done
  ln -s /run "$new/var/run"
  for file in alternatives group ld.so.cache nsswitch.conf passwd protocols services ssl; do cp -a "/etc/$file" "$new/etc/"; done
  echo "$node" >"$new/etc/hostname"
  echo -n "$node" | md5sum | cut -d' ' -f1 >"$new/etc/machine-id"
  printf '127.0.0.1 localhost\n%s %s\n' "$(node_ip "$node")" "$node" >"$new/etc/hosts"
  : >"$new/etc/resolv.conf"
  cp /usr/lib/cni/{bridge,host-local,loopback,portmap} "$new/opt/cni/bin/"

  cat >"$new/etc/containerd/config.toml" <<END
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'kube.test/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
# This machine has no CAP_SYS_RESOURCE, which lowering a score takes.
restrict_oom_score_adj = true
END
  cat >"$new/etc/cni/net.d/10-bridge.conflist" <<END
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(node_pods "$node")"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
  cp "$state/pki/ca.crt" "$new/etc/kubernetes/pki/"
  user "system:node:$node" --org system:nodes >"$new/etc/kubernetes/kubelet.conf"
  cat >"$new/etc/kubernetes/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
clusterDNS: [$dns]
clusterDomain: cluster.local
volumePluginDir: /var/lib/kubelet/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
END
  user system:kube-proxy >"$new/etc/kubernetes/kube-proxy.conf"
  cat >"$new/etc/kubernetes/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $proxy_mode
clusterCIDR: $pods
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
# These belong to the machine, not to a network namespace.
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
END
  [ "$node" = n1 ] || return 0
  cp -a "$state/pki" "$new/etc/kubernetes/"
  user admin --org system:masters >"$new/etc/kubernetes/admin.conf"
  for component in kube-controller-manager kube-scheduler; do
    user "system:$component" >"$new/etc/kubernetes/$component.conf"
  done
}

start() { # start NODE
  local node=$1
  attach "$node"
  setsid bash -c '
    for controller in $2; do
      group=/sys/fs/cgroup/$controller/$3-$1
      mkdir "$group"
      if [ "$controller" = cpuset ]; then
        for file in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$file" >"$group/$file"; done
        echo 1 >"$group/cgroup.clone_children"
      fi
      echo $$ >"$group/cgroup.procs"
    done
    exec nsenter --net="/run/netns/$3-$1" unshare --mount --pid --uts --ipc --cgroup --fork --kill-child "$0" "$1"
  ' "$here/node.sh" "$node" "$controllers" $lan >"$state/$node.log" 2>&1 </dev/null &
  echo $! >"$state/$node.pid"
}

# Nothing of it is told: its link goes first, then all stop at once, so that none acts on another's end. Its network, with
# every rule in it, goes with it; what is on its disk stays.
stop() { # stop NODE
  local frozen=/sys/fs/cgroup/freezer/$lan-$1/freezer.state processes
  ip -n $lan link del "$1" 2>/dev/null || true
  { echo FROZEN >"$frozen"; } 2>/dev/null || true
  while processes=$(find /sys/fs/cgroup/memory/$lan-"$1" -name cgroup.procs -exec cat {} + 2>/dev/null) && [ -n "$processes" ]; do
    kill -9 $processes 2>/dev/null || true
    { echo THAWED >"$frozen"; } 2>/dev/null || true
    sleep 0.2
  done
  find /sys/fs/cgroup/*/$lan-"$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
  ip netns del "$lan-$1" 2>/dev/null || true
}

enter() { # enter NODE COMMAND…
  nsenter --target "$(pgrep -P "$(cat "$state/$1.pid")")" --all env KUBECONFIG=/etc/kubernetes/admin.conf "${@:2}"
}

case ${1:-} in
up)
  mkdir -p "$state"
  network
  authority
  for node in $names; do
    create "$node"
    start "$node"
  done
  until enter n1 kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.5; done
  enter n1 kubectl apply -f - <"$here/system.yaml"
  for node in $names; do
    until enter n1 kubectl wait --for=condition=Ready "node/$node" --timeout=120s 2>/dev/null; do sleep 0.5; done
  done
  enter n1 kubectl -n kube-system rollout status deployment/coredns --timeout=180s
  ;;
down)
  for node in $names; do stop "$node"; done
  ip netns del $lan 2>/dev/null || true
  rm -rf "$state"
  ;;
start | stop) "$1" "$2" ;;
exec) enter "${@:2}" ;;
run) ip netns exec $lan-n1 env KUBECONFIG="$state/n1/etc/kubernetes/admin.conf" PATH="$bin:$PATH" "${@:2}" ;;
load) for node in $names; do enter "$node" ctr -n k8s.io images import - <"$2"; done ;;
*) sed -n '2,/^$/s/^# \?//p' "$0" >&2; exit 2 ;;
esac
