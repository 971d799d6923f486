//! All in which the two engines differ.

use super::StoreError;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// SQLite. Nobody but this process writes to its file: the data folder is locked.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It looks whether the database is ours, and must change nothing before it knows.
    Founder,
    /// It writes.
    Writer,
    /// It only reads.
    Reader,
}

impl Dialect {
    /// What a connection is told first. What an engine waits for is bounded a little below what we wait for it, so that its own words
    /// arrive, and so that what we have given up ends.
    pub(super) fn greeting(self, role: Role) -> &'static str {
        match (self, role) {
            (Dialect::Sqlite, Role::Founder) => "PRAGMA busy_timeout = 4000",
            (Dialect::Sqlite, Role::Writer) => {
                // What a record has forgotten, such as a sealed key, does not stay in free pages.
                "PRAGMA busy_timeout = 4000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                 PRAGMA secure_delete = ON"
            }
            (Dialect::Sqlite, Role::Reader) => "PRAGMA busy_timeout = 4000; PRAGMA query_only = ON",
            (Dialect::Postgres, Role::Founder) => "",
            // A server may be set up to acknowledge what is not on disk yet: that is the one thing that is overruled.
            (Dialect::Postgres, Role::Writer) => {
                "SET statement_timeout = '4s'; SET idle_in_transaction_session_timeout = '4s'; \
                 SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
            }
            (Dialect::Postgres, Role::Reader) => {
                "SET statement_timeout = '4s'; SET idle_in_transaction_session_timeout = '4s'; \
                 SET default_transaction_read_only = on"
            }
        }
    }

    /// How a transaction begins that writes.
    pub(super) fn begin(self, role: Role) -> &'static str {
        match (self, role) {
            // A later one would fail where another has written since the transaction's first look.
            (Dialect::Sqlite, _) => "BEGIN IMMEDIATE",
            // Two services may find the same database empty. The number is of no other meaning.
            (Dialect::Postgres, Role::Founder) => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(8243715091)"
            }
            (Dialect::Postgres, _) => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// How a transaction that writes ends well.
    pub(super) fn commit(self) -> &'static str {
        match self {
            Dialect::Sqlite => "COMMIT",
            // One that waits for a standby would be acknowledged without it when its time is over: it gets no such time.
            Dialect::Postgres => "SET LOCAL statement_timeout = 0; COMMIT",
        }
    }

    /// The tables of the database, whoever made them.
    pub(super) fn tables(self) -> &'static str {
        match self {
            Dialect::Sqlite => {
                r"SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'"
            }
            Dialect::Postgres => {
                "SELECT relname::text FROM pg_class \
                 WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND relkind IN ('r', 'p')"
            }
        }
    }

    /// A schema's text in the engine's own words.
    pub(super) fn schema(self, sql: &str) -> String {
        match self {
            Dialect::Sqlite => sql.to_owned(),
            Dialect::Postgres => sql.replace(" INTEGER", " BIGINT"),
        }
    }

    /// Says how commits reach the disk, where that depends on what lies below; and what it must say.
    pub(super) fn durability(self) -> Option<(&'static str, &'static str)> {
        match self {
            // What knows no shared memory stays with a journal whose last commit a power cut may undo.
            Dialect::Sqlite => Some(("PRAGMA journal_mode", "wal")),
            Dialect::Postgres => None,
        }
    }

    /// Whether a connection that has been kept may have died meanwhile.
    pub(super) fn grows_stale(self) -> bool {
        self == Dialect::Postgres
    }

    /// What an error of the engine means, by its code.
    pub(super) fn meaning(self, code: &str) -> Meaning {
        match self {
            Dialect::Sqlite => sqlite(code.parse().unwrap_or(0)),
            Dialect::Postgres => postgres(code),
        }
    }

    /// What to do when there is no answer at all.
    pub(super) fn advice_on_silence(self) -> &'static str {
        match self {
            Dialect::Sqlite => "look at its disk",
            Dialect::Postgres => "look whether PostgreSQL runs there and can be reached",
        }
    }
}

