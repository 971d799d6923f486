//! What an API server is too old for. It drops fields that it does not know, and says nothing.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::version::Info;

/// Which server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As it says, such as `v1.33.4`.
    pub version: String,
    /// Minor of 1.
    minor: u32,
}

/// A field, the minor version of 1 since which servers heed it without being told to, and what is so without it.
const FIELDS: [(&str, u32, &str); 3] = [
    (
        "podFailurePolicy",
        26,
        "a Job's condition does not tell exit codes apart; the service has them from the agent and the pod",
    ),
    (
        "podReplacementPolicy",
        29,
        "a pod that is deleted is replaced while it still runs: that the second one does not write is then up to the enrolment, which takes \
         one process per attempt, to the lease, and to the reservation of the LUN, alone",
    ),
    ("ttlSecondsAfterFinished", 21, "Jobs that have ended stay until somebody deletes them"),
];

/// Since this minor version there is policy/v1.
const POLICY_V1: u32 = 21;

impl Server {
    /// Takes what a server says of itself.
    pub fn new(info: &Info) -> Self {
        // Some distributions write `20+`.
        let digits: String = info.minor.chars().take_while(char::is_ascii_digit).collect();
        Server { version: info.git_version.clone(), minor: digits.parse().unwrap_or(0) }
    }

    /// What it drops, and what follows from that.
    pub fn drops(&self) -> Vec<(&'static str, &'static str)> {
        FIELDS
            .iter()
            .filter(|(_, since, _)| self.minor < *since)
            .map(|(field, _, without)| (*field, *without))
            .collect()
    }

    /// The version of the API that PodDisruptionBudgets are in.
    pub fn policy(&self) -> &'static str {
        if self.minor < POLICY_V1 { "v1beta1" } else { "v1" }
    }
}

/// What a server has dropped of a Job that it took, whatever version it says it is: features can be off.
pub fn dropped(job: &Job) -> Vec<(&'static str, &'static str)> {
    let spec = job.spec.clone().unwrap_or_default();
    let is_there = [
        spec.pod_failure_policy.is_some(),
        spec.pod_replacement_policy.is_some(),
        spec.ttl_seconds_after_finished.is_some(),
    ];
    FIELDS
        .iter()
        .zip(is_there)
        .filter(|(_, is_there)| !is_there)
        .map(|((field, _, without), _)| (*field, *without))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_drop_what_newer_ones_heed() {
        let server = |minor: &str| Server::new(&Info { minor: minor.into(), ..Info::default() });
        let names = |server: Server| server.drops().into_iter().map(|(field, _)| field).collect::<Vec<_>>();
        assert_eq!(names(server("20+")), ["podFailurePolicy", "podReplacementPolicy", "ttlSecondsAfterFinished"]);
        assert_eq!((names(server("28")), server("20").policy()), (vec!["podReplacementPolicy"], "v1beta1"));
        assert_eq!((names(server("33")), server("33").policy()), (Vec::new(), "v1"));
    }
}
