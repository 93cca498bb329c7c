//! The programs that run inside pods: servers that say who they are, clients that count. They know nothing
//! of the mesh and must never retry: a retry would hide what is being measured.

pub mod bulk;
pub mod call;
pub mod hostile;
pub mod load;
pub mod names;
pub mod redis;
pub mod serve;
pub mod session;

/// What every request and every answer carries, for a packet capture to find.
pub const MARKER: &str = "trefoil-plaintext-marker";

/// Of an answer over HTTP: what the request said of the client's certificate.
pub const CERTIFICATE: &str = "x-test-client-certificate";

/// Where the test server listens.
pub mod port {
    /// HTTP/1.1, HTTP/2 with prior knowledge, gRPC.
    pub const HTTP: u16 = 8080;
    /// Lines, answered line by line.
    pub const TCP: u16 = 9000;
    /// The server speaks first.
    pub const GREETING: u16 = 9001;
    /// Bytes both ways, with checksums.
    pub const BULK: u16 = 9002;
    /// The server that breaks the rules of HTTP.
    pub const HOSTILE: u16 = 9003;
}
