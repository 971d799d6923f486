//! The other end of the VCN: a guest with strongSwan, and nginx behind it.

use e2e::Service;
use vm::{Builder, Guest, Link};

use crate::image::Packed;
use crate::orchestrated::PORT;
use crate::pki::Pki;

/// Addresses outside: the gateway's and the machine's.
pub const OUTSIDE: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
/// Where the images are, inside.
pub const INSIDE: &str = "10.20.0.1";
/// Who the gateway is.
pub const GATEWAY: &str = "gateway.vcn.example";
/// Who the machine is.
pub const SERVER: &str = "lpar-17.vcn.example";
/// The pre-shared key, where there is one.
pub const PSK: &str = "correct-horse-battery-staple";

/// How the gateway knows who it talks to.
pub enum Knows<'a> {
    /// Both have this key.
    Psk(&'a str),
    /// It has a certificate of the first authority, good for these dates, and trusts the second one.
    Certificates(&'a Pki, &'a Pki, [&'a str; 2]),
}

/// Dates around now.
pub const NOW: [&str; 2] = ["20240101000000Z", "20340101000000Z"];

/// The gateway.
pub struct Gateway {
    pub guest: Guest,
}

/// How quickly a lost machine is noticed is the machine's affair: the gateway only answers.
const STRONGSWAN: &str = "charon-systemd {
  load = random nonce openssl pem pkcs1 pkcs8 pubkey x509 revocation constraints kdf kernel-netlink socket-default vici
  plugins { vici { socket = unix:///run/charon.vici } }
  filelog { log { path = /run/charon.log\n default = 1\n flush_line = yes } }
  journal { default = -1 }
  send_vendor_id = no
}
swanctl { load = pem pkcs1 pkcs8 x509 revocation constraints pubkey openssl random }
";

impl Gateway {
    /// One at end 0 of a cable, which serves this image to who is allowed.
    pub fn new(link: &Link, packed: &Packed, knows: &Knows<'_>) -> Self {
        Self::of(Guest::builder(), link, packed, knows)
    }

    /// One that also passes on what comes for a service of this machine.
    pub fn before(service: &Service, link: &Link, packed: &Packed, knows: &Knows<'_>) -> Self {
        let gateway = Self::of(Guest::builder().network(), link, packed, knows);
        let (_, port) = service.url().rsplit_once(':').unwrap();
        let relay = format!("busybox nc -ll -p {PORT} -e busybox nc 10.0.2.2 {port}");
        gateway.guest.sh(&format!("setsid {relay} >/run/relay.log 2>&1 </dev/null &"));
        gateway
    }

    fn of(builder: Builder, link: &Link, packed: &Packed, knows: &Knows<'_>) -> Self {
        let builder = builder.named("gateway").gateway().kernel_options("ipv6.disable=1").disk(&packed.disk);
        let guest = builder.link(link, 0, &format!("{}/24", OUTSIDE[0])).boot();
        guest.sh(&format!("ip addr add {INSIDE}/32 dev lo; ip addr add 10.20.0.2/32 dev lo; mkdir -p /srv; modprobe ext4; mount -o ro /dev/vda /srv"));
        guest.put("/etc/nginx.conf", 0o644, NGINX);
        guest.sh("mkdir -p /var/log/nginx /var/lib/nginx; nginx -c /etc/nginx.conf");
        let gateway = Self { guest };
        gateway.start_ike(knows);
        gateway
    }

    /// The images only come out through the tunnel: everything else is dropped.
    fn start_ike(&self, knows: &Knows<'_>) {
        let guest = &self.guest;
        guest.sh("modprobe -a esp4 xfrm_user gcm ghash-generic seqiv");
        guest.sh("mkdir -p /etc/swanctl/x509 /etc/swanctl/x509ca /etc/swanctl/private /etc/swanctl/conf.d");
        let (auth, secrets) = match knows {
            Knows::Psk(key) => (
                "auth = psk",
                format!("secrets {{ ike-1 {{ id-a = {SERVER}\n id-b = {GATEWAY}\n secret = \"{key}\" }} }}"),
            ),
            Knows::Certificates(pki, trusted, [from, until]) => {
                let (certificate, key) = pki.sign(GATEWAY, from, until);
                guest.put("/etc/swanctl/x509/gateway.crt", 0o644, std::fs::read(certificate).unwrap());
                guest.put("/etc/swanctl/private/gateway.key", 0o600, std::fs::read(key).unwrap());
                guest.put("/etc/swanctl/x509ca/ca.crt", 0o644, std::fs::read(trusted.ca()).unwrap());
                ("auth = pubkey", String::new())
            }
        };
        let certs = if auth == "auth = pubkey" { "certs = gateway.crt" } else { "" };
        let connection = format!(
            "connections {{ vcn {{\n version = 2\n local_addrs = {outside}\n proposals = aes256gcm16-prfsha384-ecp384\n dpd_delay = 60s\n\
             local {{ {auth}\n {certs}\n id = {GATEWAY} }}\n remote {{ {auth}\n id = {SERVER} }}\n\
             children {{ net {{ local_ts = 10.20.0.0/24\n remote_ts = 10.9.0.2/32,10.20.1.0/24\n esp_proposals = aes256gcm16-ecp384 }} }} }} }}\n\
             {secrets}\n",
            outside = OUTSIDE[0],
        );
        guest.put("/etc/strongswan.conf", 0o644, STRONGSWAN);
        guest.put("/etc/swanctl/swanctl.conf", 0o600, connection);
        guest.sh("STRONGSWAN_CONF=/etc/strongswan.conf setsid charon-systemd >/run/charon.out 2>&1 &");
        guest.until("charon", 30, "[ -S /run/charon.vici ]");
        guest.run("STRONGSWAN_CONF=/etc/strongswan.conf swanctl --load-all --uri unix:///run/charon.vici").done().ok();
    }

    /// Bytes that have come out of tunnels: one line for each security association.
    pub fn sas(&self) -> String {
        self.guest.sh("ip -s xfrm state")
    }

    /// Bytes that have come through the tunnel of an address inside.
    pub fn received(&self, local: &str) -> u64 {
        let policy = self
            .guest
            .sh(&format!("ip xfrm policy list src {local}/32 dir in; ip xfrm policy list src {local}/32 dir fwd"));
        let request = policy.split("reqid ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        let bytes = self.guest.sh(&format!(
            "ip -s xfrm state list src {} reqid {request} | grep -A1 'lifetime current' | grep -o '[0-9]*(bytes)' | tr -d '(bytes)'",
            OUTSIDE[1]
        ));
        bytes.lines().filter_map(|bytes| bytes.parse::<u64>().ok()).sum()
    }

    /// Moves its address outside into a VLAN.
    pub fn move_to_vlan(&self, vlan: u16) {
        let name = self.guest.sh(&format!("ip -o addr show to {} | cut -d' ' -f2", OUTSIDE[0]));
        self.guest.sh(&format!(
            "modprobe 8021q; ip addr del {0}/24 dev {name}; ip link add link {name} name vlan type vlan id {vlan}; \
             ip addr add {0}/24 dev vlan; ip link set vlan up",
            OUTSIDE[0]
        ));
    }

    /// Gives the machine its address.
    pub fn start_dhcp(&self) {
        let configuration = format!(
            "start {0}\nend {0}\ninterface eth0\nlease_file /run/leases\noption subnet 255.255.255.0\noption lease 3600\n",
            OUTSIDE[1]
        );
        let name = self.guest.sh(&format!("ip -o addr show to {} | cut -d' ' -f2", OUTSIDE[0]));
        self.guest.put("/etc/udhcpd.conf", 0o644, configuration.replace("eth0", &name));
        self.guest.sh("touch /run/leases; setsid busybox udhcpd -f /etc/udhcpd.conf >/run/udhcpd.log 2>&1 &");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.guest.run("tail -40 /run/charon.log; ip -s xfrm state; cat /run/nginx.error").done();
            eprintln!("the gateway's view:\n{}", said.stdout);
        }
    }
}

const NGINX: &str = "user root; worker_processes 1; pid /run/nginx.pid; error_log /run/nginx.error;
events { worker_connections 64; }
http { access_log /run/nginx.access; client_body_temp_path /run/b; proxy_temp_path /run/p; fastcgi_temp_path /run/f;
uwsgi_temp_path /run/u; scgi_temp_path /run/s; sendfile on; keepalive_requests 100000;
server { listen 80; root /srv; location /accepted { return 204; } } }
";
