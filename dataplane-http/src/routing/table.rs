//! The routes there are, and for each service the order in which they are asked. Sorted when a route changes, so
//! that for a request the first that matches is the one.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::matching::{HostPattern, Match, RequestHead};
use super::{CompiledRoute, Rule};

/// All routes, shared. Clones are the same; readers never wait.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    writer: Mutex<()>,
    current: ArcSwap<Tables>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    routes: imbl::OrdMap<String, Arc<CompiledRoute>>,
    /// By whose they are, names of routes and their table.
    services: imbl::HashMap<Owner, (imbl::OrdSet<String>, Arc<ServiceRoutes>)>,
}

/// The key of a service, and the namespace of the clients that routes are for: that of the routes. None: they are the
/// service's own, for all clients.
type Owner = (String, Option<String>);

impl CompiledRoute {
    fn owner(&self, service: &str) -> Owner {
        let of_service = service.split('/').next() == Some(self.namespace.as_str());
        let clients = (!of_service).then(|| self.namespace.clone());
        (service.to_owned(), clients)
    }
}

/// The routes of one service, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct ServiceRoutes {
    /// Ports that have routes; 0 is each.
    ports: Vec<u16>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    port: u16,
    host: HostPattern,
    one: Match,
    rule: Arc<Rule>,
}

/// What was found for a request.
#[derive(Debug)]
pub enum Found<'t> {
    /// A rule, and the prefix by which the request matched it, if by one.
    Rule(&'t Arc<Rule>, Option<&'t str>),
    /// No rule of the service's routes matches: 404.
    NoMatch,
    /// No route is for this port of the service: it is as if there were none.
    NoRoutes,
}

impl Routes {
    /// Takes a route in place of the one with its name.
    pub fn insert(&self, route: CompiledRoute) {
        self.change(|tables| {
            tables.take(&route.name);
            let route = Arc::new(route);
            tables.routes.insert(route.name.clone(), route.clone());
            for (service, _) in &route.parents {
                let owner = route.owner(service);
                let (names, _) = tables.services.entry(owner.clone()).or_default();
                names.insert(route.name.clone());
                tables.sort(&owner);
            }
        });
    }

    /// Forgets a route, by `KIND/NAMESPACE/NAME`.
    pub fn remove(&self, name: &str) {
        self.change(|tables| tables.take(name));
    }

    /// The routes of the service `NAMESPACE/HOSTNAME` that are its own, if it has any.
    #[must_use]
    pub fn of(&self, service: &str) -> Option<Arc<ServiceRoutes>> {
        self.table(&(service.to_owned(), None))
    }

    /// Those for it that clients of another namespace have for themselves.
    #[must_use]
    pub fn of_clients(&self, service: &str, namespace: &str) -> Option<Arc<ServiceRoutes>> {
        self.table(&(service.to_owned(), Some(namespace.to_owned())))
    }

    fn table(&self, owner: &Owner) -> Option<Arc<ServiceRoutes>> {
        let tables = self.shared.current.load();
        tables.services.get(owner).map(|(_, table)| table.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Tables)) {
        let _guard = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Tables::clone(&self.shared.current.load());
        change(&mut next);
        self.shared.current.store(Arc::new(next));
    }
}

impl Tables {
    fn take(&mut self, name: &str) {
        let Some(old) = self.routes.remove(name) else {
            return;
        };
        for (service, _) in &old.parents {
            let owner = old.owner(service);
            if let Some((names, _)) = self.services.get_mut(&owner) {
                names.remove(name);
            }
            self.sort(&owner);
        }
    }

    fn sort(&mut self, owner: &Owner) {
        let Some((names, table)) = self.services.get_mut(owner) else {
            return;
        };
        if names.is_empty() {
            self.services.remove(owner);
            return;
        }
        let routes: Vec<_> = names.iter().filter_map(|name| self.routes.get(name)).collect();
        *table = Arc::new(ServiceRoutes::of(&owner.0, &routes));
    }
}

impl ServiceRoutes {
    fn of(service: &str, routes: &[&Arc<CompiledRoute>]) -> Self {
        let mut ports = Vec::new();
        let mut ranked = Vec::new();
        for route in routes {
            let parents = route.parents.iter().filter(|(parent, _)| parent == service);
            for (_, port) in parents {
                ports.push(*port);
                for host in &route.hosts {
                    rank(route, *port, host, &mut ranked);
                }
            }
        }
        // Stable: rules and matches of one route stay in its order.
        ranked.sort_by_key(|(order, _)| *order);
        ports.sort_unstable();
        ports.dedup();
        let entries = ranked.into_iter().map(|(_, entry)| entry).collect();
        Self { ports, entries }
    }

    /// Whether any is for `port`.
    #[must_use]
    pub fn are_for(&self, port: u16) -> bool {
        self.ports.iter().any(|of| is_for(*of, port))
    }

    /// The rule for a request to `port`.
    #[must_use]
    pub fn find(&self, port: u16, head: &RequestHead<'_>) -> Found<'_> {
        if !self.are_for(port) {
            return Found::NoRoutes;
        }
        let found = self.entries.iter().find(|entry| {
            is_for(entry.port, port) && entry.host.matches(head.host) && entry.one.matches(head)
        });
        match found {
            Some(entry) => Found::Rule(&entry.rule, entry.one.prefix()),
            None => Found::NoMatch,
        }
    }
}

fn is_for(of: u16, port: u16) -> bool {
    of == 0 || of == port
}

/// By the Gateway API (HTTPRouteSpec, hostnames and rules): host, then match, then age, then name.
type Order<'r> = (
    Reverse<(usize, usize)>,
    super::matching::Rank,
    i64,
    &'r (String, String),
);

fn rank<'r>(route: &'r CompiledRoute, port: u16, host: &HostPattern, to: &mut Vec<(Order<'r>, Entry)>) {
    for (matches, rule) in &route.rules {
        for one in matches {
            let order = (Reverse(host.rank()), one.rank(), route.created, &route.order);
            let entry = Entry {
                port,
                host: host.clone(),
                one: one.clone(),
                rule: rule.clone(),
            };
            to.push((order, entry));
        }
    }
}
