//! A fuzzer that makes up answers also makes up addresses. Nothing it says may lead to another machine.

/// Header fields, and a parameter of one, that send a client somewhere: name, and what parts it from its value.
const LEADING: [(&[u8], u8); 2] = [(b"location", b':'), (b"realm", b'=')];

/// The reply with every address in it bent to `authority`, and with every word that still might lead elsewhere spoilt.
pub fn stay_home(reply: &[u8], authority: &str) -> Vec<u8> {
    let mut reply = with_authority(reply, authority.as_bytes());
    for (name, sign) in LEADING {
        let mut from = 0;
        while let Some(at) = find(&reply[from..], name).map(|at| from + at) {
            from = at + name.len();
            if !leads_home(&reply[from..], sign, authority) {
                reply[at] = b'~';
            }
        }
    }
    reply
}

/// Replaces what stands behind each `://` by the authority, and the scheme `https` by `http`.
fn with_authority(reply: &[u8], authority: &[u8]) -> Vec<u8> {
    let mut bent = Vec::with_capacity(reply.len());
    let mut rest = reply;
    while let Some(at) = find(rest, b"://") {
        bent.extend_from_slice(&rest[..at]);
        if bent.to_ascii_lowercase().ends_with(b"https") {
            bent.pop();
        }
        bent.extend_from_slice(b"://");
        bent.extend_from_slice(authority);
        let after = &rest[at + 3..];
        let end = after.iter().position(|byte| b"/?#\"\r\n ,\\\t".contains(byte)).unwrap_or(after.len());
        rest = &after[end..];
    }
    bent.extend_from_slice(rest);
    bent
}

/// Whether what follows a leading word is a path on this server, or an address that is plainly its own. Anything that
/// a lenient reader of URLs could take for another host (`//x`, `/\x`, `http:x`, a tab in between) is neither.
fn leads_home(after: &[u8], sign: u8, authority: &str) -> bool {
    let blank = |byte: &u8| *byte == b' ';
    let after = after.trim_ascii_start();
    let Some(value) = after.strip_prefix(&[sign]) else { return true };
    let value = &value[value.iter().take_while(|byte| blank(byte)).count()..];
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    if let Some(path) = value.strip_prefix(format!("http://{authority}").as_bytes()) {
        return path.starts_with(b"/");
    }
    matches!(value, [b'/', next, ..] if next.is_ascii_alphanumeric())
}

/// Where `word` stands first, letters' case aside.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "127.0.0.1:8000";

    fn bent(reply: &str) -> String {
        String::from_utf8(stay_home(reply.as_bytes(), HOME)).unwrap()
    }

    #[test]
    fn addresses_are_bent_home() {
        assert_eq!(bent("Location: https://u:p@evil.example:9/x\r\n"), "Location: http://127.0.0.1:8000/x\r\n");
        assert_eq!(bent(r#"Bearer realm="HTTP://evil/t""#), r#"Bearer ~ealm="HTTP://127.0.0.1:8000/t""#);
        assert_eq!(bent(r#"Bearer realm="http://evil/t""#), r#"Bearer realm="http://127.0.0.1:8000/t""#);
        assert_eq!(bent("location:/blobs\r\n"), "location:/blobs\r\n");
    }

    #[test]
    fn what_might_lead_elsewhere_leads_nowhere() {
        for value in ["//evil/", "/\\evil", "http:evil", "http:\\\\evil", "ht\ttp://evil", "/\t/evil", "\\\\evil", "x"]
        {
            assert!(bent(&format!("Location: {value}\r\n")).starts_with('~'), "{value}");
            assert!(bent(&format!("LOCATION:{value}")).starts_with('~'), "{value}");
            assert!(!bent(&format!("Bearer realm = \"{value}\"")).contains("realm"), "{value}");
        }
        assert!(bent("Location: http://evil\\@x/").starts_with('~'));
    }
}
