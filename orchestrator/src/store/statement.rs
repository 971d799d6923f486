//! A statement with its values, which can be made twice: where a connection turns out to be dead, once more on a new one.

use std::fmt::Write as _;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe};

/// SQL and what its `$1`, `$2`, … stand for. The text never has anything in it that came from outside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    sql: String,
    values: Vec<Value>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(i64),
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Value::Text(text.map(str::to_owned))
    }
}

impl Statement {
    pub(super) fn new(sql: &str) -> Self {
        Statement { sql: sql.to_owned(), values: Vec::new() }
    }

    /// Goes on with this.
    pub(super) fn then(mut self, sql: &str) -> Self {
        self.sql.push_str(sql);
        self
    }

    /// Goes on with this and a value.
    pub(super) fn with(mut self, sql: &str, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        let _ = write!(self.sql, "{sql}${}", self.values.len());
        self
    }

    /// Goes on with rows: `($1, $2), ($3, $4)`.
    pub(super) fn rows<const N: usize>(self, rows: impl IntoIterator<Item = [Value; N]>) -> Self {
        rows.into_iter().enumerate().fold(self, |statement, (row, values)| {
            let statement = statement.then(if row == 0 { "(" } else { ", (" });
            let mut between = "";
            let row = values
                .into_iter()
                .fold(statement, |statement, value| statement.with(std::mem::replace(&mut between, ", "), value));
            row.then(")")
        })
    }

    /// As it is executed: prepared, and kept prepared by the connection.
    pub(super) fn query(&self) -> Query<'static, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        self.values.iter().fold(query, |query, value| match value {
            Value::Number(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_through() {
        let rows = [[Value::from(1), "a".into()], [2.into(), None.into()]];
        let statement = Statement::new("INSERT INTO t VALUES ").rows(rows).with(" LIMIT ", 3);
        assert_eq!(statement.sql, "INSERT INTO t VALUES ($1, $2), ($3, $4) LIMIT $5");
        assert_eq!(statement.values.len(), 5);
    }
}
