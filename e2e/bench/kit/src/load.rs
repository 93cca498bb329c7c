//! An open-loop load: a thread per connection sends at fixed moments, spread evenly over the connections, and blocks
//! until the answer is there. Threads that block cost less than a runtime and wake at the microsecond, so what is
//! measured is the path. A request that is late because the one before it was slow is sent at once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: server.mesh:8080\r\n\r\n";

/// Runs it and prints percentiles in microseconds as JSON.
pub fn run(target: SocketAddr, connections: u32, rate: u32, seconds: u64) {
    let interval = Duration::from_secs(1) * connections / rate;
    let begin = Instant::now() + Duration::from_millis(100);
    let end = begin + Duration::from_secs(seconds);
    let threads: Vec<_> = (0..connections)
        .map(|index| {
            let first = begin + interval * index / connections;
            std::thread::spawn(move || one(target, first, end, interval))
        })
        .collect();
    let (mut times, mut bad) = (Vec::new(), 0);
    for thread in threads {
        let (own, failed) = thread.join().unwrap();
        times.extend(own);
        bad += failed;
    }
    times.sort_unstable();
    let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(0);
    println!(
        "{{\"p50\":{},\"p90\":{},\"p99\":{},\"p99.9\":{},\"qps\":{},\"bad\":{bad},\"reqs\":{}}}",
        at(0.5), at(0.9), at(0.99), at(0.999), times.len() as u64 / seconds.max(1), times.len()
    );
}

fn one(target: SocketAddr, first: Instant, end: Instant, interval: Duration) -> (Vec<u32>, u32) {
    let (mut times, mut bad, mut next) = (Vec::new(), 0, first);
    let mut stream = connect(target).ok();
    while next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        match stream.as_mut().map(ask) {
            Some(Ok(())) => times.push(sent.elapsed().as_micros() as u32),
            _ => { bad += 1; stream = connect(target).ok(); }
        }
        next += interval;
    }
    (times, bad)
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// One request and its whole answer.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = [0; 4096];
    let mut held = 0;
    loop {
        let read = stream.read(&mut answer[held..])?;
        if read == 0 { return Err(io::ErrorKind::UnexpectedEof.into()); }
        held += read;
        let Some(head) = answer[..held].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]);
        if !text.starts_with("HTTP/1.1 200") { return Err(io::Error::other("not 200")); }
        let length: usize = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        if held >= head + 4 + length { return Ok(()); }
    }
}
