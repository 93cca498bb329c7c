//! `/etc/hosts` of a pod: the names that cluster DNS would answer. Pure.

use std::fmt::Write as _;

use super::services::{Endpoint, ServiceView};

#[cfg(test)]
mod tests;

/// The domain of service names.
const DOMAIN: &str = "svc.cluster.local";

/// The names that a pod of `namespace` with `own` names and addresses sees.
pub(crate) fn render(namespace: &str, name: &str, addresses: &[String], services: &[ServiceView]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    for address in addresses {
        line(&mut text, address, name);
    }
    for service in services {
        let names = names(namespace, &service.namespace, &service.name);
        for address in &service.addresses {
            line(&mut text, &address.to_string(), &names);
        }
        for endpoint in &service.endpoints {
            if service.headless && endpoint.ready {
                line(&mut text, &endpoint.address.to_string(), &names);
            }
            stateful_name(&mut text, namespace, service, endpoint);
        }
    }
    text
}

/// The name of a pod of a StatefulSet: its own, below its headless service's.
fn stateful_name(text: &mut String, namespace: &str, service: &ServiceView, endpoint: &Endpoint) {
    if let Some(hostname) = &endpoint.hostname {
        let below = format!("{hostname}.{}", service.name);
        line(
            text,
            &endpoint.address.to_string(),
            &names(namespace, &service.namespace, &below),
        );
    }
}

fn line(text: &mut String, address: &str, names: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{address} {names}");
}

/// The names of a service, the shortest only where search domains would find it.
fn names(from: &str, namespace: &str, name: &str) -> String {
    let long = format!("{name}.{namespace}.{DOMAIN} {name}.{namespace}.svc {name}.{namespace}");
    if from == namespace {
        format!("{long} {name}")
    } else {
        long
    }
}
