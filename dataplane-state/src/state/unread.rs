//! Addresses of resources that were refused and have no last good version. What is at them is of the mesh, so it
//! must never be taken for a stranger who is reached in plaintext.

use std::net::IpAddr;

/// Such resources by name, and how many have an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unread {
    names: imbl::HashMap<String, Vec<IpAddr>>,
    addresses: imbl::HashMap<IpAddr, usize>,
}

impl Unread {
    pub(super) fn insert(&mut self, name: &str, addresses: Vec<IpAddr>) {
        self.remove(name);
        for address in &addresses {
            *self.addresses.entry(*address).or_default() += 1;
        }
        self.names.insert(name.to_owned(), addresses);
    }

    pub(super) fn remove(&mut self, name: &str) {
        for address in self.names.remove(name).into_iter().flatten() {
            let last = match self.addresses.get_mut(&address) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                _ => true,
            };
            if last {
                self.addresses.remove(&address);
            }
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }
}
