//! Vectors of RFC 8032 and RFC 8410, and what only the inside can see.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// RFC 8410, 10.3: the same key as PKCS#8 v1, and as v2 with an attribute and the public key.
const RFC8410_V1: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const RFC8410_V2: &str = "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
";
/// RFC 8410, 10.1: its public half.
const RFC8410_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

#[test]
fn rfc8410_keys_are_read_and_written() {
    let v1 = SecretKey::from_pem(RFC8410_V1.as_bytes()).unwrap();
    let v2 = SecretKey::from_pem(RFC8410_V2.as_bytes()).unwrap();
    let public = PublicKey::from_pem(RFC8410_PUBLIC.as_bytes()).unwrap();
    assert_eq!(v1.public(), public);
    assert_eq!(v2.public(), public);
    assert_eq!(*v1.to_pem(), RFC8410_V1);
    assert_eq!(*v2.to_pem(), RFC8410_V1, "always written as version 1");
    assert_eq!(public.to_pem(), RFC8410_PUBLIC);
}

const KEY_ID_RFC8410: &str = "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f";

/// `openssl pkey -pubin -outform DER | sha256sum` of the key of RFC 8410, 10.1.
#[test]
fn a_key_id_is_the_sha256_of_the_spki() {
    let public = PublicKey::from_pem(RFC8410_PUBLIC.as_bytes()).unwrap();
    assert_eq!(public.id().to_string(), KEY_ID_RFC8410);
}

#[test]
fn a_long_attribute_does_not_move_the_seed() {
    // Long-form lengths of one and of two bytes in front of the version number.
    for (attribute_len, length_field) in [(100, "81"), (300, "82")] {
        let seed = hex("d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842");
        let mut body = hex("020100 300506032b6570 04220420");
        body.extend(&seed);
        body.extend(match attribute_len {
            100 => hex("a0 64"),
            _ => hex("a0 82012c"),
        });
        body.extend(vec![0x55; attribute_len]);
        let mut der = hex(&format!("30 {length_field}"));
        der.extend(match length_field {
            "81" => vec![u8::try_from(body.len()).unwrap()],
            _ => u16::try_from(body.len()).unwrap().to_be_bytes().to_vec(),
        });
        der.extend(body);
        let key = SecretKey::from_pem(pem(PRIVATE, &der).as_bytes()).unwrap();
        assert_eq!(*key.to_pem(), RFC8410_V1);
    }
}

#[test]
fn a_version_2_key_with_the_wrong_public_half_is_refused() {
    let mut der = STANDARD.decode(RFC8410_V2.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
    *der.last_mut().unwrap() ^= 1;
    let error = SecretKey::from_pem(pem(PRIVATE, &der).as_bytes()).unwrap_err();
    assert!(matches!(error, Error::BadKey { kind: "private", .. }), "{error}");
}

/// RFC 8032, 7.1, tests 1 to 3: seed, public key, message, signature.
const RFC8032: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
         d25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
         387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
         4a7c15e9716ed28dc027beceea1ec40a",
    ],
];

#[test]
fn rfc8032_signatures() {
    for [seed, public, message, signature] in RFC8032 {
        let (message, signature) = (hex(message), hex(signature));
        let pem = pem(PRIVATE, &[&PKCS8_PREFIX[..], &hex(seed)].concat());
        let key = SecretKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(key.public().raw[..], hex(public));
        assert_eq!(key.sign(&message), signature);
        assert!(key.public().verify(&message, &signature));
        assert!(!key.public().verify(b"another", &signature));
        for len in [0, 63] {
            assert!(!key.public().verify(&message, &signature[..len]));
        }
        assert!(!key.public().verify(&message, &[&signature[..], &[0]].concat()));
    }
}

/// S + L is as good as S to a careless verifier, which would give one payload several valid signatures.
#[test]
fn a_malleated_signature_is_refused() {
    let [_, public, message, signature] = RFC8032[1];
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut malleated = hex(signature);
    let mut carry = 0;
    for (s, l) in malleated[32..].iter_mut().zip(order) {
        let sum = u16::from(*s) + u16::from(l) + carry;
        [*s, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    let key = PublicKey::from_raw(hex(public).try_into().unwrap());
    assert!(key.verify(&hex(message), &hex(signature)));
    assert!(!key.verify(&hex(message), &malleated));
}

#[test]
fn keys_for_which_anybody_can_sign_are_refused() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];
    for point in points {
        let raw: [u8; KEY_LEN] = hex(point).try_into().unwrap();
        let error = PublicKey::from_pem(pem(PUBLIC, &spki(&raw)).as_bytes()).unwrap_err();
        assert!(matches!(error, Error::WeakKey), "{point}: {error}");
    }
    // The neutral element really does accept a signature that no secret went into, so the check is not idle.
    let mut raw = [0; KEY_LEN];
    raw[0] = 1;
    let mut forged = [0; 64];
    forged[0] = 1;
    assert!(PublicKey::from_raw(raw).verify(b"anything", &forged));
}

#[test]
fn debug_shows_no_secret() {
    let key = SecretKey::from_pem(RFC8410_V1.as_bytes()).unwrap();
    assert_eq!(format!("{key:?}"), format!("SecretKey(of public key {KEY_ID_RFC8410})"));
}

#[test]
fn key_ids_are_read_and_written() {
    let id: KeyId = KEY_ID_RFC8410.parse().unwrap();
    assert_eq!(id.to_string(), KEY_ID_RFC8410);
    assert_eq!(KEY_ID_RFC8410.to_uppercase().parse::<KeyId>().unwrap(), id);
    let long = format!("{KEY_ID_RFC8410}0");
    let signed = format!("+{}", &KEY_ID_RFC8410[1..]);
    let wide = format!("é{}", &KEY_ID_RFC8410[2..]);
    for bad in ["", "00", &KEY_ID_RFC8410[1..], &long, &signed, &wide] {
        assert!(matches!(bad.parse::<KeyId>(), Err(Error::BadKeyId { .. })), "{bad}");
    }
}
