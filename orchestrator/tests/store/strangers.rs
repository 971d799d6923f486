//! What is not ours is refused, and untouched.

use e2e::Postgres;
use orchestrator::store::{self, Location, StoreError};

use crate::bed::Bed;
use crate::on_both;
use crate::sample::{change, record, run};

on_both!(
    a_database_of_somebody_else_is_refused,
    a_table_of_the_same_name_does_not_make_it_ours,
    a_later_version_is_refused,
    a_record_that_makes_no_sense_is_named,
    two_that_open_an_empty_one_at_once_both_succeed,
);

async fn corrupt(bed: &Bed, says: &str) {
    match store::open(&bed.location()).await.err() {
        Some(StoreError::Corrupt(text)) => assert!(text.contains(says), "{text}"),
        other => panic!("{other:?}"),
    }
}

async fn a_database_of_somebody_else_is_refused(bed: &Bed) {
    bed.sql("CREATE TABLE cats (name TEXT)").await;
    let before = matches!(bed, Bed::Sqlite(_)).then(|| std::fs::read(bed.file()).unwrap());
    corrupt(bed, "not one of z-orchestrator: give it one of its own").await;
    let after = matches!(bed, Bed::Sqlite(_)).then(|| std::fs::read(bed.file()).unwrap());
    assert!(before == after, "it is untouched");
}

async fn a_table_of_the_same_name_does_not_make_it_ours(bed: &Bed) {
    bed.sql("CREATE TABLE service (price INTEGER)").await;
    corrupt(bed, "not one of z-orchestrator").await;
}

async fn a_later_version_is_refused(bed: &Bed) {
    drop(bed.open().await);
    bed.sql("UPDATE service SET version = 7").await;
    corrupt(bed, "has version 7, this program knows 2: start the program that it was last used with, or a later one")
        .await;
}

async fn a_record_that_makes_no_sense_is_named(bed: &Bed) {
    let store = bed.open().await;
    let by = store.take_over().await.unwrap();
    store.commit(by, &[change(&record(1))]).await.unwrap();
    bed.sql("UPDATE runs SET record = '{\"run\": \"run-1\"}'").await;
    match store.run(&run(1)).await {
        Err(StoreError::Corrupt(text)) => assert!(text.contains("run-1") && text.contains("missing field"), "{text}"),
        other => panic!("{other:?}"),
    }
}

async fn two_that_open_an_empty_one_at_once_both_succeed(bed: &Bed) {
    let location = bed.location();
    let opened = tokio::join!(store::open(&location), store::open(&location), store::open(&location));
    for opened in [opened.0, opened.1, opened.2] {
        assert_eq!(opened.err(), None);
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    Bed::sqlite().run(async |bed| {
        let garbage = "no database at all, however long it is. ".repeat(1000);
        std::fs::write(bed.file(), &garbage).unwrap();
        corrupt(bed, "not a database").await;
        assert_eq!(std::fs::read_to_string(bed.file()).unwrap(), garbage);
    });
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    Bed::sqlite().run(async |bed| {
        let file = bed.file().with_file_name("nowhere").join("runs.sqlite");
        let error = store::open(&Location::File(file.clone())).await.err().unwrap().to_string();
        assert!(error.contains(file.to_str().unwrap()) && error.contains("folder exists"), "{error}");
    });
}

#[test]
fn odd_names_of_files_are_taken_as_they_are() {
    Bed::sqlite().run(async |bed| {
        let Bed::Sqlite(lab) = bed else { unreachable!() };
        for name in ["a?mode=memory", "b %41#é", ":memory:", "file:c?vfs=none"] {
            let file = lab.path(name);
            let store = store::open(&Location::File(file.clone())).await.unwrap();
            store.take_over().await.unwrap();
            assert!(file.is_file(), "{name}");
        }
    });
}

#[test]
fn a_wrong_password_is_reported_without_it() {
    let server = Postgres::new();
    Bed::sqlite().run(async |_| {
        let location = Location::parse(&server.url_with("battery-staple")).unwrap();
        let error = store::open(&location).await.err().unwrap().to_string();
        assert!(error.contains("password authentication failed") && error.contains("pg_hba.conf"), "{error}");
        assert!(!error.contains("staple") && error.contains("postgres://postgres@127.0.0.1:"), "{error}");
    });
}

#[test]
fn a_server_that_is_not_there_is_named() {
    Bed::sqlite().run(async |_| {
        // A port that is free now may be somebody's in a moment; nobody is given this one.
        let location = Location::parse("postgres://u:secret@127.0.0.1:1/d").unwrap();
        let error = store::open(&location).await.err().unwrap();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains("refused") && error.contains("look whether PostgreSQL runs"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    });
}
