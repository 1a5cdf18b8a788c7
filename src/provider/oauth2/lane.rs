//! A thread of its own for the HTTP exchanges with one identity provider.
//!
//! A server decides how much work parsing its answer is: endless interim answers (1xx) keep the
//! parser busy for seconds before it yields. On a thread of its own this delays only the profiles
//! of this identity provider. The deadline runs on the asking side, which the parser cannot block.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The highest number of threads. Further identity providers share them.
const MOST: usize = 32;

/// All lanes in use, by the origin of their identity provider. A lane goes with its last client.
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

/// The reason why there is no outcome.
#[derive(Debug)]
pub(super) enum LaneError {
    /// It took too long.
    Late,
    /// There is no thread, or our own code failed on it.
    Broken,
}

/// The thread. It starts at the first use and ends when this is dropped.
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
    /// Runs a future on the thread, for at most `limit`. If it is late or abandoned, it is aborted.
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
            // The lock is held, so no other task sets this.
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
            // Nothing is ever sent. This waits for the drop of the sender.
            let _ = runtime.block_on(stopped);
            // A name lookup may still hang.
            runtime.shutdown_background();
        })?;
    Ok(RunningLane {
        handle,
        _stop: stop,
    })
}

/// A task that is aborted when nobody waits for it any more.
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
            // The sender is dropped with the future.
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
