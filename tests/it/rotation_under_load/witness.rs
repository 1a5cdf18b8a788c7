//! Callers and watchers that ask while certificates are replaced, and what they have seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use prost::Message as _;
use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend::proto::watch_token_response::Event;
use tokend::proto::{self, GetTokenRequest, WatchTokenRequest};
use tokend_issuer::certificates::Pair;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{BREATH, CALLERS};
use crate::harness::{Secrets, runtime};

/// The observations of callers and watchers.
#[derive(Clone)]
pub struct Witness {
    /// Thumbprints that may be served, in the order in which they were installed.
    order: Arc<Mutex<BTreeMap<String, usize>>>,
    /// The newest certificate for which any of them has been given a token.
    newest: Arc<AtomicUsize>,
    pub answers: Arc<AtomicUsize>,
    pub over: Arc<AtomicBool>,
    /// The first error.
    pub wrong: Arc<Mutex<Option<String>>>,
    secrets: Secrets,
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Witness {
    pub fn new(first: &Pair, secrets: &Secrets) -> Witness {
        Witness {
            order: Arc::new(Mutex::new([(first.thumbprint.clone(), 0)].into())),
            newest: Arc::default(),
            answers: Arc::default(),
            over: Arc::default(),
            wrong: Arc::default(),
            secrets: secrets.clone(),
        }
    }

    pub fn install(&self, pair: &Pair) {
        let mut order = locked(&self.order);
        let number = order.len();
        order.insert(pair.thumbprint.clone(), number);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn complain(&self, what: String) {
        locked(&self.wrong).get_or_insert(what);
        self.over.store(true, Ordering::SeqCst);
    }

    /// Judges a credential and returns the number of its certificate. `at_least` is the newest
    /// number that any caller had been given before the request.
    fn judge(&self, who: &str, credential: &proto::Credential, at_least: usize) -> usize {
        self.answers.fetch_add(1, Ordering::SeqCst);
        let Some(number) = locked(&self.order).get(&credential.confirmation).copied() else {
            self.complain(format!(
                "{who}: bound to a certificate that must not be used"
            ));
            return at_least;
        };
        if number < at_least {
            self.complain(format!(
                "{who}: bound to certificate {number} after {at_least} was in force"
            ));
        }
        let expires = credential.expires_at.expect("it expires");
        let expires = UNIX_EPOCH + Duration::new(expires.seconds as u64, expires.nanos as u32);
        if expires <= std::time::SystemTime::now() {
            self.complain(format!("{who}: expired"));
        }
        if self.newest.fetch_max(number, Ordering::SeqCst) < number {
            self.secrets.add(&credential.token);
        }
        number
    }

    /// Starts callers and watchers, one on each channel.
    pub fn crowd(&self, channels: Vec<Channel>) -> Vec<JoinHandle<()>> {
        let tasks = channels.into_iter().enumerate().map(|(number, channel)| {
            let witness = self.clone();
            runtime().spawn(async move {
                if number < CALLERS {
                    witness.call(channel).await;
                } else {
                    witness.watch(channel).await;
                }
            })
        });
        tasks.collect()
    }

    async fn call(self, channel: Channel) {
        let mut client = CredentialServiceClient::new(channel);
        while !self.is_over() {
            let at_least = self.newest.load(Ordering::SeqCst);
            let request = GetTokenRequest {
                profile: "it".into(),
                ..GetTokenRequest::default()
            };
            match client.get_token(request).await {
                Ok(answer) => {
                    let credential = proto::Credential::decode(answer.into_inner().credential);
                    self.judge("a caller", &credential.expect("a credential"), at_least);
                }
                Err(status) => self.complain(format!("a caller: {status:?}")),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn watch(self, channel: Channel) {
        let request = WatchTokenRequest {
            profile: "it".into(),
            ..WatchTokenRequest::default()
        };
        let answer = CredentialServiceClient::new(channel)
            .watch_token(request)
            .await;
        let mut stream = answer.expect("watching").into_inner();
        let (mut before, mut generation) = (0, 0);
        while !self.is_over() {
            // The timeout lets the watcher check once in a while whether the test is over.
            let Ok(next) = tokio::time::timeout(Duration::from_millis(100), stream.message()).await
            else {
                continue;
            };
            match next {
                Ok(Some(proto::WatchTokenResponse {
                    event: Some(Event::Credential(credential)),
                })) => {
                    before = self.judge("a watcher", &credential, before);
                    if credential.generation < generation {
                        self.complain("a watcher: an older generation".to_owned());
                    }
                    generation = credential.generation;
                }
                other => self.complain(format!("a watcher: {other:?}")),
            }
        }
    }
}
