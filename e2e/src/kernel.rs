//! What the kernel says of a network namespace and of processes: a witness that asks no part of the mesh.

mod connections;
mod processes;

pub use connections::{Connection, connections, sockets_of};
pub use processes::{control_group, parent, program, running};

/// Established connections of a port in a network namespace, as the kernel lists them.
pub async fn sockets(netns: &str, port: u16) -> anyhow::Result<String> {
    let filter = format!("( sport = :{port} )");
    let output = tokio::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            netns,
            "ss",
            "-Htn",
            "state",
            "established",
            &filter,
        ])
        .output()
        .await?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
