//! What rules say of whom.

use super::{
    file::{Directory, parse},
    rules::{Ability, Family, Object, Part, Policy, Verdict, Who},
};
use crate::server::toml_file::TomlFile;

fn read(text: &str) -> Result<Policy, String> {
    let user = |name: &str| Ok([("alice", 1_001), ("bob", 1_002)].iter().find(|(n, _)| *n == name).map(|(_, id)| *id));
    let group = |name: &str| Ok([("ops", 50), ("web", 51)].iter().find(|(n, _)| *n == name).map(|(_, id)| *id));
    parse(&TomlFile { path: "p".into(), text: text.to_owned() }, &Directory { user: &user, group: &group })
}

fn who(uid: u32, gids: &[u32]) -> Who {
    Who { uid, gids: gids.to_vec(), all_gids: true }
}

fn ability(word: &str) -> Ability {
    let family = match word.split('.').next().unwrap() {
        "lock" => Family::Lock,
        "election" => Family::Election,
        "member" => Family::Member,
        "kv" => Family::Kv,
        _ => return Ability::ADMIN,
    };
    Ability { family, part: if word.ends_with(".use") { Part::Use } else { Part::Observe } }
}

/// Whether `who` may, of `name` or of `bucket:name`.
fn may(policy: &Policy, who: &Who, word: &str, name: &str) -> Verdict {
    let (bucket, name) = name.split_once(':').map_or((None, name), |(bucket, name)| (Some(bucket), name));
    policy.judge(who, Object { ability: ability(word), bucket, name })
}

#[test]
fn nothing_is_allowed_that_no_rule_allows() {
    let empty = read("# nothing\n").unwrap();
    assert_eq!(may(&empty, &who(0, &[0]), "lock.use", "a"), Verdict::NoRule);

    let policy = read(
        r#"
        [[allow]]
        user = "alice"
        methods = "lock"
        prefix = "jobs."

        [[allow]]
        group = ["web", 70]
        methods = ["election.observe", "kv.use"]
        name = "leader"
        prefix = ["web.", "shared."]
        "#,
    )
    .unwrap();
    let (alice, bob, web) = (who(1_001, &[100]), who(1_002, &[100]), who(1_002, &[100, 51]));
    for (who, word, name, verdict) in [
        (&alice, "lock.use", "jobs.a", Verdict::Allowed),
        (&alice, "lock.observe", "jobs.", Verdict::Allowed),
        (&alice, "lock.use", "jobs", Verdict::NoRule),
        (&alice, "lock.use", "xjobs.a", Verdict::NoRule),
        (&alice, "election.use", "jobs.a", Verdict::NoRule),
        (&alice, "admin", "jobs.a", Verdict::NoRule),
        (&bob, "lock.use", "jobs.a", Verdict::NoRule),
        (&bob, "election.observe", "leader", Verdict::NoRule),
        (&web, "election.observe", "leader", Verdict::Allowed),
        (&web, "election.observe", "leaders", Verdict::NoRule),
        (&web, "election.use", "leader", Verdict::NoRule),
        (&web, "kv.use", "shared.x", Verdict::Allowed),
        (&web, "kv.observe", "shared.x", Verdict::NoRule),
        (&who(9, &[70]), "kv.use", "web.x", Verdict::Allowed),
        // Another bucket needs to be named.
        (&web, "kv.use", "other:shared.x", Verdict::NoRule),
    ] {
        assert_eq!(may(&policy, who, word, name), verdict, "{who:?} {word} {name}");
    }
    assert!(policy.allows_some(&alice, ability("lock.observe"), None));
    assert!(!policy.allows_some(&bob, ability("lock.observe"), None) && !policy.allows_some(&web, ability("kv.use"), Some("b")));
}

#[test]
fn what_one_rule_denies_no_rule_allows() {
    let allow = "[[allow]]\nuser = \"*\"\nmethods = [\"lock\", \"admin\"]\n";
    let deny = "[[deny]]\ngroup = \"web\"\nmethods = \"lock.use\"\nprefix = \"secret\"\n";
    for text in [format!("{allow}{deny}"), format!("{deny}{allow}")] {
        let policy = read(&text).unwrap();
        let web = who(7, &[51]);
        assert_eq!(may(&policy, &web, "lock.use", "secret.x"), Verdict::Denied);
        assert_eq!(may(&policy, &web, "lock.observe", "secret.x"), Verdict::Allowed);
        assert_eq!(may(&policy, &web, "lock.use", "open"), Verdict::Allowed);
        assert_eq!(may(&policy, &web, "admin", "secret.x"), Verdict::Allowed);
        assert_eq!(may(&policy, &who(7, &[50]), "lock.use", "secret.x"), Verdict::Allowed);
        // Who may be in that group for all that is known is treated as one who is.
        let unknown = Who { all_gids: false, ..who(7, &[50]) };
        assert_eq!(may(&policy, &unknown, "lock.use", "secret.x"), Verdict::Denied);
        assert_eq!(may(&policy, &unknown, "lock.use", "open"), Verdict::Allowed);
    }
}

