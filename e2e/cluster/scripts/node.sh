#!/bin/bash
# node.sh NAME: PID 1 of a node, in network, mount, PID, UTS, IPC and cgroup
# namespaces of its own (`cluster.sh start` makes them). It enters the node's
# root file system, then keeps the components running. Killing it is a power cut.
set -euo pipefail
source "$(dirname "$0")/config.sh"
node=$1
new=$state/$node

# /usr and /dev are the machine's, /run is a tmpfs; the rest is the node's, and persists.
hostname "$node"
mount --bind "$new" "$new"
mount --rbind /usr "$new/usr"
mount -o remount,bind,ro "$new/usr"
mount --bind "$bin" "$new/usr/local/bin"
mount --bind "$images" "$new/var/lib/images"
mount --rbind /dev "$new/dev"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
# The kubelet would set these for the whole machine: it is shown that they are set.
for setting in kernel/panic=10 kernel/panic_on_oops=1 vm/overcommit_memory=1; do
  shown=$new/run/$(basename "${setting%=*}")
  echo "${setting#*=}" >"$shown"
  mount --bind "$shown" "$new/proc/sys/${setting%=*}"
done
mount -t tmpfs -o mode=755 tmpfs "$new/sys/fs/cgroup"
for controller in $controllers; do
  mkdir "$new/sys/fs/cgroup/$controller"
  mount -t cgroup -o "$controller" cgroup "$new/sys/fs/cgroup/$controller"
done
cd "$new"
pivot_root . mnt
umount -l /mnt
mount --make-rshared /

keep() { # keep COMMAND…: run it, and run it again when it ends
  while :; do
    "$@" >>"/var/log/$1.log" 2>&1 || true
    sleep 1
  done &
}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
pki=/etc/kubernetes/pki
if [ "$node" = n1 ]; then
  keep etcd --name n1 --data-dir /var/lib/etcd \
    --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 \
    --listen-peer-urls https://127.0.0.1:2380 --initial-advertise-peer-urls https://127.0.0.1:2380 \
    --initial-cluster n1=https://127.0.0.1:2380 \
    --client-cert-auth --trusted-ca-file $pki/etcd/ca.crt --cert-file $pki/etcd/server.crt --key-file $pki/etcd/server.key \
    --peer-client-cert-auth --peer-trusted-ca-file $pki/etcd/ca.crt --peer-cert-file $pki/etcd/peer.crt --peer-key-file $pki/etcd/peer.key
  keep kube-apiserver --advertise-address "$server" --allow-privileged --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction --service-cluster-ip-range $services \
    --etcd-servers https://127.0.0.1:2379 --etcd-cafile $pki/etcd/ca.crt \
    --etcd-certfile $pki/apiserver-etcd-client.crt --etcd-keyfile $pki/apiserver-etcd-client.key \
    --client-ca-file $pki/ca.crt --tls-cert-file $pki/apiserver.crt --tls-private-key-file $pki/apiserver.key \
    --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate $pki/apiserver-kubelet-client.crt --kubelet-client-key $pki/apiserver-kubelet-client.key \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file $pki/sa.pub --service-account-signing-key-file $pki/sa.key \
    --requestheader-client-ca-file $pki/front-proxy-ca.crt --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file $pki/front-proxy-client.crt --proxy-client-key-file $pki/front-proxy-client.key
  keep kube-controller-manager --kubeconfig /etc/kubernetes/kube-controller-manager.conf \
    --authentication-kubeconfig /etc/kubernetes/kube-controller-manager.conf \
    --authorization-kubeconfig /etc/kubernetes/kube-controller-manager.conf \
    --use-service-account-credentials --controllers '*,bootstrapsigner,tokencleaner' \
    --root-ca-file $pki/ca.crt --service-account-private-key-file $pki/sa.key \
    --cluster-signing-cert-file $pki/ca.crt --cluster-signing-key-file $pki/ca.key
  keep kube-scheduler --kubeconfig /etc/kubernetes/kube-scheduler.conf \
    --authentication-kubeconfig /etc/kubernetes/kube-scheduler.conf \
    --authorization-kubeconfig /etc/kubernetes/kube-scheduler.conf
fi
keep containerd
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
for image in /var/lib/images/*.tar; do ctr -n k8s.io images import "$image" >>/var/log/images.log 2>&1; done
keep kubelet --config /etc/kubernetes/kubelet.yaml --kubeconfig /etc/kubernetes/kubelet.conf --node-ip "$(node_ip "$node")"
keep kube-proxy --config /etc/kubernetes/kube-proxy.yaml
while :; do wait -n || true; done
