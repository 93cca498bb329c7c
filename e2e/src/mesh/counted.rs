//! What planes count, as each shows it itself.

use anyhow::ensure;
use tokio::process::Command;

use super::{Mesh, Pod};

impl Mesh {
    /// The sum of a metric's series that have all of these labels, in the plane that a pod was made with: its
    /// sidecar, the waypoint that it is, or its node's proxy.
    pub async fn counted(&self, pod: &Pod, metric: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let netns = match pod.sidecar {
            Some(_) => self.netns(pod),
            None => self.node(&pod.node),
        };
        let told = Command::new("ip")
            .args(["netns", "exec", &netns, "curl", "-sSf", "-m", "5"])
            .arg("http://127.0.0.1:15020/metrics")
            .output()
            .await?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let text = String::from_utf8(told.stdout)?;
        let wanted: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(metric);
            rest.is_some_and(|rest| rest.starts_with('{') && wanted.iter().all(|one| rest.contains(one)))
        });
        Ok(series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }
}
