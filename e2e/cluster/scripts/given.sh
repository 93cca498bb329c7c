#!/bin/bash
# given.sh exec NODE kubectl|sh …   what the suite asks of a cluster that is there, by KUBECONFIG
# given.sh run COMMAND…             run a program of this machine, such as helm, that asks its API server
#
# The suite calls nodes n1, n2 and n3. Here these are the first three of the cluster that pods may be put on: names are
# translated in what is asked and in what is answered. Nothing runs on a node: what needs that is refused.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=${XDG_CACHE_HOME:-$HOME/.cache}/trefoil/kubernetes/bin:$PATH
: "${KUBECONFIG:?names the cluster}"

real=($(kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.name}|{.spec.unschedulable}|{.spec.taints[*].effect}{"\n"}{end}' |
  awk -F'|' '$2 == "" && $3 !~ /NoSchedule|NoExecute/ { print $1 }' | head -3))
[ ${#real[@]} -eq 3 ] || { echo "the suite needs three nodes that pods may be put on; there are ${#real[@]}" >&2; exit 1; }
there= back=
for index in 0 1 2; do
  there+="s/\\bn$((index + 1))\\b/${real[index]}/g;"
  back+="s/\\b${real[index]//./\\.}\\b/n$((index + 1))/g;"
done

translated() { # translated COMMAND…
  local argument arguments=()
  for argument; do arguments+=("$(sed "$there" <<<"$argument")"); done
  # Only what is piped in is an object; a terminal or /dev/null is nothing.
  if [ -p /dev/stdin ]; then sed "$there" | "${arguments[@]}"; else "${arguments[@]}" </dev/null; fi | sed "$back"
}

case "${1:-} ${3:-}" in
"run "*) "${@:2}" ;;
"exec kubectl") translated "${@:3}" ;;
*) echo "needs access to a node: ${*:2}" >&2; exit 1 ;;
esac
