//! Revocation always wins: a caller that `access` no longer names is not served, whatever else is
//! wrong with the files.

use proptest::prelude::*;

use super::*;
use crate::core::policy::stated::{OnDisk, Stated};
use crate::core::policy::{Access, Caller, Directory, Subject, Unanswered, Unit};
use crate::core::profile::{AccessRule, ProfileName};

const DAEMON: u32 = 990;
const CALLERS: [u32; 5] = [0, DAEMON, 1, 2, 3];

/// What an edit writes for `access`.
#[derive(Clone, Debug)]
enum Written {
    Nothing,
    /// A list of these users.
    Users(Vec<u32>),
    /// A text in place of a list.
    WrongKind,
    /// A list without any readable entry.
    WrongKeys,
    /// The first half of a list.
    Torn,
    /// The edit removes the whole profile.
    NoProfile,
}

/// What else is wrong in the same edit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    /// An error in a secret file, which only code that reads files can know.
    Outside,
    UnknownKey,
    UnknownKeyOfServer,
    ServerInFragment,
    /// A syntax error in the table above.
    SyntaxAbove,
    /// A syntax error in the table below.
    SyntaxBelow,
    /// A text without its end, in the table above: the rest of the file is part of the text.
    TextAbove,
    /// A list without its end, in the table above.
    ListAbove,
    /// A text without its second quote, in the profile's own table.
    SyntaxInside,
    /// The profile's header lacks its closing bracket.
    Header,
    /// The profile is also in another file.
    Twice,
    /// The file with the profile cannot be read at all.
    Unreadable,
}

#[derive(Clone, Debug)]
struct Edit {
    written: Written,
    wrong: Wrong,
    /// Whether the profile is in a file of profiles.d.
    fragment: bool,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let users = || prop::sample::subsequence(vec![0, 1, 2, 3], 1..=4);
    let written = prop_oneof![
        6 => users().prop_map(Written::Users),
        1 => Just(Written::Nothing),
        1 => Just(Written::WrongKind),
        1 => Just(Written::WrongKeys),
        1 => Just(Written::Torn),
        1 => Just(Written::NoProfile),
    ];
    let wrong = prop_oneof![
        4 => Just(Wrong::Nothing),
        2 => Just(Wrong::Outside),
        1 => Just(Wrong::UnknownKey),
        1 => Just(Wrong::UnknownKeyOfServer),
        1 => Just(Wrong::ServerInFragment),
        1 => Just(Wrong::SyntaxAbove),
        1 => Just(Wrong::SyntaxBelow),
        1 => Just(Wrong::TextAbove),
        1 => Just(Wrong::ListAbove),
        1 => Just(Wrong::SyntaxInside),
        1 => Just(Wrong::Header),
        1 => Just(Wrong::Twice),
        1 => Just(Wrong::Unreadable),
    ];
    let edit = (written, wrong, any::<bool>()).prop_map(|(written, wrong, fragment)| Edit {
        written,
        wrong,
        fragment: fragment || wrong == Wrong::Unreadable,
    });
    prop::collection::vec(edit, 1..12)
}

fn text_of(edit: &Edit) -> String {
    let access = match &edit.written {
        Written::NoProfile => return String::new(),
        Written::Nothing => String::new(),
        Written::Users(users) => {
            let users: Vec<String> = users
                .iter()
                .map(|one| format!("{{ user = {one} }}"))
                .collect();
            format!("access = [{}]\n", users.join(", "))
        }
        Written::WrongKind => "access = \"worker\"\n".to_owned(),
        Written::WrongKeys => "access = [{ usr = 1 }]\n".to_owned(),
        Written::Torn => "access = [{ user = 1 }, { user = \n".to_owned(),
    };
    let header = match edit.wrong {
        Wrong::Header => "[profiles.p\n",
        _ => "[profiles.p]\n",
    };
    let more = match edit.wrong {
        Wrong::UnknownKey => "unknown = 1\n",
        Wrong::SyntaxInside => "target = \"http://localhost\n",
        _ => "",
    };
    format!("{header}{more}method = \"none\"\n{access}")
}

