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
    /// By the key of a service, names of its routes and its table.
    services: imbl::HashMap<String, (imbl::OrdSet<String>, Arc<ServiceRoutes>)>,
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
                tables
                    .services
                    .entry(service.clone())
                    .or_default()
                    .0
                    .insert(route.name.clone());
                tables.sort(service);
            }
        });
    }

    /// Forgets a route, by `KIND/NAMESPACE/NAME`.
    pub fn remove(&self, name: &str) {
        self.change(|tables| tables.take(name));
    }

    /// The routes of the service `NAMESPACE/HOSTNAME`, if it has any.
    #[must_use]
    pub fn of(&self, service: &str) -> Option<Arc<ServiceRoutes>> {
        let tables = self.shared.current.load();
        tables.services.get(service).map(|(_, table)| table.clone())
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
            if let Some((names, _)) = self.services.get_mut(service) {
                names.remove(name);
            }
            self.sort(service);
        }
    }

    fn sort(&mut self, service: &str) {
        let Some((names, table)) = self.services.get_mut(service) else {
            return;
        };
        if names.is_empty() {
            self.services.remove(service);
            return;
        }
        let routes: Vec<_> = names.iter().filter_map(|name| self.routes.get(name)).collect();
        *table = Arc::new(ServiceRoutes::of(service, &routes));
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

    /// The rule for a request to `port`.
    #[must_use]
    pub fn find(&self, port: u16, head: &RequestHead<'_>) -> Found<'_> {
        let is_for = |of: &u16| *of == 0 || *of == port;
        if !self.ports.iter().any(is_for) {
            return Found::NoRoutes;
        }
        let found = self
            .entries
            .iter()
            .find(|entry| is_for(&entry.port) && entry.host.matches(head.host) && entry.one.matches(head));
        match found {
            Some(entry) => Found::Rule(&entry.rule, entry.one.prefix()),
            None => Found::NoMatch,
        }
    }
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
