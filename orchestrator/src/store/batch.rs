//! What a commit writes, as few statements.

use std::collections::{BTreeMap, HashMap};

use protocol::RunId;
use protocol::control::run::Happening;

use super::statement::{Statement, Value};
use super::{Change, StoreError};
use crate::model::{Record, Sealed};

/// Most rows of one statement.
const ROWS: usize = 64;

/// All of a commit, encoded before anything is locked.
#[derive(Debug)]
pub(super) struct Batch {
    runs: Vec<Row>,
    told: Vec<[String; 3]>,
    /// Places elsewhere that come on the list of those that no run has, with the run that they were meant for, and those that leave it.
    places: BTreeMap<String, Option<RunId>>,
}

/// What becomes of a run.
#[derive(Debug)]
struct Row {
    /// The stored version that it follows; 0 where nothing is stored.
    follows: i64,
    record: Record,
    text: String,
}

impl Batch {
    /// Several changes of one run are written as the last of them.
    pub(super) fn of(changes: &[Change]) -> Result<Self, StoreError> {
        let mut batch = Batch { runs: Vec::with_capacity(changes.len()), told: Vec::new(), places: BTreeMap::new() };
        let mut places = HashMap::new();
        for change in changes {
            let Change { record, told } = change;
            let listed = change.places().into_iter();
            batch.places.extend(listed.map(|(place, on)| (place.text().to_owned(), on.then(|| record.run.clone()))));
            let text = encoded(record)?;
            match places.get(&record.run) {
                None => {
                    places.insert(&record.run, batch.runs.len());
                    batch.runs.push(Row { follows: record.version - 1, record: record.clone(), text });
                }
                Some(&place) => {
                    let row: &mut Row = &mut batch.runs[place];
                    if record.version != row.record.version + 1 {
                        let (run, version, before) = (&record.run, record.version, row.record.version);
                        return Err(StoreError::Conflict(format!("run {run}: version {version} follows {before}")));
                    }
                    *row = Row { follows: row.follows, record: record.clone(), text };
                }
            }
            for Happening { run, time, what } in told {
                batch.told.push([run.to_string(), time.clone(), encoded(what)?]);
            }
        }
        Ok(batch)
    }

    /// A place elsewhere comes on the list, meant for this run, or leaves it.
    pub(super) fn of_place(place: &Sealed, run: Option<&RunId>) -> Self {
        let places = BTreeMap::from([(place.text().to_owned(), run.cloned())]);
        Batch { runs: Vec::new(), told: Vec::new(), places }
    }

    /// How much is told.
    pub(super) fn told(&self) -> i64 {
        i64::try_from(self.told.len()).unwrap_or(i64::MAX)
    }

    /// The statements, each with the rows that it must change, and the runs that are those rows. Runs that give up their server and
    /// target go first: others may take them over in the same transaction.
    pub(super) fn of_runs(&self) -> impl Iterator<Item = (Statement, Vec<&Record>)> {
        let stored = |row: &&Row| row.follows != 0;
        let (updated, new): (Vec<&Row>, Vec<&Row>) = self.runs.iter().partition(stored);
        let (taking, leaving): (Vec<&Row>, Vec<&Row>) =
            updated.into_iter().partition(|row| row.record.state.is_active());
        let statements = [(leaving, update as fn(&[&Row]) -> Statement), (taking, update), (new, insert)];
        statements.into_iter().flat_map(|(rows, statement)| {
            let pieces: Vec<_> = pieces(&rows).map(|piece| (statement(piece), records(piece))).collect();
            pieces
        })
    }

    /// The statements for what is told, whose last has this place.
    pub(super) fn of_told(&self, last: i64) -> impl Iterator<Item = Statement> {
        let numbered: Vec<(i64, &[String; 3])> = (last - self.told() + 1..).zip(&self.told).collect();
        let statements: Vec<Statement> = pieces(&numbered)
            .map(|piece| {
                let rows = piece.iter().map(|(seq, [run, time, what])| {
                    [Value::from(*seq), run.as_str().into(), time.as_str().into(), what.as_str().into()]
                });
                Statement::new("INSERT INTO told (seq, run, time, what) VALUES ").rows(rows)
            })
            .collect();
        statements.into_iter()
    }
}

impl Batch {
    /// The statements for places elsewhere.
    pub(super) fn of_places(&self) -> Vec<Statement> {
        let (on, off): (Vec<_>, Vec<_>) = self.places.iter().partition(|(_, run)| run.is_some());
        let on = pieces(&on).map(|piece| {
            let rows = piece
                .iter()
                .map(|(place, run)| [Value::from(place.as_str()), run.as_ref().map_or("", RunId::as_str).into()]);
            Statement::new("INSERT INTO elsewhere (place, run) VALUES ").rows(rows).then(" ON CONFLICT DO NOTHING")
        });
        let off = pieces(&off).map(|piece| {
            let rows = piece.iter().map(|(place, _)| [Value::from(place.as_str())]);
            Statement::new("DELETE FROM elsewhere WHERE place IN (VALUES ").rows(rows).then(")")
        });
        on.chain(off).collect()
    }
}

fn records<'a>(rows: &[&'a Row]) -> Vec<&'a Record> {
    rows.iter().map(|row| &row.record).collect()
}

fn insert(rows: &[&Row]) -> Statement {
    let sql =
        "INSERT INTO runs (seq, run, version, state, server, target, fabric, image, idempotency_key, record) VALUES ";
    Statement::new(sql).rows(rows.iter().map(|row| {
        let record = &row.record;
        [
            Value::from(record.seq),
            record.run.as_str().into(),
            record.version.into(),
            record.state.name().into(),
            record.server().as_str().into(),
            record.target_key().as_str().into(),
            record.fabric().as_str().into(),
            record.order.image.name.as_str().into(),
            record.key.as_ref().map(|key| key.key.as_str()).into(),
            row.text.as_str().into(),
        ]
    }))
}

/// Both engines call the columns of `VALUES` so.
fn update(rows: &[&Row]) -> Statement {
    let values = rows.iter().map(|row| {
        let record = &row.record;
        let state = record.state.name();
        [
            Value::from(record.run.as_str()),
            row.follows.into(),
            record.version.into(),
            state.into(),
            row.text.as_str().into(),
        ]
    });
    Statement::new("UPDATE runs SET version = new.column3, state = new.column4, record = new.column5 FROM (VALUES ")
        .rows(values)
        .then(") AS new WHERE runs.run = new.column1 AND runs.version = new.column2")
}

/// Pieces whose lengths are powers of two: so there are few different statements, and a connection keeps all of them prepared.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let len = 1 << rows.len().min(ROWS).checked_ilog2()?;
        let (piece, rest) = rows.split_at(len);
        rows = rest;
        Some(piece)
    })
}

fn encoded(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Conflict(format!("it cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_powers_of_two_and_all_there_is() {
        for len in [0, 1, 2, 3, 7, 64, 65, 200] {
            let rows: Vec<usize> = (0..len).collect();
            let lens: Vec<usize> = pieces(&rows).map(<[usize]>::len).collect();
            assert!(lens.iter().all(|len| len.is_power_of_two() && *len <= ROWS), "{lens:?}");
            assert_eq!(pieces(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        }
    }
}
