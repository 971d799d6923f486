use std::time::Duration;

use protocol::control::NewRun;

use super::super::super::BackOff;
use super::super::super::record::{AttemptRecord, Ending};
use super::super::super::{Decision, Input, Moment, Rules, decide};
use super::*;

const NEW: &str = r#"{"server":"lpar-7","image":{"name":"debian-13","sources":["http://a/"],
    "trust":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},"target":{"device":"/dev/vdb","layout":"whole"}}"#;

fn sealed(text: &str) -> Sealed {
    Sealed::new(text.into())
}

/// A run in a state, with an attempt where that has one, and a key.
fn run(state: State) -> Record {
    let attempt = AttemptRecord { number: 1, started: Moment(1), ..AttemptRecord::default() };
    let order = NewRun::parse(NEW.as_bytes()).unwrap();
    Record {
        run: "r-1".to_owned().try_into().unwrap(),
        seq: 1,
        version: 1,
        key: None,
        luks_key: Some(KeyRecord::new(sealed("first"), Moment(1), 0)),
        remains: Vec::new(),
        policy: None,
        created: Moment(1),
        deadline: None,
        state,
        since: Moment(1),
        reason: String::new(),
        not_before: Moment(1),
        silent: Vec::new(),
        cancel: None,
        next_token: None,
        budget: 3,
        attempts: if state == State::Queued { Vec::new() } else { vec![attempt] },
        phase: None,
        step: None,
        summary: None,
        failure: None,
        ended: None,
        order,
    }
}

fn decided(record: &Record, input: Input) -> Result<Decision, Refusal> {
    let back_off = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(2) };
    decide(record, &input, Moment(1000), &Rules { back_off, dice: 0.0 })
}

#[track_caller]
fn refused(record: &Record, input: Input, code: Code) {
    let refusal = decided(record, input).unwrap_err();
    assert_eq!(refusal.code, code, "{refusal:?}");
}

fn actions(decision: &Decision) -> Vec<(KeyAction, Option<u32>, String)> {
    let events = decision.told.iter().filter_map(|what| match what {
        What::Key(event) => Some((event.action.clone(), event.attempt, event.by.clone())),
        _ => None,
    });
    events.collect()
}

fn ada() -> Input {
    Input::ShowKey { by: "ada".into() }
}

fn destroy() -> Input {
    Input::DestroyKey { by: "ada".into(), reason: None }
}

fn cancel(ending: Ending) -> Input {
    Input::Cancel { reason: "the wrong image".into(), ending }
}

#[test]
fn an_attempt_is_given_the_key_once_and_the_next_one_again() {
    let record = run(State::Running);
    let given = decided(&record, Input::ReleaseKey { attempt: 1 }).unwrap();
    assert_eq!(given.answer, Answer::Sealed(sealed("first")));
    assert_eq!(actions(&given), [(KeyAction::Released, Some(1), "attempt 1".into())]);
    assert_eq!((given.record.version, given.record.attempts[0].key_released), (2, Some(Moment(1000))));
    refused(&given.record, Input::ReleaseKey { attempt: 1 }, Code::KeyReleased);
    let mut next = given.record;
    next.attempts[0].outcome = Some(protocol::control::run::Outcome::Lost);
    next.attempts.push(AttemptRecord { number: 2, started: Moment(1), ..AttemptRecord::default() });
    refused(&next, Input::ReleaseKey { attempt: 1 }, Code::AttemptOver);
    assert_eq!(decided(&next, Input::ReleaseKey { attempt: 2 }).unwrap().answer, Answer::Sealed(sealed("first")));
}

#[test]
fn only_the_attempt_that_runs_is_given_it() {
    for state in State::ALL.into_iter().filter(|state| *state != State::Running) {
        refused(&run(state), Input::ReleaseKey { attempt: 1 }, Code::AttemptOver);
    }
    refused(&run(State::Running), Input::ReleaseKey { attempt: 2 }, Code::AttemptOver);
    let without = Record { luks_key: None, ..run(State::Running) };
    for input in [Input::ReleaseKey { attempt: 1 }, ada(), destroy()] {
        refused(&without, input, Code::NotFound);
    }
}

#[test]
fn a_run_that_is_called_off_loses_its_key_with_the_order() {
    let ordered = decided(&run(State::Running), cancel(Ending::Cancelled)).unwrap();
    assert_eq!(ordered.record.state, State::Running, "its agent has not obeyed yet");
    let key = ordered.record.luks_key.as_ref().unwrap();
    assert!(key.sealed.is_none() && key.destroyed.as_ref().unwrap().at == Moment(1000), "{key:?}");
    assert!(!serde_json::to_string(&ordered.record).unwrap().contains("first"));
    assert_eq!(actions(&ordered), [(KeyAction::Destroyed, None, "the service".into())]);
    refused(&ordered.record, Input::ReleaseKey { attempt: 1 }, Code::KeyGone);
    refused(&ordered.record, ada(), Code::KeyGone);
    for state in [State::Queued, State::Launching, State::Lost] {
        let ordered = decided(&run(state), cancel(Ending::Cancelled)).unwrap();
        assert!(ordered.record.luks_key.unwrap().sealed.is_none(), "{state:?}");
    }
    // One whose time is over is given no key either, and can be gone on with.
    let late = decided(&run(State::Running), cancel(Ending::Failed)).unwrap();
    assert!(late.record.luks_key.as_ref().unwrap().sealed.is_some() && actions(&late).is_empty());
    refused(&late.record, Input::ReleaseKey { attempt: 1 }, Code::Conflict);
}

