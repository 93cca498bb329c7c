//! Two pods on one link, redirected as the agent would, and an application that says who called.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Pod;

/// The application's port.
const APPLICATION: u16 = 8080;

/// What the agent installs, reduced to what is needed here.
const RULES: &str = "
table ip trefoil-test {
  chain mangle-in { type filter hook prerouting priority mangle; meta mark & 0xfff == 0x539 ct mark set 0x111; }
  chain mangle-out { type route hook output priority mangle; ct mark & 0xfff == 0x111 meta mark set ct mark; }
  chain nat-in {
    type nat hook prerouting priority dstnat;
    meta mark & 0xfff != 0x539 tcp dport != 15008 redirect to :15006;
  }
  chain nat-out {
    type nat hook output priority -100;
    meta mark & 0xfff == 0x111 accept;
    oifname lo accept;
    meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001;
  }
}";

/// Connects two pods: 10.9.0.1 and 10.9.0.2.
pub(crate) fn link(one: &Pod, two: &Pod) {
    let other = format!("/proc/{}/fd/{}", std::process::id(), two.network.as_raw_fd());
    one.within(move || {
        run(
            "ip",
            &[
                "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &other,
            ],
            "",
        );
        configure("10.9.0.1/24");
    });
    two.within(|| configure("10.9.0.2/24"));
}

fn configure(address: &str) {
    run("ip", &["address", "add", address, "dev", "eth0"], "");
    run("ip", &["link", "set", "eth0", "up"], "");
    run(
        "ip",
        &[
            "rule",
            "add",
            "fwmark",
            "0x111/0xfff",
            "pref",
            "32764",
            "lookup",
            "100",
        ],
        "",
    );
    run(
        "ip",
        &["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"],
        "",
    );
}

/// Redirects a pod into the node proxy.
pub(crate) fn redirect(pod: &Pod) {
    pod.within(|| run("nft", &["-f", "-"], RULES));
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}

/// An application in a pod that tells everybody their own address and then repeats what it hears, for as
/// long as the test runs.
pub(crate) fn application(pod: &Pod) {
    let listener = pod.within(|| TcpListener::bind(("0.0.0.0", APPLICATION)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_one(stream));
        }
    });
}

fn answer_one(mut stream: TcpStream) -> std::io::Result<()> {
    let peer = stream.peer_addr()?.ip();
    stream.write_all(peer.to_string().as_bytes())?;
    let mut heard = stream.try_clone()?;
    std::io::copy(&mut heard, &mut stream)?;
    Ok(())
}

/// Connects from a pod to the application of another.
pub(crate) fn call(pod: &Pod) -> TcpStream {
    pod.within(|| {
        let stream = TcpStream::connect(("10.9.0.2", APPLICATION)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    })
}

/// What the application answered.
pub(crate) fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Says something on a connection, and hears as much.
pub(crate) fn converse(stream: &mut TcpStream, say: &str) -> String {
    stream.write_all(say.as_bytes()).unwrap();
    let mut heard = vec![0; say.len()];
    stream.read_exact(&mut heard).unwrap();
    String::from_utf8(heard).unwrap()
}
