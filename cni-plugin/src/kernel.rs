//! Makes the kernel hold what [`crate::redirection`] computed: one transaction per change, only the chains
//! that differ. Decides nothing about pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;

use nlink::netlink::nftables::{Chain, Family, Rule, Set, SetElement, SetKeyType, Transaction};
use nlink::netlink::{Connection, Nftables};

use crate::namespace::Namespace;
use crate::redirection::{self, AddressSet, RuleError, Table};

mod inspect;
mod routing;
mod tracking;

pub use inspect::{Redirection, inspect};
pub use tracking::forget_unredirected;

/// How often a transaction is tried anew because somebody else changed rules meanwhile.
const ATTEMPTS: usize = 8;

/// Why the kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Netlink refused, or the namespace is gone.
    #[error("redirection: {0}")]
    Netlink(#[from] nlink::Error),
    /// The namespace could not be looked into.
    #[error("redirection: {0}")]
    Namespace(#[from] std::io::Error),
    /// Connections that the pod already has would not survive redirection.
    #[error(
        "redirection: net.netfilter.nf_conntrack_tcp_loose: {0}; it needs the kernel module nf_conntrack and a \
         writable /proc/sys"
    )]
    Tracking(std::io::Error),
    /// A rule that nftables cannot express.
    #[error("redirection: {0}")]
    Rule(#[from] RuleError),
    /// A table of our name that has something else in it.
    #[error("redirection: table inet {table} is not one of ours: chain {chain} is of another kind")]
    Foreign {
        /// The table.
        table: &'static str,
        /// The chain.
        chain: &'static str,
    },
}

/// What a pod's namespace must have before its table, and keeps until the pod ends.
pub async fn prepare(namespace: &Namespace) -> Result<(), KernelError> {
    tracking::track_from_the_first_packet(namespace)?;
    routing::install_routing(namespace).await
}

/// Makes the table in a namespace equal to `table` in one transaction; says whether anything changed.
/// Chains whose rules are already right are not touched, so connection tracking is never interrupted.
pub async fn apply(namespace: &Namespace, table: &Table) -> Result<bool, KernelError> {
    let connection = Connection::<Nftables>::new_in(namespace.as_fd())?;
    let mut attempt = 1;
    loop {
        let generation = connection.generation().await?;
        let present = Present::read(&connection, table.name).await?;
        let Some(transaction) = present.changes(&connection, table)? else {
            return Ok(false);
        };
        match transaction
            .expect_generation(generation)
            .commit(&connection)
            .await
        {
            Ok(()) => return Ok(true),
            Err(error) if error.is_restart() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a table, if it is there.
pub async fn remove(namespace: &Namespace, table: &str) -> Result<bool, KernelError> {
    let connection = Connection::<Nftables>::new_in(namespace.as_fd())?;
    Ok(connection.del_table_if_exists(table, Family::Inet).await?)
}

/// What the kernel has of a table.
#[derive(Default)]
struct Present {
    table: bool,
    /// Whether each chain has a hook.
    chains: BTreeMap<String, bool>,
    /// Rules as text; one that cannot be read equals nothing.
    rules: BTreeMap<String, Vec<Option<String>>>,
    sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

impl Present {
    async fn read(connection: &Connection<Nftables>, table: &str) -> Result<Self, KernelError> {
        let tables = connection.list_tables_in(Family::Inet).await?;
        if !tables.iter().any(|present| present.name == table) {
            return Ok(Self::default());
        }
        let mut present = Self {
            table: true,
            ..Self::default()
        };
        for chain in connection.list_chains_in(table, Family::Inet).await? {
            present.chains.insert(chain.name, chain.hook.is_some());
        }
        for rule in connection.list_rules(table, Family::Inet).await? {
            let text = redirection::text(&rule.spec());
            present.rules.entry(rule.chain).or_default().push(text);
        }
        for set in connection.list_sets_in(table, Family::Inet).await? {
            let elements = connection
                .list_set_elements(table, &set.name, Family::Inet)
                .await?;
            let keys = elements.iter().map(|element| element.key().to_vec()).collect();
            present.sets.insert(set.name, keys);
        }
        Ok(present)
    }

    /// The transaction that leads from here to `table`; none if there is nothing to do.
    fn changes(
        &self,
        connection: &Connection<Nftables>,
        table: &Table,
    ) -> Result<Option<Transaction>, KernelError> {
        let mut transaction = connection.transaction();
        let mut changed = false;
        if !self.table {
            transaction = transaction.add_table(table.name, Family::Inet);
            changed = true;
        }
        for set in &table.sets {
            (transaction, changed) = self.set_changes(transaction, changed, table.name, set);
        }
        for set in table.timed.iter().filter(|set| !self.sets.contains_key(set.name)) {
            let ports = Set::new(table.name, set.name).key_type(SetKeyType::InetService);
            transaction = transaction.add_set(ports.dynamic().per_element_timeouts());
            changed = true;
        }
        for chain in &table.chains {
            match self.chains.get(chain.name) {
                Some(&hooked) if hooked != chain.hook.is_some() => {
                    return Err(KernelError::Foreign {
                        table: table.name,
                        chain: chain.name,
                    });
                }
                Some(_) => {}
                None => {
                    transaction = transaction.add_chain(chain_of(table.name, chain)?);
                    changed = true;
                }
            }
        }
        for chain in &table.chains {
            let desired: Vec<Option<String>> = chain.syntax()?.into_iter().map(Some).collect();
            let installed = self.rules.get(chain.name).map_or(&[][..], Vec::as_slice);
            if installed == desired {
                continue;
            }
            changed = true;
            if !installed.is_empty() {
                transaction = transaction.flush_chain(table.name, chain.name, Family::Inet);
            }
            for rule in &chain.rules {
                transaction = transaction.add_rule(Rule::from_spec(table.name, chain.name, rule.clone()));
            }
        }
        Ok(changed.then_some(transaction))
    }

    fn set_changes(
        &self,
        mut transaction: Transaction,
        mut changed: bool,
        table: &str,
        wanted: &AddressSet,
    ) -> (Transaction, bool) {
        let kind = if wanted.v6 {
            SetKeyType::Ipv6Addr
        } else {
            SetKeyType::Ipv4Addr
        };
        let set = Set::new(table, wanted.name).key_type(kind);
        let none = BTreeSet::new();
        let installed = self.sets.get(wanted.name);
        if installed.is_none() {
            transaction = transaction.add_set(set.clone());
            changed = true;
        }
        let installed = installed.unwrap_or(&none);
        let desired: BTreeSet<Vec<u8>> = wanted.elements.iter().map(bytes_of).collect();
        let elements = |keys: Vec<&Vec<u8>>| -> Vec<SetElement> {
            keys.into_iter().map(|key| SetElement::new(key.clone())).collect()
        };
        let added = elements(desired.difference(installed).collect());
        let removed = elements(installed.difference(&desired).collect());
        if !added.is_empty() {
            transaction = transaction.add_set_elements(&set, &added);
            changed = true;
        }
        if !removed.is_empty() {
            transaction = transaction.del_set_elements(&set, &removed);
            changed = true;
        }
        (transaction, changed)
    }
}

fn bytes_of(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn chain_of(table: &str, chain: &redirection::Chain) -> Result<Chain, KernelError> {
    let made = Chain::new(table, chain.name)?.family(Family::Inet);
    Ok(match chain.hook {
        Some(hook) => made.base(hook.base()),
        None => made,
    })
}
