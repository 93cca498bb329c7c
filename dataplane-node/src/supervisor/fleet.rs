//! The workers: one for each scope that has pods. Each is kept alive: a process that ends is followed by
//! another, after a pause that grows while they end early. The others do not notice.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trefoil_api::names::uid::FIRST_WORKER;

use super::link::{self, Grants};
use super::process;
use super::scope::Scope;
use super::worker::{Assignment, Worker};
use crate::flags::RunFlags;

/// The first pause before a worker is started again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What a process whose channel has ended has to end by itself.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A process that lived this long did not end early.
const LONG_LIFE: Duration = Duration::from_secs(30);

/// The workers.
pub(crate) struct Fleet {
    flags: Arc<RunFlags>,
    grants: Grants,
    workers: Mutex<BTreeMap<Scope, Arc<Worker>>>,
    /// Keys that an earlier supervisor stored, until the worker of their scope starts.
    inherited: Mutex<BTreeMap<String, Arc<OwnedFd>>>,
}

impl Fleet {
    /// No workers yet.
    #[must_use]
    pub(crate) fn new(flags: Arc<RunFlags>, grants: Grants) -> Arc<Self> {
        Arc::new(Self {
            flags,
            grants,
            workers: Mutex::default(),
            inherited: Mutex::default(),
        })
    }

    /// Takes the keys of a scope from the store, for a worker to come.
    pub(crate) fn inherit(&self, scope: String, keys: OwnedFd) {
        lock(&self.inherited)
            .entry(scope)
            .or_insert_with(|| Arc::new(keys));
    }

    /// Has the worker of a scope serve a pod; starts one where there is none.
    pub(crate) fn assign(self: &Arc<Self>, scope: &Scope, assignment: Assignment) {
        // Under the lock: a worker that is about to be retired for want of pods is not given one.
        let mut workers = lock(&self.workers);
        if let Some(worker) = workers.get(scope) {
            return worker.assign(assignment);
        }
        let worker = Arc::new(self.new_worker(scope, &workers));
        worker.assign(assignment);
        workers.insert(scope.clone(), Arc::clone(&worker));
        drop(workers);
        let fleet = Arc::clone(self);
        // Draining waits for the workers to end by themselves.
        self.grants.drain.spawn(async move { fleet.tend(&worker).await });
    }

    /// Has the worker of a scope let a pod finish.
    pub(crate) fn unassign(&self, scope: &Scope, uid: &str) {
        let worker = lock(&self.workers).get(scope).cloned();
        if let Some(worker) = worker {
            worker.unassign(uid);
        }
    }

    /// Gives up the keys of scopes that have no pods any more, and says whose they were.
    #[must_use]
    pub(crate) fn disinherit(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.inherited)).into_keys().collect()
    }

    /// All workers.
    #[must_use]
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        lock(&self.workers).values().cloned().collect()
    }

    /// What any worker still has under a pod's uid, be it only to finish.
    #[must_use]
    pub(crate) fn assignment(&self, uid: &str) -> Option<Assignment> {
        self.workers().iter().find_map(|worker| worker.assignment(uid))
    }

    fn new_worker(&self, scope: &Scope, workers: &BTreeMap<Scope, Arc<Worker>>) -> Worker {
        let used: Vec<u32> = workers.values().map(|worker| worker.user).collect();
        let user = (FIRST_WORKER..)
            .find(|user| !used.contains(user))
            .unwrap_or(FIRST_WORKER);
        let worker = Worker::new(scope.clone(), user);
        if let Some(keys) = lock(&self.inherited).remove(&scope.to_string()) {
            worker.keep_keys(keys);
        }
        worker
    }

    /// Keeps one worker alive until the process drains or the worker has nothing left to do.
    async fn tend(&self, worker: &Arc<Worker>) {
        let mut pause = SHORTEST_PAUSE;
        while !self.grants.drain.is_draining() {
            let started = Instant::now();
            self.live(worker).await;
            if self.retire(worker) {
                return;
            }
            if started.elapsed() >= LONG_LIFE {
                pause = SHORTEST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.grants.drain.draining() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One life of a worker's process.
    async fn live(&self, worker: &Arc<Worker>) {
        let (mut child, socket) = match process::start(&self.flags, worker) {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(scope = %worker.scope, %error, "a worker cannot be started");
                return;
            }
        };
        worker.begun(child.id());
        tracing::info!(scope = %worker.scope, process = child.id(), user = worker.user, "worker started");
        let ended = tokio::select! {
            ended = link::serve(worker, &self.grants, &socket) => ended.to_string(),
            () = self.idle(worker) => "it has nothing left to do".into(),
        };
        // Whatever ended the link, the process must not outlive it: it could neither be told nor asked.
        drop(socket);
        let status = match tokio::time::timeout(LAST_WORDS, child.wait()).await {
            Ok(status) => status,
            Err(_) => child.kill().await.and(child.wait().await),
        };
        worker.ended();
        if self.grants.drain.is_draining() {
            tracing::info!(scope = %worker.scope, "worker drained");
        } else {
            tracing::warn!(scope = %worker.scope, reason = ended, ?status, "worker ended");
        }
    }

    /// Resolves once a worker that serves one namespace or pod has none left.
    async fn idle(&self, worker: &Worker) {
        if worker.scope == Scope::Shared {
            return std::future::pending().await;
        }
        worker.until_idle().await;
    }

    /// Takes a worker without pods out of the fleet, and its keys out of the store.
    fn retire(&self, worker: &Arc<Worker>) -> bool {
        let mut workers = lock(&self.workers);
        if worker.scope == Scope::Shared || !worker.is_idle() {
            return false;
        }
        workers.remove(&worker.scope);
        drop(workers);
        self.grants.counters.forget(&worker.scope.to_string());
        let keeper = Arc::clone(&self.grants.keeper);
        let name = super::keeper::keys(&worker.scope.to_string());
        tokio::spawn(async move {
            if let Err(error) = keeper.remove(vec![name]).await {
                tracing::warn!(%error, "the keys of a worker that ended remain stored");
            }
        });
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
