//! nginx as an HTTP server of others: its configuration, and a file of which the checksum is known.

use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};

/// Where it serves HTTP/1.1, over both families.
pub(super) const PLAIN: u16 = 8000;
/// Where it serves HTTP/2: in the clear this nginx serves nothing else on such a port.
pub(super) const HTTP2: u16 = 8001;

/// A folder that nginx serves.
#[derive(Debug)]
pub(super) struct Site {
    configuration: String,
    root: PathBuf,
    /// The checksum of `/file`, as `sha256sum` prints it.
    pub(super) sum: String,
    /// The length of `/file`.
    pub(super) bytes: u32,
}

impl Site {
    /// Makes the folder, with its configuration and a `/file`, which is sent in chunks at `/chunked`; what is put
    /// below `/taken` is kept.
    pub(super) fn make(root: &Path, bytes: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(root.join("taken"))?;
        let content: Vec<u8> = (0..bytes)
            .map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        std::fs::write(root.join("file"), &content)?;
        let configuration = root.join("nginx.conf");
        std::fs::write(&configuration, configured(root))?;
        Ok(Self {
            configuration: configuration.to_str().context("a path")?.to_owned(),
            root: root.to_owned(),
            sum: sum(&content),
            bytes,
        })
    }

    /// Runs it.
    pub(super) fn command(&self) -> [&str; 3] {
        ["nginx", "-c", &self.configuration]
    }

    /// Where `/file` is on this machine.
    pub(super) fn file(&self) -> PathBuf {
        self.root.join("file")
    }

    /// The checksum of what was put below `/taken`.
    pub(super) fn taken(&self, name: &str) -> anyhow::Result<String> {
        let path = self.root.join("taken").join(name);
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(sum(&content))
    }
}

/// As `sha256sum` prints it.
fn sum(content: &[u8]) -> String {
    let sum = digest(&SHA256, content);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn configured(root: &Path) -> String {
    let root = root.display();
    format!(
        "daemon off; user root; pid {root}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}/body;\n\
           server {{ listen {PLAIN}; listen [::]:{PLAIN}; listen {HTTP2} http2; root {root};\n\
             location /chunked {{ alias {root}/file; ssi on; ssi_types *; }}\n\
             location /taken {{ dav_methods PUT; client_max_body_size 0; }} }} }}\n"
    )
}
