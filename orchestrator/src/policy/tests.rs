use protocol::Digest;
use serde_json::{Value, json};

use super::*;

fn key(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn order(image: Value) -> NewRun {
    let mut whole = json!({"name": "debian-13", "sources": ["http://a/"]});
    image.as_object().unwrap().iter().for_each(|(key, value)| whole[key] = value.clone());
    let order = json!({"server": "lpar-7", "image": whole, "target": {"device": "/dev/vdb"}});
    NewRun::parse(order.to_string().as_bytes()).unwrap()
}

struct Bed {
    folder: tempfile::TempDir,
    policy: Policy,
}

impl Bed {
    fn new(demanded: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = Policy::new(folder.path().join(POLICY), demanded);
        Bed { folder, policy }
    }

    fn write(&self, text: impl AsRef<str>) {
        std::fs::write(self.folder.path().join(POLICY), text.as_ref()).unwrap();
    }

    fn with(policy: Value) -> Self {
        let bed = Self::new(false);
        bed.write(policy.to_string());
        bed
    }

    fn refused(&self, image: Value, code: Code, says: &str) {
        let problem = self.policy.apply(order(image)).unwrap_err();
        assert!(problem.code == code && problem.detail.contains(says) && problem.hint.is_some(), "{problem:?}");
    }
}

fn two_of_three() -> Value {
    json!({"images": {
        "debian-13": {"trust": [key('a'), key('b').to_uppercase(), key('c')], "threshold": 2, "min_version": 7},
        "*": {"trust": [key('d')]},
    }})
}

#[test]
fn without_a_policy_each_order_says_whom_to_trust() {
    let bed = Bed::new(false);
    let asked = order(json!({"trust": [key('f')]}));
    assert_eq!(bed.policy.apply(asked.clone()).unwrap(), (asked, None));
    bed.refused(json!({}), Code::BadRequest, "`image.trust` names 0 keys");
}

#[test]
fn an_order_may_leave_out_what_the_policy_says_and_can_only_demand_more() {
    let bed = Bed::with(two_of_three());
    let all = [key('a'), key('b'), key('c')];
    let applied = |image: Value| {
        let (order, pin) = bed.policy.apply(order(image)).unwrap();
        let trust: Vec<String> = order.image.trust.iter().map(|key| key.display().to_string()).collect();
        (trust, order.image.threshold, order.image.min_version, pin.unwrap())
    };
    let (trust, threshold, version, pin) = applied(json!({}));
    assert_eq!((trust, threshold, version), (all.to_vec(), Some(2), Some(7)));
    assert_eq!(pin.digest, sha256(pin.rule.as_bytes()));
    let rule: Value = serde_json::from_str(&pin.rule).unwrap();
    assert_eq!((&rule["debian-13"]["threshold"], rule.as_object().unwrap().len()), (&json!(2), 1));
    let (trust, threshold, version, same) =
        applied(json!({"trust": [key('A'), key('c')], "threshold": 2, "min_version": 9}));
    assert_eq!((trust, threshold, version), (vec![key('a'), key('c')], Some(2), Some(9)));
    assert_eq!(pin, same, "the rule is pinned, not what was made of it");
    assert_eq!(applied(json!({"threshold": 3})).1, Some(3));

    bed.refused(json!({"trust": [key('a'), key('d')]}), Code::Policy, "does not trust key dddd");
    bed.refused(json!({"threshold": 1}), Code::Policy, "`image.threshold` is 1, and its policy demands 2");
    bed.refused(json!({"min_version": 6}), Code::Policy, "`image.min_version` is 6");
    bed.refused(json!({"trust": [key('a')]}), Code::Policy, "`image.threshold` is 2, with 1 trusted keys");
    bed.refused(json!({"trust": [key('a'), key('A')]}), Code::Policy, "names a key twice");
    bed.refused(json!({"threshold": 4}), Code::Policy, "`image.threshold` is 4, with 3 trusted keys");
}

#[test]
fn other_images_have_the_rule_for_all_or_none() {
    let bed = Bed::with(two_of_three());
    let (order, pin) = bed.policy.apply(order(json!({"name": "fedora"}))).unwrap();
    assert_eq!((order.image.threshold, order.image.min_version), (Some(1), None));
    assert!(pin.unwrap().rule.starts_with(r#"{"*":"#));
    bed.write(json!({"images": {"debian-13": {"trust": [key('a')]}}}).to_string());
    bed.refused(json!({"name": "fedora"}), Code::Policy, "no rule for it");
    bed.refused(json!({"name": "debian"}), Code::Policy, "no rule for it");
}

#[test]
fn the_file_is_read_anew_and_a_broken_one_refuses_and_says_why() {
    let bed = Bed::with(two_of_three());
    let digest = |bed: &Bed| -> Digest { bed.policy.apply(order(json!({}))).unwrap().1.unwrap().digest };
    let first = digest(&bed);
    let one = json!({"images": {"*": {"trust": [key('a')]}}}).to_string();
    for (text, says) in [
        ("{", "EOF"),
        ("[]", "expected an object"),
        (r#"{"images": {}, "images": {}}"#, "\"images\" stands twice"),
        (r#"{"image": {}}"#, "unknown field `image`"),
        (r#"{"images": {"x": {"trust": []}}}"#, "`images.x`: `trust` names 0 keys"),
        (r#"{"images": {"x": {"trust": ["aa"]}}}"#, "no key's id"),
        (&one.replace(r#""trust""#, r#""threshold": 2, "trust""#), "`threshold` is 2, with 1 keys"),
        (&one.replace(']', &format!(r#", "{}"]"#, key('A'))), "names a key twice"),
        (&one.replace(r#""trust""#, r#""min-version": 2, "trust""#), "unknown field `min-version`"),
    ] {
        bed.write(text);
        bed.refused(json!({}), Code::Policy, says);
        bed.refused(json!({}), Code::Policy, says);
    }
    bed.write(&one);
    assert_ne!(digest(&bed), first);
    bed.write(two_of_three().to_string());
    assert_eq!(digest(&bed), first, "the same rule, the same digest");
    bed.write(r#"{"images": {}}"#);
    bed.refused(json!({}), Code::Policy, "no rule for it");
}

#[test]
fn a_policy_does_not_end_because_its_file_is_lost() {
    let bed = Bed::with(two_of_three());
    bed.policy.apply(order(json!({}))).unwrap();
    std::fs::remove_file(bed.folder.path().join(POLICY)).unwrap();
    bed.refused(json!({"trust": [key('f')]}), Code::Policy, "No such file");
    Bed::new(true).refused(json!({"trust": [key('f')]}), Code::Policy, "No such file");
}

#[test]
fn a_policy_that_is_lost_is_missed_after_a_restart_as_well() {
    let bed = Bed::with(two_of_three());
    bed.policy.look().unwrap();
    std::fs::remove_file(bed.folder.path().join(POLICY)).unwrap();
    let again = Bed { policy: Policy::new(bed.folder.path().join(POLICY), false), ..bed };
    again.refused(json!({"trust": [key('a')]}), Code::Policy, "cannot be used");
    // Whoever wants none says so.
    std::fs::remove_file(again.folder.path().join("policy.json.seen")).unwrap();
    let without = Bed { policy: Policy::new(again.folder.path().join(POLICY), false), ..again };
    assert_eq!(without.policy.look().unwrap(), None);
}
