//! Whether the clock can be believed. It is the machine's own (TOD), and nobody is asked what time it is: but a configuration is not
//! older than when it was made, and not in use for ever. Certificates and tickets are judged by this clock.

use time::{Duration, OffsetDateTime};

use super::Trouble;
use crate::medium::{Config, written};

/// How far two clocks may differ: the one a configuration was made by, and this machine's.
const TOLERANCE: Duration = Duration::hours(24);

/// Refuses a clock that stands outside of the time a configuration is for.
pub fn check(config: &Config, now: OffsetDateTime) -> Result<(), Trouble> {
    let latest = config.made.saturating_add(Duration::days(config.max_age_days.into()));
    let says = |now: OffsetDateTime| format!("this machine's clock says {}", written(now));
    let remedy = "set the clock (on the HMC: Support Element, \"Customize/Set clock\" or STP), or make a new configuration, and IPL again";
    if now < config.made.saturating_sub(TOLERANCE) {
        let what = format!("{}, but its configuration was made at {}, which is later", says(now), written(config.made));
        return Err(Trouble::new(what, remedy));
    }
    if now > latest {
        let what = format!("{}, but its configuration is good until {} (`max_age_days`)", says(now), written(latest));
        return Err(Trouble::new(what, remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_clock_is_believed_within_its_configurations_time() {
        let config: Config = serde_json::from_value(json!({
            "made": "2026-07-14T08:00:00Z", "max_age_days": 30, "server": "s", "trust": {"images": ["k"]},
            "network": {"interfaces": []},
            "run": {"run": "r", "image": {"name": "i", "sources": ["/i"], "trust": ["k"]}, "target": {"device": "/dev/vda"}},
        }))
        .unwrap();
        let at = |text: &str| {
            check(&config, OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap())
        };
        for fine in ["2026-07-13T09:00:00Z", "2026-07-14T08:00:00Z", "2026-08-13T07:59:59Z"] {
            assert_eq!(at(fine), Ok(()), "{fine}");
        }
        assert!(at("2026-07-13T07:59:59Z").unwrap_err().what.ends_with("made at 2026-07-14T08:00:00Z, which is later"));
        assert!(at("2026-08-13T08:00:01Z").unwrap_err().what.contains("good until 2026-08-13T08:00:00Z"));
    }
}
