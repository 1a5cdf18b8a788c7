//! The embedded issuer in a process of its own. It prints its address. For each line of input it
//! prints how many requests it has had.

use std::io::BufRead;
use std::time::Duration;

use tokend_issuer::client::RegisteredClient;
use tokend_issuer::{Issuer, Settings};

/// Runs until its input ends. Tokens live for `lifetime` seconds.
pub fn run(lifetime: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let issuer = runtime
        .block_on(Issuer::start(Settings {
            clients: vec![RegisteredClient::with_secret("bench", "secret")],
            token_lifetime: Duration::from_secs(lifetime),
            ..Settings::default()
        }))
        .expect("issuer");
    println!("{}", issuer.token_url());
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            println!("{}", issuer.count("/token"));
        }
        std::process::exit(0);
    });
    runtime.block_on(std::future::pending::<()>());
}