fn sources(edit: &Edit) -> Sources {
    let above = match edit.wrong {
        Wrong::SyntaxAbove => "oops\n",
        Wrong::TextAbove => "target = \"\"\"\n",
        Wrong::ListAbove => "access = [\n",
        _ => "",
    };
    let below = match edit.wrong {
        Wrong::SyntaxBelow => "oops = \n",
        _ => "",
    };
    let foreign = match edit.wrong {
        Wrong::ServerInFragment if edit.fragment => "[server]\n",
        _ => "",
    };
    let server = match edit.wrong {
        Wrong::UnknownKeyOfServer => "[server]\nunknown = 1\n",
        _ => "",
    };
    let text = format!(
        "[profiles.above]\nmethod = \"none\"\n{above}{}[profiles.below]\nmethod = \"none\"\n{below}{foreign}",
        text_of(edit)
    );
    let (main, fragment) = if edit.fragment {
        (server.to_owned(), text)
    } else {
        (format!("{text}{server}"), String::new())
    };
    let twice = match edit.wrong {
        Wrong::Twice => "[profiles.p]\nmethod = \"none\"\naccess = [{ user = 1 }]\n",
        _ => "",
    };
    let fragment = match edit.wrong {
        Wrong::Unreadable => Loaded::Unreadable {
            path: "/etc/tokend/profiles.d/a.toml".into(),
            why: "no".into(),
        },
        _ => Loaded::Text(file("profiles.d/a.toml", &fragment)),
    };
    Sources {
        main: file("tokend.toml", &main),
        fragments: vec![fragment, Loaded::Text(file("profiles.d/b.toml", twice))],
    }
}

/// The users that the files permit after an edit. None: the files do not say.
fn permitted(edit: &Edit) -> Option<Vec<u32>> {
    let mut users = match &edit.written {
        Written::Nothing => vec![0, DAEMON],
        Written::Users(users) => users.clone(),
        Written::WrongKind | Written::WrongKeys | Written::Torn | Written::NoProfile => vec![0],
    };
    if edit.wrong == Wrong::Unreadable {
        return None;
    }
    let syntax = [
        Wrong::SyntaxAbove,
        Wrong::SyntaxBelow,
        Wrong::TextAbove,
        Wrong::ListAbove,
    ];
    if matches!(edit.written, Written::NoProfile) && syntax.contains(&edit.wrong) {
        return None;
    }
    if edit.wrong == Wrong::Twice {
        if matches!(edit.written, Written::NoProfile) {
            return Some(vec![1]);
        }
        users.retain(|user| *user == 1);
    }
    Some(users)
}

/// A model of what the daemon does with the files that it reads.
#[derive(Default)]
struct Daemon {
    in_force: Option<Vec<AccessRule>>,
    on_disk: OnDisk,
}

impl Daemon {
    fn look(&mut self, edit: &Edit) {
        let name = ProfileName::parse("p").expect("a name");
        let outcome = load(&sources(edit));
        if let Some(config) = &outcome.config {
            match config.profiles.get(&name) {
                Some(Ok(profile)) if edit.wrong != Wrong::Outside => {
                    self.in_force = Some(profile.access.clone());
                }
                None if config.broken.is_empty() => *self = Daemon::default(),
                _ => {}
            }
        }
        if self.in_force.is_some() {
            self.on_disk.note(outcome.access.of(&name));
        }
    }

    fn serves(&self, user: u32) -> bool {
        let caller = Caller {
            uid: user,
            gid: user,
            groups: Vec::new(),
            pid: None,
        };
        let subject = Subject {
            caller: &caller,
            unit: Unit::Unknown,
        };
        let permits = |access: Access| access.decide(subject).permits();
        let resolve = |rules: &[AccessRule]| Access::resolve(rules, DAEMON, &Nobody).0;
        self.in_force.as_ref().is_some_and(|in_force| {
            permits(resolve(in_force))
                && self.on_disk.beyond(in_force).all(|stated| match stated {
                    Stated::Rules(rules) => permits(resolve(rules)),
                    Stated::RootOnly => permits(Access::root_only()),
                })
        })
    }
}

struct Nobody;

