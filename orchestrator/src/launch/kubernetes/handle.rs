//! What an attempt is called in a cluster, and what it is known by.

use std::fmt;

use protocol::RunId;

/// An attempt's name in a cluster: that of its Job, its Secret and its PodDisruptionBudget. It is always the same, and the API server
/// takes it once: that is the lock which keeps two services, or one that asks again, from starting two.
pub fn name(run: &RunId, attempt: u32) -> String {
    format!("z-{}-{attempt}", run.as_str().to_ascii_lowercase())
}

/// A Job of one cluster. No other has ever the same: a Job that somebody makes anew under its name has another UID, and a namespace of its
/// name in another cluster as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The UID of its namespace, which tells clusters apart.
    pub namespace: String,
}

impl Handle {
    /// Reads it; `None` if it is another launcher's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(uid), Some(namespace)) => Some(Handle { name, uid, namespace }),
            _ => None,
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { name, uid, namespace } = self;
        write!(f, "{name}:{uid}:{namespace}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_as_they_were_written_and_others_are_not() {
        let handle = Handle { name: "z-r-1-2".into(), uid: "u".into(), namespace: "n".into() };
        assert_eq!(Handle::parse(&handle.to_string()), Some(handle));
        assert_eq!(Handle::parse("17:4"), None);
    }
}
