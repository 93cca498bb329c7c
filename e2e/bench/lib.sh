# Sourced by the peers' start hooks. Given in the environment by mesh.py:
#  CNS SNS  client / server pod netns; CIP SIP their addresses; RUN state dir; NWL extra known workloads; H harness dir
set -e
KIT=${KIT:-$H/kit/target/release/kit}
in_c() { ip netns exec "$CNS" "$@"; }
in_s() { ip netns exec "$SNS" "$@"; }
# bg ROLE LOG CMD... : start a process whose pid is accounted to ROLE (client|server|aux)
bg() { role=$1; log=$2; shift 2; [ -e $RUN/t0 ] || [ $role = aux ] || date +%s.%N > $RUN/t0
       "$@" > $RUN/$log.log 2>&1 < /dev/null & echo "$role $!" >> $RUN/pids; }
# Redirection of the floors: all but their own (marked 0x539) connections out to 15001, all in to 15006.
redir_out() { in_c nft -f - <<END
table ip bench {
  chain out { type nat hook output priority -100
  oifname "lo" return
  meta mark & 0xfff == 0x539 return
  meta l4proto tcp redirect to :${1:-15001}
  }
}
END
}
redir_in() { in_s nft -f - <<END
table ip bench {
  chain in { type nat hook prerouting priority dstnat
  meta l4proto tcp redirect to :${1:-15006}
  }
}
END
}
