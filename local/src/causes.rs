//! What an error says to people.

#[cfg(test)]
mod tests;

/// An error with its causes, each said once: some libraries' texts repeat their causes', and an API server's
/// refusal is its message alone.
pub fn causes(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let refusal = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => Some(status.message.clone()),
            _ => None,
        };
        let last = refusal.is_some();
        let text = refusal.unwrap_or_else(|| cause.to_string());
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        if last {
            break;
        }
    }
    said.join(": ")
}