#[test]
fn a_user_and_a_group_in_one_rule_must_both_fit_and_buckets_are_named() {
    let policy = read(
        "[[allow]]\nuser = [\"alice\", 1002]\ngroup = \"ops\"\nmethods = \"kv\"\nbucket = [\"b\", \"c\"]\n\n\
         [[allow]]\nuser = 5\nmethods = \"kv\"\nbucket = \"*\"\n",
    )
    .unwrap();
    for (who, name, verdict) in [
        (who(1_001, &[50]), "b:k", Verdict::Allowed),
        (who(1_002, &[1, 50]), "c:k", Verdict::Allowed),
        (who(1_001, &[51]), "b:k", Verdict::NoRule),
        (who(1_003, &[50]), "b:k", Verdict::NoRule),
        (who(1_001, &[50]), "d:k", Verdict::NoRule),
        (who(1_001, &[50]), "k", Verdict::NoRule),
        (who(5, &[5]), "k", Verdict::Allowed),
        (who(5, &[5]), "d:k", Verdict::Allowed),
    ] {
        assert_eq!(may(&policy, &who, "kv.use", name), verdict, "{who:?} {name}");
    }
}

#[test]
fn what_is_shown_over_http_is_what_rules_about_it_allow_once_there_are_any() {
    let shown = |text: &str, word: &str, name: &str| {
        read(text).unwrap().judge_http(Object { ability: ability(word), bucket: None, name })
    };
    let of_users = r#"
        [[allow]]
        user = "alice"
        methods = "election.observe"
        [[deny]]
        user = "*"
        methods = "election"
        prefix = "secret."
        [[deny]]
        user = "bob"
        methods = ["election", "member"]
    "#;
    assert_eq!(shown("", "election.observe", "a"), Verdict::Allowed);
    assert_eq!(shown(of_users, "election.observe", "a"), Verdict::Allowed);
    assert_eq!(shown(of_users, "member.observe", "a"), Verdict::Allowed);
    assert_eq!(shown(of_users, "election.observe", "secret.a"), Verdict::Denied);
    let of_http = r#"
        [[allow]]
        user = "*"
        methods = "member.observe"
        [[allow]]
        http = true
        methods = "election.observe"
        prefix = ["web.", "secret."]
        [[deny]]
        http = true
        methods = "election.observe"
        name = "web.own"
    "#;
    let both = format!("{of_users}{of_http}");
    for (word, name, verdict) in [
        ("election.observe", "web.a", Verdict::Allowed),
        ("election.observe", "web.own", Verdict::Denied),
        ("election.observe", "secret.a", Verdict::Denied),
        ("election.observe", "a", Verdict::NoRule),
        ("member.observe", "web.a", Verdict::NoRule),
    ] {
        assert_eq!(shown(&both, word, name), verdict, "{word} {name}");
    }
    // They say nothing of users.
    let policy = read(of_http).unwrap();
    assert_eq!(may(&policy, &who(1_001, &[1]), "election.observe", "web.a"), Verdict::NoRule);
    assert_eq!(may(&policy, &who(1_001, &[1]), "member.observe", "a"), Verdict::Allowed);
    assert!(!policy.allows_some(&who(1_001, &[1]), ability("election.observe"), None));
}

#[test]
fn what_is_wrong_in_a_policy_is_said_with_its_line() {
    for (text, said) in [
        ("[[alow]]\nuser = 1\n", "p:1: unknown key \"alow\"; did you mean \"allow\"?"),
        ("[[allow]]\nuser = \"*\"\nmethds = \"lock\"\n", "p:3: unknown key \"methds\"; did you mean \"methods\"?"),
        (
            "[[allow]]\nuser = \"*\"\nmethods = [\"lock\", \"lock.usage\"]\n",
            "p:3: unknown method \"lock.usage\"; did you mean \"lock.use\"?",
        ),
        ("[[allow]]\nuser = \"*\"\nmethods = \"admin.use\"\n", "p:3: unknown method"),
        ("\n[[allow]]\nmethods = \"lock\"\n", "p:2: the rule does not say for whom it is"),
        ("[[allow]]\nhttp = false\nmethods = \"election.observe\"\n", "p:2: http: write http = true"),
        ("[[allow]]\nhttp = true\nuser = \"*\"\nmethods = \"election.observe\"\n", "p:1: whoever asks over HTTP is no user"),
        ("[[allow]]\nhttp = true\nmethods = \"election\"\n", "p:1: over HTTP there is nothing but election.observe"),
        ("[[deny]]\nuser = 1\n", "p:1: the rule does not say what it is about"),
        ("[[allow]]\nuser = \"carol\"\nmethods = \"lock\"\n", "p:2: user: this machine knows no user \"carol\""),
        ("[[allow]]\ngroup = -1\nmethods = \"lock\"\n", "p:2: group: a number"),
        ("[[allow]]\nuser = 1.5\nmethods = \"lock\"\n", "p:2: user: use a name in quotes, a number, or a list of them"),
        ("[[allow]]\nuser = []\nmethods = \"lock\"\n", "p:2: user: the list is empty"),
        ("[[allow]]\nuser = 1\nmethods = \"lock\"\nprefix = [1]\n", "p:4: prefix: use a text"),
        ("[[allow]]\nuser = 1\nmethods = \"lock\"\nname = []\n", "p:4: name: the list is empty"),
        ("[[allow]]\nuser = 1\nmethods = [\"kv\", \"lock\"]\nbucket = \"b\"\n", "p:1: bucket is for kv alone"),
        ("[allow]\nuser = 1\nmethods = \"lock\"\n", "p:1: a rule begins with [[allow]]"),
        ("allow = [1]\n", "p:1: a rule begins with [[allow]]"),
        ("[[allow]\n", "p:1: this is not TOML"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(said), "{text:?}: {error}");
    }
}
