//! The policy's file: rules by the names of images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use envelope::distinct;
use protocol::spec::{ImageSpec, MAX_TRUST};
use serde::{Deserialize, Serialize};

/// The name of the rule for every image without one of its own.
const EVERY_IMAGE: &str = "*";

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    images: BTreeMap<String, Rule>,
}

/// What an image must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Ids of the keys whose signatures count.
    trust: Vec<String>,
    /// How many of them must have signed.
    #[serde(default = "one")]
    threshold: usize,
    /// The lowest version allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_version: Option<u64>,
}

fn one() -> usize {
    1
}

impl Rules {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        distinct::object(bytes).map_err(|error| error.to_string())?;
        let mut rules: Rules = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        for (name, rule) in &mut rules.images {
            rule.check().map_err(|why| format!("`images.{name}`: {why}"))?;
        }
        Ok(rules)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none: then no image is allowed.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The rule for an image of this name, and the name that the rule has.
    pub(super) fn find(&self, image: &str) -> Option<(&str, &Rule)> {
        let found = self.images.get_key_value(image).or_else(|| self.images.get_key_value(EVERY_IMAGE));
        found.map(|(name, rule)| (name.as_str(), rule))
    }
}

impl Rule {
    /// Checks the rule, and writes its keys as ids are written.
    fn check(&mut self) -> Result<(), String> {
        let keys = self.trust.len();
        if !(1..=MAX_TRUST).contains(&keys) {
            return Err(format!("`trust` names {keys} keys; give 1 to {MAX_TRUST}"));
        }
        let is_id = |id: &str| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(stranger) = self.trust.iter().find(|id| !is_id(id)) {
            return Err(format!("`trust`: {stranger:?} is no key's id: give 64 hex digits"));
        }
        self.trust.iter_mut().for_each(|id| id.make_ascii_lowercase());
        let distinct = self.trust.iter().collect::<BTreeSet<_>>().len();
        if distinct != keys {
            return Err("`trust` names a key twice, which would count once".into());
        }
        if !(1..=keys).contains(&self.threshold) {
            return Err(format!("`threshold` is {}, with {keys} keys; give 1 to {keys}", self.threshold));
        }
        Ok(())
    }

    /// What an order asks for, completed by this rule.
    pub(super) fn bound(&self, asked: &ImageSpec) -> Result<ImageSpec, String> {
        let id = |key: &PathBuf| key.to_string_lossy().to_ascii_lowercase();
        if let Some(stranger) = asked.trust.iter().map(id).find(|id| !self.trust.contains(id)) {
            return Err(format!("its policy does not trust key {stranger}"));
        }
        let given = if asked.trust.is_empty() { None } else { Some(asked.trust.iter().map(id).collect::<Vec<_>>()) };
        let trust = given.unwrap_or_else(|| self.trust.clone());
        if trust.iter().collect::<BTreeSet<_>>().len() != trust.len() {
            return Err("`image.trust` names a key twice, which would count once".into());
        }
        let least = self.threshold;
        if let Some(threshold) = asked.threshold.filter(|threshold| *threshold < least) {
            return Err(format!("`image.threshold` is {threshold}, and its policy demands {least}"));
        }
        if let (Some(version), Some(least)) = (asked.min_version, self.min_version)
            && version < least
        {
            return Err(format!("`image.min_version` is {version}, and its policy demands {least}"));
        }
        Ok(ImageSpec {
            trust: trust.into_iter().map(PathBuf::from).collect(),
            threshold: Some(asked.threshold.unwrap_or(least)),
            min_version: asked.min_version.or(self.min_version),
            ..asked.clone()
        })
    }

    /// The rule as it is pinned: as it would stand in a policy of its own.
    pub(super) fn text(&self, name: &str) -> String {
        serde_json::json!({ name: self }).to_string()
    }
}
