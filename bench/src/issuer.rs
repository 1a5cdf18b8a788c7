//! The embedded issuer in a process of its own. It tells its address, and on each line of input how often it was asked.

use std::io::BufRead;
use std::time::Duration;

use tokend::dev::faults::{Fault, Times};
use tokend::dev::issuer::client::Client;
use tokend::dev::issuer::{Issuer, Settings};

/// Length of a token, in bytes.
pub const TOKEN: usize = 1200;

/// Runs until its input ends. Tokens live for so many seconds.
pub fn run(lifetime: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let issuer = runtime
        .block_on(Issuer::start(Settings {
            clients: vec![Client::with_secret("bench", "secret")],
            token_lifetime: Duration::from_secs(lifetime),
            ..Settings::default()
        }))
        .expect("issuer");
    // Opaque tokens of a fixed length, so that signing does not compete with what is measured.
    let token = "t".repeat(TOKEN);
    issuer.script(
        Fault::Status {
            status: 200,
            body: format!(
                r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lifetime}}}"#
            ),
            headers: vec![("Content-Type".into(), "application/json".into())],
        },
        Times::Always,
    );
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