#[test]
fn the_owner_is_shown_it_once_in_any_state() {
    for state in State::ALL {
        let shown = decided(&run(state), ada()).unwrap();
        assert_eq!(shown.answer, Answer::Sealed(sealed("first")));
        assert_eq!(actions(&shown), [(KeyAction::Shown, None, "ada".into())]);
        refused(&shown.record, ada(), Code::KeyShown);
    }
}

#[test]
fn it_is_destroyed_once_and_never_under_an_agent() {
    for state in [State::Launching, State::Running, State::Lost] {
        refused(&run(state), destroy(), Code::Conflict);
    }
    for state in [State::Queued, State::Succeeded, State::Failed, State::Cancelled] {
        let gone = decided(&run(state), destroy()).unwrap();
        assert_eq!(gone.effects, [], "what was here is nowhere else");
        assert_eq!(actions(&gone), [(KeyAction::Destroyed, None, "ada".into())]);
        let text = serde_json::to_string(&gone.record).unwrap();
        assert!(!text.contains("first"), "{text}");
        refused(&gone.record, destroy(), Code::KeyGone);
    }
}

#[test]
fn a_retry_goes_on_under_its_key_or_a_new_one() {
    let failed = run(State::Failed);
    let again = decided(&failed, Input::Retry { key: Some(sealed("second")) }).unwrap();
    assert_eq!(again.record.luks_key, failed.luks_key, "it resumes");
    let gone = decided(&failed, destroy()).unwrap().record;
    refused(&gone, Input::Retry { key: None }, Code::Conflict);
    let again = decided(&gone, Input::Retry { key: Some(sealed("second")) }).unwrap();
    assert_eq!(again.record.luks_key, Some(KeyRecord::new(sealed("second"), Moment(1000), 1)));
    assert_eq!(actions(&again), [(KeyAction::Made, None, "the service".into())]);
    let plain = Record { luks_key: None, ..run(State::Failed) };
    assert_eq!(decided(&plain, Input::Retry { key: None }).unwrap().record.luks_key, None);
}

#[test]
fn what_is_kept_elsewhere_remains_until_it_is_known_to_be_gone_and_what_was_here_does_not() {
    let destroy = || Input::DestroyKey { by: "ada".into(), reason: None };
    let here = decided(&run(State::Failed), destroy()).unwrap();
    assert_eq!((&here.record.remains, &here.effects), (&Vec::new(), &Vec::new()));
    assert!(!serde_json::to_string(&here.record).unwrap().contains("first"));

    let place = Sealed::at("a place");
    let kept = Record { luks_key: Some(KeyRecord::new(place.clone(), Moment(1), 0)), ..run(State::Failed) };
    let gone = decided(&kept, destroy()).unwrap();
    assert_eq!(gone.record.remains, std::slice::from_ref(&place));
    assert_eq!(gone.effects, [Effect::DestroyKey { sealed: place.clone() }]);
    refused(&gone.record, Input::ShowKey { by: "bob".into() }, Code::KeyGone);
    let view = crate::model::view(&gone.record, None, None).key.unwrap();
    assert_eq!((view.destroyed.unwrap().by, view.remains), ("ada".into(), 1));

    let retried = decided(&gone.record, Input::Retry { key: Some(Sealed::at("another")) }).unwrap().record;
    let erased =
        |record: &Record, sealed: &str| decided(record, Input::KeyErased { sealed: Sealed::at(sealed) }).unwrap();
    for strange in ["another", "nowhere"] {
        let decision = erased(&retried, strange);
        assert_eq!((decision.record, decision.told.len()), (retried.clone(), 0), "it is the run's, or was never");
    }
    let confirmed = erased(&retried, "a place");
    assert_eq!(actions(&confirmed), [(KeyAction::Erased, None, "who kept it".into())]);
    assert!(confirmed.record.remains.is_empty());
    assert_eq!(confirmed.record.luks_key, retried.luks_key);
    assert_eq!(erased(&confirmed.record, "a place").record.version, confirmed.record.version, "once");
}

#[test]
fn a_key_is_sealed_anew_in_any_state_and_only_in_place_of_what_was_sealed_anew() {
    for state in State::ALL {
        let reseal = |from: &str| Input::Reseal { from: sealed(from), to: sealed("anew") };
        let decision = decided(&run(state), reseal("first")).unwrap();
        let expected = KeyRecord { sealed: Some(sealed("anew")), ..run(state).luks_key.unwrap() };
        assert_eq!(decision.record, Record { version: 2, luks_key: Some(expected), ..run(state) });
        assert!(decision.told.is_empty() && decision.effects.is_empty());
        // It was replaced, or destroyed, or there never was one.
        assert_eq!(decided(&run(state), reseal("another")).unwrap().record, run(state));
        for key in [None, Some(KeyRecord { sealed: None, ..run(state).luks_key.unwrap() })] {
            let record = Record { luks_key: key, ..run(state) };
            assert_eq!(decided(&record, reseal("first")).unwrap().record, record);
        }
    }
}
