//! The access log of this process, for tests to read.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::plane::until;

type Line = BTreeMap<&'static str, String>;

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<Line>>>);

/// Of the whole process: tests tell their lines by their paths.
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
        if event.metadata().target() == "access" {
            let mut line = Line::new();
            event.record(&mut Fields(&mut line));
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Lines {
    /// The one line of requests for `path`, once it is there.
    pub(crate) async fn of(&self, path: &str) -> Line {
        let found = || -> Vec<Line> {
            let lines = self.0.lock().unwrap();
            let of_path = |line: &&Line| line.get("path").is_some_and(|value| value == path);
            lines.iter().filter(of_path).cloned().collect()
        };
        until("the line is written", || !found().is_empty()).await;
        let mut found = found();
        assert_eq!(found.len(), 1, "one line for {path}");
        found.remove(0)
    }
}
