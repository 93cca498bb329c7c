//! The access log of this process, for tests to read.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::mesh::{Mesh, until};

pub(crate) type Line = BTreeMap<&'static str, String>;

/// The access log of this process: a subscriber of one test would not hear all that others make known first.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<Line>>>);

pub(crate) static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::set_global_default(subscriber).expect("only here");
    lines
});

struct Fields<'l>(&'l mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0
            .insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "access" && *event.metadata().level() <= tracing::Level::INFO {
            let mut line = Line::new();
            event.record(&mut Fields(&mut line));
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Lines {
    /// The lines of a mesh's connections in one direction, once there are as many as expected.
    pub(crate) async fn of(&self, mesh: &Mesh, direction: &str, count: usize) -> Vec<Line> {
        let client = format!("{}:", mesh.client.address);
        let found = || -> Vec<Line> {
            let lines = self.0.lock().unwrap();
            let has = |line: &Line, key: &str, start: &str| {
                line.get(key).is_some_and(|value| value.starts_with(start))
            };
            let of_mesh = |line: &&Line| has(line, "direction", direction) && has(line, "src.addr", &client);
            lines.iter().filter(of_mesh).cloned().collect()
        };
        until("the lines are written", || found().len() >= count).await;
        assert_eq!(found().len(), count, "exactly one line each");
        found()
    }
}
