use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::broker::Tools;
use crate::core::config::{SourceFile, Sources, load};
use crate::core::credential::Fingerprinter;
use crate::core::profile::Endpoint;

/// Writes the token that the profile `it` serves.
fn write(folder: &Path, token: &str) {
    let path = folder.join("token");
    fs::write(&path, token).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
}

fn assembly(trials: mpsc::Sender<ProfileName>) -> Assembly {
    let clock = Clock::system();
    let (broker, actor) = Broker::new(Tools {
        clock: clock.clone(),
        fingerprints: Fingerprinter::new(&[0; 32]),
        published: Arc::default(),
        encode: Arc::new(|credential, _, _, _| credential.token.expose().to_owned().into()),
        host_seed: 1,
    });
    tokio::spawn(actor);
    Assembly::new(
        broker,
        Arc::new(arc_swap::ArcSwap::from_pointee(Registry::new(
            0,
            Access::root_only(),
            Vec::new(),
        ))),
        clock.clone(),
        provider::Shared::new(clock),
        0,
        PreviousRun::by_an_earlier_run(Vec::new()).expect("nothing left"),
        trials,
    )
}

fn handle(registry: &Current) -> Arc<ProfileHandle> {
    match &registry.load().get("it").expect("there").health {
        ProfileHealth::Managed(handle) => handle.clone(),
        ProfileHealth::Invalid(why) => panic!("{why}"),
    }
}

/// Broken by a promotion that goes through the file watcher, which waits for the files to settle
/// and has all of them read again.
#[tokio::test(start_paused = true)]
async fn what_has_delivered_takes_over_at_once_and_no_file_is_read_for_it() {
    let folder = tempfile::tempdir().expect("folder");
    let outcome = load(&Sources {
        main: SourceFile {
            path: folder.path().join("tokend.toml"),
            text: "[profiles.it]\nmethod = \"static\"\ntoken = { file = \"token\" }\n".into(),
            private: true,
            readers: String::new(),
        },
        fragments: Vec::new(),
    });
    let (config, access) = (outcome.config.expect("usable"), outcome.access);
    let (told, mut trials) = mpsc::channel(8);
    let mut assembly = assembly(told);
    let registry = assembly.registry.clone();
    let outcome = || {
        let registry = registry.load();
        registry.get("it").expect("there").reloaded.outcome
    };
    for token in ["first", "second"] {
        write(folder.path(), token);
        let gathered = gather(&config, &assembly.surroundings, &assembly.clock);
        assembly.apply(&config, &access, gathered, Vec::new()).await;
        let mut views = handle(&registry).own().watch();
        let delivered = views.wait_for(|view| view.answer.is_some());
        delivered.await.expect("the broker lives");
    }
    assert_eq!(outcome(), ReloadOutcome::Staged);
    assert!(!assembly.is_complete());
    drop(folder);
    let since = tokio::time::Instant::now();
    while outcome() == ReloadOutcome::Staged {
        let next = tokio::time::timeout(Duration::from_secs(1), trials.recv());
        let name = next.await.expect("in time").expect("told");
        assembly.promote(&[name].into()).await;
    }
    assert_eq!(outcome(), ReloadOutcome::Changed);
    assert!(assembly.is_complete());
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(registry.load().generation, 2);
    let answer = handle(&registry).own().view().answer.clone();
    let answer = answer.expect("delivered");
    assert_eq!(answer.credential.token.expose(), "second");
}

/// Broken by an account that is named by the whole URL.
#[test]
fn an_identity_provider_is_one_account_however_it_is_named() {
    let url = |text: &str| url::Url::parse(text).expect("a URL");
    let issuer = Endpoint::Issuer(url("https://idp.example/realms/a"));
    let token = Endpoint::Token(url("https://idp.example:443/realms/a/token"));
    let other = Endpoint::Token(url("https://idp.example:8443/realms/a/token"));
    assert_eq!(staging::account(&issuer), staging::account(&token));
    assert_ne!(staging::account(&issuer), staging::account(&other));
}
