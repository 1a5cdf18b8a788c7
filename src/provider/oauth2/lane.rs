//! A thread of its own for the HTTP exchanges with one identity provider.
//!
//! A server decides how much work parsing its answer is: interim answers (1xx) without end keep the
//! parser busy for seconds between two looks at anything else. On a thread of its own that delays
//! nobody but this identity provider's profiles; the deadline runs on the asking side, where
//! nothing of it can be blocked.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// So many threads at most. Identity providers beyond that share one with others.
const MOST: usize = 32;

/// All lanes in use, by the origin of their identity provider. They go with their last upstream.
#[derive(Default)]
pub(super) struct Lanes(HashMap<String, Weak<Lane>>);

impl Lanes {
    /// The lane of an identity provider.
    pub(super) fn get(&mut self, origin: &str) -> Arc<Lane> {
        if let Some(lane) = self.0.get(origin).and_then(Weak::upgrade) {
            return lane;
        }
        self.0.retain(|_, lane| lane.strong_count() > 0);
        let least_used = (self.0.len() >= MOST)
            .then(|| self.0.values().min_by_key(|lane| lane.strong_count()))
            .flatten()
            .and_then(Weak::upgrade);
        let lane = least_used.unwrap_or_default();
        if self.0.len() < MOST {
            self.0.insert(origin.to_owned(), Arc::downgrade(&lane));
        }
        lane
    }
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum LaneError {
    /// It took too long.
    Late,
    /// There is no thread, or it failed in ourselves.
    Broken,
}

/// The thread, started at the first use and ended with this.
#[derive(Default)]
pub(super) struct Lane {
    running: OnceLock<RunningLane>,
    starting: Mutex<()>,
}

struct RunningLane {
    handle: Handle,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Lane {
    /// Runs a future on the thread, at most for `limit`. Abandoned or late, it is ended.
    pub(super) async fn run<F>(&self, limit: Duration, work: F) -> Result<F::Output, LaneError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut task = AbortOnDrop(self.handle().map_err(|_| LaneError::Broken)?.spawn(work));
        match tokio::time::timeout(limit, &mut task.0).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(LaneError::Broken),
            Err(_) => Err(LaneError::Late),
        }
    }

    fn handle(&self) -> io::Result<&Handle> {
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.running.get().is_none() {
            // Nobody else sets it: the lock is held.
            let _ = self.running.set(start()?);
        }
        self.running
            .get()
            .map(|running| &running.handle)
            .ok_or_else(|| io::Error::other("not started"))
    }
}

fn start() -> io::Result<RunningLane> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("idp".into())
        .spawn(move || {
            // Nothing is ever sent: this is the end of the sender.
            let _ = runtime.block_on(stopped);
            // A name lookup may still hang.
            runtime.shutdown_background();
        })?;
    Ok(RunningLane {
        handle,
        _stop: stop,
    })
}

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_for_each_origin_up_to_the_most() {
        let mut lanes = Lanes::default();
        let kept: Vec<_> = (0..MOST).map(|i| lanes.get(&i.to_string())).collect();
        assert!(Arc::ptr_eq(&kept[3], &lanes.get("3")));
        let shared = lanes.get("one more");
        assert!(kept.iter().any(|lane| Arc::ptr_eq(lane, &shared)));
        drop((kept, shared));
        let _anew = lanes.get("one more");
        assert_eq!(lanes.0.len(), 1, "unused ones go");
    }

    #[tokio::test]
    async fn what_is_late_or_abandoned_is_ended() {
        let lane = Lane::default();
        for limit in [Duration::from_millis(20), Duration::from_secs(60)] {
            let (held, dropped) = oneshot::channel::<()>();
            let work = async move {
                let _held = held;
                std::future::pending::<()>().await;
            };
            let run = lane.run(limit, work);
            let outcome = tokio::time::timeout(Duration::from_millis(200), run).await;
            assert_eq!(outcome.is_ok(), limit < Duration::from_secs(1));
            // The sender goes with the work.
            tokio::time::timeout(Duration::from_secs(5), dropped)
                .await
                .expect("ended")
                .unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_panic_over_there_is_a_failure_here() {
        let lane = Lane::default();
        let outcome = lane
            .run(Duration::from_secs(5), async { panic!("on purpose") })
            .await;
        assert!(matches!(outcome, Err::<(), _>(LaneError::Broken)));
        let outcome = lane.run(Duration::from_secs(5), async { 7 }).await;
        assert_eq!(outcome.unwrap(), 7, "the thread lives on");
    }
}
