//! kit: small tools of the bench harness.
//!  serve ADDR [BODY]                     HTTP/1.1 server, fixed body, 1 thread epoll via tokio current_thread
//!  tcpproxy out LISTEN MARK              transparent outbound: SO_ORIGINAL_DST -> connect (no TLS)
//!  tcpproxy in  LISTEN MARK              transparent inbound:  SO_ORIGINAL_DST -> 127.0.0.1:port (no TLS)
//!  mtls out LISTEN TUNPORT MARK PROVIDER DIR   outbound over one mTLS connection per TCP connection (u16 port preamble)
//!  mtls in  LISTEN MARK PROVIDER DIR
//!  load TARGET CONNS RATE SECS           open-loop latency, percentiles as JSON
//!  hold TARGET N SECS                    open N connections, one request each, print READY, hold
//!  tlsbench PROVIDER DIR SECS            in-memory handshakes/s and bulk bytes/s, one core
mod load;
use std::{io, net::SocketAddr, os::fd::AsRawFd, sync::Arc, time::{Duration, Instant}};
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::{TcpListener, TcpStream, TcpSocket}};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

fn orig_dst(s: &TcpStream) -> io::Result<SocketAddr> {
    let a = socket2::SockRef::from(s).original_dst_v4()?;
    a.as_socket().ok_or_else(|| io::Error::other("no orig dst"))
}
async fn connect(to: SocketAddr, mark: u32) -> io::Result<TcpStream> {
    let s = TcpSocket::new_v4()?;
    if mark != 0 { socket2::SockRef::from(&s).set_mark(mark)?; }
    let c = s.connect(to).await?;
    c.set_nodelay(true)?;
    Ok(c)
}
fn listen(a: &str) -> TcpListener {
    let s = TcpSocket::new_v4().unwrap();
    s.set_reuseaddr(true).unwrap();
    s.bind(a.parse().unwrap()).unwrap();
    s.listen(4096).unwrap()
}
async fn serve(addr: String, body: usize) {
    let l = listen(&addr);
    let ka = Arc::new({
        let mut v = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n").into_bytes();
        v.resize(v.len() + body, b'x'); v });
    let cl = Arc::new({
        let mut v = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n").into_bytes();
        v.resize(v.len() + body, b'x'); v });
    loop {
        let Ok((mut c, _)) = l.accept().await else { tokio::time::sleep(Duration::from_millis(5)).await; continue };
        let (ka, cl) = (ka.clone(), cl.clone());
        tokio::spawn(async move {
            let _ = c.set_nodelay(true);
            let mut buf = Vec::with_capacity(1024);
            loop {
                if c.read_buf(&mut buf).await.unwrap_or(0) == 0 { return; }
                let mut out = 0usize; let mut close = false;
                while let Some(p) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
                    let h = &buf[..p];
                    close |= h.windows(17).any(|w| w.eq_ignore_ascii_case(b"connection: close"));
                    buf.drain(..p + 4); out += 1;
                }
                for _ in 0..out {
                    if c.write_all(if close { &cl } else { &ka }).await.is_err() { return; }
                }
                if close { let _ = c.shutdown().await; let _ = c.read_buf(&mut buf).await; return; }
            }
        });
    }
}
async fn tcpproxy(dir: String, addr: String, mark: u32) {
    let l = listen(&addr);
    loop {
        let Ok((mut c, _)) = l.accept().await else { continue };
        let out = dir == "out";
        tokio::spawn(async move {
            let _ = c.set_nodelay(true);
            let Ok(mut d) = orig_dst(&c) else { return };
            if !out { d.set_ip([127, 0, 0, 1].into()); }
            let Ok(mut u) = connect(d, mark).await else { return };
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut c, &mut u, 16384, 16384).await;
        });
    }
}
fn provider(n: &str) -> Arc<rustls::crypto::CryptoProvider> {
    let mut p = if n == "ring" { rustls::crypto::ring::default_provider() } else { rustls::crypto::aws_lc_rs::default_provider() };
    p.kx_groups.retain(|g| g.name() == rustls::NamedGroup::X25519); // same key exchange for both providers
    // AES-128-GCM, TLS 1.3 first
    p.cipher_suites.retain(|c| c.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(p)
}
fn load(dir: &str, who: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, rustls::RootCertStore) {
    let rd = |f: String| io::BufReader::new(std::fs::File::open(f).unwrap());
    let certs = rustls_pemfile::certs(&mut rd(format!("{dir}/{who}.crt"))).map(|c| c.unwrap()).collect();
    let key = rustls_pemfile::private_key(&mut rd(format!("{dir}/{who}.key"))).unwrap().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for c in rustls_pemfile::certs(&mut rd(format!("{dir}/ca.crt"))) { roots.add(c.unwrap()).unwrap(); }
    (certs, key, roots)
}
fn server_cfg(p: &str, dir: &str, resume: bool) -> Arc<rustls::ServerConfig> {
    let (c, k, roots) = load(dir, "server");
    let v = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider(p)).build().unwrap();
    let mut s = rustls::ServerConfig::builder_with_provider(provider(p)).with_protocol_versions(&[&rustls::version::TLS13]).unwrap()
        .with_client_cert_verifier(v).with_single_cert(c, k).unwrap();
    if !resume { s.send_tls13_tickets = 0; s.session_storage = Arc::new(rustls::server::NoServerSessionStorage {}); }
    Arc::new(s)
}
fn client_cfg(p: &str, dir: &str, resume: bool) -> Arc<rustls::ClientConfig> {
    let (c, k, roots) = load(dir, "client");
    let mut s = rustls::ClientConfig::builder_with_provider(provider(p)).with_protocol_versions(&[&rustls::version::TLS13]).unwrap()
        .with_root_certificates(roots).with_client_auth_cert(c, k).unwrap();
    if !resume { s.resumption = rustls::client::Resumption::disabled(); }
    Arc::new(s)
}
async fn mtls_out(addr: String, tun: u16, mark: u32, p: String, dir: String) {
    let l = listen(&addr);
    let cx = tokio_rustls::TlsConnector::from(client_cfg(&p, &dir, false));
    loop {
        let Ok((mut c, _)) = l.accept().await else { continue };
        let cx = cx.clone();
        tokio::spawn(async move {
            let _ = c.set_nodelay(true);
            let Ok(d) = orig_dst(&c) else { return };
            let Ok(u) = connect((d.ip(), tun).into(), mark).await else { return };
            let Ok(mut u) = cx.connect(ServerName::try_from("server.mesh").unwrap(), u).await else { return };
            if u.write_all(&d.port().to_be_bytes()).await.is_err() { return }
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut c, &mut u, 16384, 16384).await;
        });
    }
}
async fn mtls_in(addr: String, mark: u32, p: String, dir: String) {
    let l = listen(&addr);
    let ax = tokio_rustls::TlsAcceptor::from(server_cfg(&p, &dir, false));
    loop {
        let Ok((c, _)) = l.accept().await else { continue };
        let ax = ax.clone();
        tokio::spawn(async move {
            let _ = c.set_nodelay(true);
            let Ok(mut c) = ax.accept(c).await else { return };
            let mut b = [0u8; 2];
            if c.read_exact(&mut b).await.is_err() { return }
            let Ok(mut u) = connect(([127, 0, 0, 1], u16::from_be_bytes(b)).into(), mark).await else { return };
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut c, &mut u, 16384, 16384).await;
        });
    }
}
async fn hold(target: String, n: usize, secs: u64) {
    let a: SocketAddr = target.parse().unwrap();
    let mut v = Vec::new(); let mut bad = 0;
    let mut pending = tokio::task::JoinSet::new();
    let t = Instant::now();
    for _ in 0..n {
        if pending.len() >= 64 { match pending.join_next().await { Some(Ok(Some(c))) => v.push(c), _ => bad += 1 } }
        pending.spawn(async move {
            let f = async {
                let mut c = TcpStream::connect(a).await.ok()?;
                c.write_all(b"GET / HTTP/1.1\r\nHost: server.mesh:8080\r\n\r\n").await.ok()?;
                let mut b = [0u8; 4096]; let k = c.read(&mut b).await.ok()?;
                if k < 12 || &b[..12] != b"HTTP/1.1 200" { return None }
                Some(c)
            };
            tokio::time::timeout(Duration::from_secs(10), f).await.ok().flatten()
        });
    }
    while let Some(r) = pending.join_next().await { match r { Ok(Some(c)) => v.push(c), _ => bad += 1 } }
    println!("READY ok={} bad={} open_s={:.3}", v.len(), bad, t.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(secs)).await;
    drop(v);
}
fn pump(a: &mut rustls::Connection, b: &mut rustls::Connection) {
    let mut buf = Vec::new();
    while a.is_handshaking() || b.is_handshaking() || a.wants_write() || b.wants_write() {
        buf.clear();
        while a.wants_write() { a.write_tls(&mut buf).unwrap(); }
        if !buf.is_empty() { let mut r = &buf[..]; while !r.is_empty() { b.read_tls(&mut r).unwrap(); b.process_new_packets().unwrap(); } }
        buf.clear();
        while b.wants_write() { b.write_tls(&mut buf).unwrap(); }
        if !buf.is_empty() { let mut r = &buf[..]; while !r.is_empty() { a.read_tls(&mut r).unwrap(); a.process_new_packets().unwrap(); } }
    }
}
fn tlsbench(p: &str, dir: &str, secs: f64) {
    for resume in [false, true] {
        let (cc, sc) = (client_cfg(p, dir, resume), server_cfg(p, dir, resume));
        let (mut n, mut tc) = (0u64, 0f64);
        let start = Instant::now();
        let mut resumed = 0;
        while start.elapsed().as_secs_f64() < secs {
            let mut c: rustls::Connection = rustls::ClientConnection::new(cc.clone(), ServerName::try_from("server.mesh").unwrap()).unwrap().into();
            let mut s: rustls::Connection = rustls::ServerConnection::new(sc.clone()).unwrap().into();
            pump(&mut c, &mut s);
            if let rustls::Connection::Client(c) = &c { if c.handshake_kind() == Some(rustls::HandshakeKind::Resumed) { resumed += 1 } }
            n += 1;
        }
        tc += start.elapsed().as_secs_f64();
        println!("{p} full_mtls_pair resume={resume} handshakes_per_s_per_core(both ends)={:.0} resumed={:.0}%", n as f64 / tc, resumed as f64 * 100. / n as f64);
    }
    let (cc, sc) = (client_cfg(p, dir, false), server_cfg(p, dir, false));
    let mut c: rustls::Connection = rustls::ClientConnection::new(cc, ServerName::try_from("server.mesh").unwrap()).unwrap().into();
    let mut s: rustls::Connection = rustls::ServerConnection::new(sc).unwrap().into();
    pump(&mut c, &mut s);
    let data = vec![7u8; 16384]; let mut wire = Vec::with_capacity(20000); let mut rx = vec![0u8; 16384];
    let (mut te, mut td, mut bytes) = (0f64, 0f64, 0u64);
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < secs {
        use std::io::{Read, Write};
        let t = Instant::now();
        c.writer().write_all(&data).unwrap(); wire.clear(); while c.wants_write() { c.write_tls(&mut wire).unwrap(); }
        te += t.elapsed().as_secs_f64();
        let t = Instant::now();
        let mut r = &wire[..]; while !r.is_empty() { s.read_tls(&mut r).unwrap(); s.process_new_packets().unwrap(); }
        let mut got = 0; while got < data.len() { got += s.reader().read(&mut rx[got..]).unwrap(); }
        td += t.elapsed().as_secs_f64();
        bytes += data.len() as u64;
    }
    println!("{p} AES-128-GCM 16k records: seal {:.2} Gbit/s/core, open {:.2} Gbit/s/core, seal+open {:.2} Gbit/s/core",
        bytes as f64 * 8e-9 / te, bytes as f64 * 8e-9 / td, bytes as f64 * 8e-9 / (te + td));
}
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let u = |i: usize| a[i].parse::<u64>().unwrap();
    unsafe { let mut r: libc::rlimit = std::mem::zeroed(); libc::getrlimit(libc::RLIMIT_NOFILE, &mut r); r.rlim_cur = r.rlim_max; libc::setrlimit(libc::RLIMIT_NOFILE, &r); let _ = std::io::stdin().as_raw_fd(); }
    let mt = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let st = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match a[0].as_str() {
        "serve" => st().block_on(serve(a[1].clone(), a.get(2).map(|b| b.parse().unwrap()).unwrap_or(1024))),
        "tcpproxy" => mt().block_on(async { let (d, l, m) = (a[1].clone(), a[2].clone(), u(3) as u32); tokio::spawn(tcpproxy(d, l, m)).await.unwrap() }),
        "mtls" if a[1] == "out" => mt().block_on(async { let (l, t, m, p, d) = (a[2].clone(), u(3) as u16, u(4) as u32, a[5].clone(), a[6].clone()); tokio::spawn(mtls_out(l, t, m, p, d)).await.unwrap() }),
        "mtls" => mt().block_on(async { let (l, m, p, d) = (a[2].clone(), u(3) as u32, a[4].clone(), a[5].clone()); tokio::spawn(mtls_in(l, m, p, d)).await.unwrap() }),
        "load" => load::run(a[1].parse().unwrap(), u(2) as u32, u(3) as u32, u(4)),
        "hold" => st().block_on(hold(a[1].clone(), u(2) as usize, u(3))),
        "tlsbench" => tlsbench(&a[1], &a[2], a[3].parse().unwrap()),
        x => panic!("unknown {x}"),
    }
}
