//! Kernel parameters: `zprov.KEY=VALUE` sets one value of the configuration, where KEY is the way to it: `zprov.max_age_days=90`,
//! `zprov.network.interfaces.0.mtu=9000`. What is secret stands in files, and cannot be set so.

use serde_json::{Map, Value};

/// What ours begin with.
const PREFIX: &str = "zprov.";

/// The parameters of a command line that are meant for us: the way, and the value as it is written.
pub fn of(command_line: &str) -> Result<Vec<(Vec<&str>, &str)>, String> {
    let ours = command_line.split_whitespace().filter_map(|word| word.strip_prefix(PREFIX));
    ours.map(|word| {
        let (way, value) =
            word.split_once('=').ok_or_else(|| format!("kernel parameter `{PREFIX}{word}` has no value"))?;
        Ok((way.split('.').collect(), value))
    })
    .collect()
}

/// Sets one value. Where there is a text it stays one, whatever it looks like: names may be digits only.
pub fn set(config: &mut Value, way: &[&str], value: &str) -> Result<(), String> {
    let name = || format!("kernel parameter `{PREFIX}{}`", way.join("."));
    let (last, before) = way.split_last().ok_or_else(name)?;
    if way[0] == "made" || way[0] == "trust" {
        return Err(format!("{}: this can only be set in the configuration", name()));
    }
    let mut place = config;
    for step in before {
        let next = match place {
            Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get_mut(index)),
            Value::Object(keys) => Some(keys.entry(*step).or_insert_with(|| Value::Object(Map::new()))),
            _ => None,
        };
        place = next.ok_or_else(|| format!("{}: there is no {step}", name()))?;
    }
    match place {
        Value::Object(keys) => {
            let item = keys.entry(*last).or_insert(Value::Null);
            *item = typed(item, value);
        }
        Value::Array(items) => {
            let item = last.parse().ok().and_then(|index: usize| items.get_mut(index));
            let item = item.ok_or_else(|| format!("{}: there is no {last}", name()))?;
            *item = typed(item, value);
        }
        _ => return Err(format!("{}: this has no parts", name())),
    }
    Ok(())
}

/// A number, true, false, or a text.
fn typed(before: &Value, value: &str) -> Value {
    let parsed = serde_json::from_str(value).ok().filter(|parsed: &Value| parsed.is_number() || parsed.is_boolean());
    parsed.filter(|_| !before.is_string()).unwrap_or_else(|| Value::String(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(command_line: &str) -> Result<Value, String> {
        let mut config = json!({"a": 1, "list": [{"mtu": 1500}], "deep": {}, "wwid": "3600"});
        for (way, value) in of(command_line)? {
            set(&mut config, &way, value)?;
        }
        Ok(config)
    }

    #[test]
    fn values_are_set_where_the_way_leads() {
        let line =
            "quiet zprov.wwid=36005076307 zprov.a=true zprov.list.0.mtu=9000 zprov.deep.er.x=10.0.0.1 console=ttysclp0";
        let expected =
            json!({"a": true, "list": [{"mtu": 9000}], "deep": {"er": {"x": "10.0.0.1"}}, "wwid": "36005076307"});
        assert_eq!(with(line).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        assert!(with("zprov.a").unwrap_err().contains("has no value"));
        assert!(with("zprov.list.1.mtu=1").unwrap_err().contains("there is no 1"));
        assert!(with("zprov.a.b=1").unwrap_err().contains("`zprov.a.b`: this has no parts"));
        assert!(with("zprov.trust.images.0=/x").unwrap_err().contains("only be set in the configuration"));
        assert!(with("zprov.made=2020-01-01T00:00:00Z").is_err());
    }
}
