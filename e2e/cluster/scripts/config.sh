# What the scripts of this folder share. Every address lies inside network
# namespaces that cluster.sh makes; none is routed to the machine's interfaces.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(dirname "$here")/src
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trefoil/kubernetes
bin=$cache/bin
images=$cache/images
gateway_api=$cache/gateway-api
archives=$cache/archives
state=${KUBENET_STATE:-$cache/run}
nodes=${KUBENET_NODES:-3}
proxy_mode=${KUBENET_PROXY_MODE:-iptables}
lan=kubenet
gateway=172.30.0.1
pods=10.244.0.0/16
services=10.96.0.0/16
dns=10.96.0.10

node_ip() { echo "172.30.0.1${1#n}"; }      # n1 → 172.30.0.11
node_pods() { echo "10.244.${1#n}.0/24"; }  # n1 → 10.244.1.0/24
server=$(node_ip n1)
controllers=$(awk '$4 == 1 && /^(cpu|cpuacct|cpuset|memory|devices|freezer|blkio|pids)\t/ { print $1 }' /proc/cgroups)