/// What an error means.
pub(super) enum Meaning {
    /// The change contradicts what is stored.
    Conflict,
    /// The database is broken, or none of ours.
    Corrupt,
    /// It may work later; what to do.
    Unavailable(&'static str),
}

impl Meaning {
    /// The store's error, with what was tried and what the engine said.
    pub(super) fn error(&self, place: &str, said: &str) -> StoreError {
        match self {
            Meaning::Conflict => StoreError::Conflict(said.to_owned()),
            Meaning::Corrupt => StoreError::Corrupt(format!("{place}: {said}")),
            Meaning::Unavailable(advice) => StoreError::Unavailable(format!("{place}: {said}: {advice}")),
        }
    }
}

/// <https://sqlite.org/rescode.html>; the low byte is the kind.
fn sqlite(code: i32) -> Meaning {
    match code & 0xff {
        // A constraint; a value too large.
        19 | 18 => Meaning::Conflict,
        // Malformed; not a database.
        11 | 26 => Meaning::Corrupt,
        5 | 6 => Meaning::Unavailable("another process holds the file: end it"),
        8 => Meaning::Unavailable("make the file, its folder and its file system writable"),
        13 => Meaning::Unavailable(
            "make room on its file system; what was committed is safe, and commits go on by themselves",
        ),
        14 => Meaning::Unavailable("look whether its folder exists and may be written to"),
        10 => Meaning::Unavailable("look at its disk, and at the kernel's log"),
        _ => Meaning::Unavailable("it is tried again"),
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>; the first two characters are the class.
fn postgres(code: &str) -> Meaning {
    match (code, code.get(..2).unwrap_or_default()) {
        // Of the server's, not of the data's; listed before their classes.
        ("25006", _) => Meaning::Unavailable("it takes no writes, as a standby does: name the primary"),
        ("42501", _) => Meaning::Unavailable("let the user own the database"),
        ("53100", _) => {
            Meaning::Unavailable("make room on the server; what was committed is safe, and commits go on by themselves")
        }
        ("53300", _) => Meaning::Unavailable("raise the server's max_connections, or end other clients"),
        ("3D000" | "3F000", _) => Meaning::Unavailable("create it, owned by the user"),
        ("57014" | "55P03", _) => Meaning::Unavailable("another client holds a lock, or the server is overloaded"),
        ("XX001" | "XX002", _) => Meaning::Corrupt,
        // Values that it cannot hold; constraints; limits, as of an index's entry.
        (_, "22" | "23" | "54") => Meaning::Conflict,
        // No such table or column.
        (_, "42") => Meaning::Corrupt,
        (_, "28") => Meaning::Unavailable("look at the user, the password and the server's pg_hba.conf"),
        (_, "57" | "08") => Meaning::Unavailable("it is tried again when the server is back"),
        _ => Meaning::Unavailable("it is tried again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_engines_documentation_says() {
        let meaning = |dialect: Dialect, code| dialect.meaning(code).error("PLACE", "SAID");
        for (dialect, code) in [(Dialect::Sqlite, "2067"), (Dialect::Sqlite, "787"), (Dialect::Postgres, "23505")] {
            assert_eq!(meaning(dialect, code), StoreError::Conflict("SAID".into()), "{code}");
        }
        for (dialect, code) in [(Dialect::Sqlite, "26"), (Dialect::Sqlite, "523"), (Dialect::Postgres, "42P01")] {
            assert!(matches!(meaning(dialect, code), StoreError::Corrupt(_)), "{code}");
        }
        let later =
            [(Dialect::Sqlite, "13"), (Dialect::Sqlite, "261"), (Dialect::Sqlite, "778"), (Dialect::Postgres, "57P01")];
        for (dialect, code) in later.into_iter().chain([(Dialect::Postgres, "53100"), (Dialect::Postgres, "28P01")]) {
            assert!(matches!(meaning(dialect, code), StoreError::Unavailable(_)), "{code}");
        }
    }

    #[test]
    fn a_column_of_postgres_has_64_bits() {
        assert_eq!(Dialect::Postgres.schema("seq INTEGER PRIMARY KEY"), "seq BIGINT PRIMARY KEY");
    }
}
