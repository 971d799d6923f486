//! strongSwan's own settings (`strongswan.conf`). Nothing secret stands in them.

use std::path::PathBuf;

/// Where the daemon is, and what it may load.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder for its settings, socket and log. Made, and readable by root only.
    pub folder: PathBuf,
    /// The daemon.
    pub program: PathBuf,
    /// Its plugins: whatever else is installed is not loaded.
    pub plugins: String,
    /// The size of TCP segments to offer to what lies behind a tunnel.
    pub segment: u32,
    /// Whether ESP is put into UDP even where there is no address translation.
    pub encapsulate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            folder: "/run/z-provisioner/ipsec".into(),
            program: "/usr/sbin/charon-systemd".into(),
            plugins: "random nonce openssl pem pkcs1 pkcs8 pubkey x509 revocation constraints kdf kernel-netlink \
                      socket-default vici"
                .into(),
            segment: 0,
            encapsulate: false,
        }
    }
}

/// When an IKE message is sent again: after 1 s, 1.4 s, 2 s, 2.7 s; after another 3.8 s the gateway counts as gone.
const RETRANSMIT: [(&str, &str); 3] =
    [("retransmit_timeout", "1.0"), ("retransmit_base", "1.4"), ("retransmit_tries", "4")];
/// Seconds until the kernel asks again for a security association that is missing.
const ACQUIRE_AGAIN: &str = "10";

impl Settings {
    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("charon.vici")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("charon.log")
    }

    /// Its settings file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("strongswan.conf")
    }

    /// The settings, for the program's own section.
    pub fn text(&self) -> String {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        let Settings { plugins, segment, .. } = self;
        let (socket, log) = (self.socket(), self.log());
        let (socket, log) = (socket.display(), log.display());
        let retransmit: String = RETRANSMIT.map(|(name, value)| format!("  {name} = {value}\n")).concat();
        format!(
            "\
{program} {{
  load_modular = no
  load = {plugins}
{retransmit}  retry_initiate_interval = 5
  install_routes = yes
  install_virtual_ip = yes
  journal {{
    default = -1
  }}
  filelog {{
    agent {{
      path = {log}
      time_format = %F %T
      append = no
      flush_line = yes
      default = 1
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
    kernel-netlink {{
      mss = {segment}
      xfrm_acq_expires = {ACQUIRE_AGAIN}
    }}
  }}
}}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_stands_on_a_line_of_its_own_in_its_section() {
        let text = Settings { segment: 1398, ..Settings::default() }.text();
        assert!(text.starts_with("charon-systemd {\n  load_modular = no\n  load = random nonce openssl"));
        for line in [
            "      socket = unix:///run/z-provisioner/ipsec/charon.vici",
            "      path = /run/z-provisioner/ipsec/charon.log",
            "      mss = 1398",
            "  retransmit_tries = 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
        }
        let depth = text.lines().fold(0, |depth, line| depth + line.matches('{').count() - line.matches('}').count());
        assert_eq!(depth, 0);
        assert!(text.lines().all(|line| line.matches(['=', '{']).count() <= 1));
    }
}