impl Directory for Nobody {
    fn user(&self, _: &str) -> Result<Option<u32>, Unanswered> {
        Ok(None)
    }
    fn group(&self, _: &str) -> Result<Option<u32>, Unanswered> {
        Ok(None)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A caller is served if both permit it: the access in force last, and the newest that the
    /// files say about access.
    #[test]
    fn nobody_is_served_whom_the_files_no_longer_name(edits in edits()) {
        let mut daemon = Daemon::default();
        let (mut in_force, mut on_disk): (Option<Vec<u32>>, Option<Vec<u32>>) = (None, None);
        for edit in &edits {
            daemon.look(edit);
            if let Some(users) = permitted(edit) {
                on_disk = Some(users);
            }
            let good = matches!(edit.written, Written::Nothing | Written::Users(_))
                && (edit.wrong == Wrong::Nothing
                    || edit.wrong == Wrong::ServerInFragment && !edit.fragment);
            let gone = matches!(edit.written, Written::NoProfile)
                && ![Wrong::UnknownKeyOfServer, Wrong::Unreadable, Wrong::SyntaxAbove, Wrong::SyntaxBelow,
                    Wrong::TextAbove, Wrong::ListAbove, Wrong::Twice].contains(&edit.wrong)
                && (edit.wrong != Wrong::ServerInFragment || !edit.fragment);
            let elsewhere = matches!(edit.written, Written::NoProfile) && edit.wrong == Wrong::Twice;
            if good {
                in_force.clone_from(&on_disk);
            } else if elsewhere {
                in_force = Some(vec![1]);
            } else if gone {
                in_force = None;
            }
            for user in CALLERS {
                let expected = in_force.as_ref().is_some_and(|users| users.contains(&user))
                    && on_disk.as_ref().is_some_and(|users| users.contains(&user));
                prop_assert_eq!(daemon.serves(user), expected, "{} after {:#?}", user, edit);
            }
        }
    }
}

/// What one text says about the access of each profile.
fn told(text: &str) -> Vec<(String, Vec<Stated>)> {
    let access = many("", &[("profiles.d/a.toml", text)]).access;
    access
        .stated
        .into_iter()
        .map(|(name, stated)| (name.to_string(), stated))
        .collect()
}

fn users(users: &[u32]) -> Stated {
    Stated::Rules(
        users
            .iter()
            .map(|user| AccessRule {
                user: Some(crate::core::profile::UserOrGroup::Id(*user)),
                group: None,
                unit: None,
            })
            .collect(),
    )
}

#[test]
fn access_is_read_around_mistakes() {
    let cases = [
        // The tables of a profile are in any order, and the list is written as tables.
        (
            "[profiles.p.tls]\nca = \n[[profiles.p.access]]\nuser = 1\n[[profiles.p.access]]\nuser = 2\n",
            users(&[1, 2]),
        ),
        (
            "[profiles.p]\naccess = [\n  { user = 1 }, # one\n  { user = 2 },\n]\nmethod = \n",
            users(&[1, 2]),
        ),
        (
            "[profiles]\np = { method = \"none\", access = [{ user = 1 }] }\n[server\n",
            users(&[1]),
        ),
        (
            "profiles.p.access = [{ user = 1 }]\n[profiles.q]\nx\n",
            users(&[1]),
        ),
        (
            "[ profiles . \"p\" ]\naccess = [{ user = 1 }]\nx\n",
            users(&[1]),
        ),
        ("profiles.p]\naccess = [{ user = 1 }]\n", users(&[1])),
        ("[[profiles.p\naccess = [{ user = 1 }]\n", users(&[1])),
        // `access` is there, but it is unknown what it says.
        (
            "[profiles.p]\naccess = [{ user = 1 } { user = 2 }]\n",
            Stated::RootOnly,
        ),
        (
            "[profiles.p]\naccess = [{ user = 1 }\nmethod = \"none\"\n",
            Stated::RootOnly,
        ),
        (
            "[profiles.p]\naccess = [{ user = 1 }, { user = 2, unit = \"a }]\n",
            Stated::RootOnly,
        ),
        ("[profiles.p]\naccess [{ user = 1 }]\n", Stated::RootOnly),
        (
            "[profiles.p]\ntarget = \"\"\"\naccess = [{ user = 1 }]\n",
            Stated::RootOnly,
        ),
        (
            "[profiles.p]\naccess = [{ user = 1 }, { user = 2 }]\naccess = [{ user = 1 }]\n",
            Stated::RootOnly,
        ),
        (
            "[profiles.p]\naccess = [{ user = 1 }]\n[profiles.p]\naccess = [{ user = 2 }]\n",
            Stated::RootOnly,
        ),
        (
            "[[profiles.p.access]]\nuser = 1\nunit = \n",
            Stated::RootOnly,
        ),
        // `access` is not there.
        ("[profiles.p]\nmethod = \n", users(&[])),
    ];
    for (text, expected) in cases {
        let told = told(text);
        let of_p: Vec<&Stated> = told
            .iter()
            .filter(|(name, _)| name == "p")
            .flat_map(|(_, stated)| stated)
            .collect();
        assert_eq!(of_p, [&expected], "{text}");
    }
}

#[test]
fn rules_that_can_be_read_hold_beside_one_that_cannot() {
    let text = "[profiles.p]\nmethod = \"none\"\naccess = [{ user = 1 }, { usr = 2 }]\n";
    assert_eq!(told(text), [("p".to_owned(), vec![users(&[1])])]);
}
