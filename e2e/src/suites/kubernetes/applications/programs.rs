//! What clients ask of the applications, by the programs that people use. Scripts print how much was answered, and never
//! ask again.

use anyhow::Context;

/// A program, asked from a shell in the client's pod.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// Of a client's namespace (CLIENT) and a server's (SERVER); it prints how many of what was asked were answered.
    script: &'static str,
    /// How many are asked.
    pub(super) asked: usize,
    /// What client or server says in the clear, if nobody encrypts it.
    pub(super) word: &'static str,
}

impl Program {
    pub(super) fn script(&self, client: &str, server: &str) -> String {
        self.script.replace("CLIENT", client).replace("SERVER", server)
    }
}

pub(super) const PROGRAMS: [Program; 5] = [
    Program {
        name: "Redis",
        script: "seq -f 'SET CLIENT%.0f redis-in-the-clear' 2000 | timeout 20 redis-cli -h cache.SERVER --pipe 2>&1 |
            grep -o 'replies: [0-9]*' | grep -o '[0-9]*' || echo 0",
        asked: 2000,
        word: "redis-in-the-clear",
    },
    Program {
        name: "PostgreSQL",
        script: "q() { timeout 20 psql -X -q -t -A 'host=database.SERVER user=postgres dbname=postgres sslmode=disable connect_timeout=10' \"$@\" 2>/dev/null; }
            q -c 'drop table if exists of_CLIENT' -c 'create table of_CLIENT (line text)'
            seq -f '%.0f postgres-in-the-clear' 5000 | q -c 'copy of_CLIENT from stdin'
            q -c 'copy of_CLIENT to stdout' | grep -c '^[0-9]* postgres-in-the-clear$' || true",
        asked: 5000,
        word: "postgres-in-the-clear",
    },
    Program {
        name: "nginx",
        script: "for i in $(seq 20); do curl -sf -m 5 \"http://web.SERVER/?word=nginx-in-the-clear\"; done |
            grep -c '^web-.* nginx-in-the-clear$' || true",
        asked: 20,
        word: "nginx-in-the-clear",
    },
    Program {
        name: "gRPC",
        script: "answered=0
            for case in empty_unary client_streaming server_streaming ping_pong custom_metadata status_code_and_message; do
              timeout 10 grpc-client --server_host=interop.SERVER --server_port=10000 --test_case=$case >/dev/null 2>&1 &&
                answered=$((answered + 1))
            done
            echo $answered",
        asked: 6,
        // What the last case sends, and has sent back.
        word: "test status message",
    },
    Program {
        name: "members by their own names",
        script: "for member in member-0 member-1; do
              for name in $member.members.SERVER $member.members.SERVER.svc $member.members.SERVER.svc.cluster.local; do
                curl -sf -m 5 \"http://$name/?word=member-in-the-clear\" | grep \"^$member member-in-the-clear$\"
              done
            done | grep -c . || true",
        asked: 6,
        word: "member-in-the-clear",
    },
];

/// The program of a name.
pub(super) fn program(name: &str) -> anyhow::Result<&'static Program> {
    static ALL: [Program; 5] = PROGRAMS;
    let found = ALL.iter().find(|program| program.name == name);
    found.with_context(|| format!("no program is {name}"))
}
