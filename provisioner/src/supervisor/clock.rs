//! Whether the clock can be believed. It is the machine's own (TOD), and nobody is asked what time it is: but a configuration is not
//! older than when it was made, and not in use for ever. Certificates and tickets are judged by this clock.

use time::{Duration, OffsetDateTime};

use super::Trouble;
use crate::medium::Config;

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

fn written(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| time.to_string())
}
