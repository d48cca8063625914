//! Messages and keys that GnuPG 2.2.40 made: an Ed25519 key that certifies, with a subkey that signs, without expiry;
//! `gpg --sign` of a document with and without compression; and the key with its revocation.

use super::super::json;
use super::*;

const KEY: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawEXoRYJKwYBBAHaRw8BAQdADXgXi6LYNwGfXXFkvN2jCmI52wZrv+HTPlna
EpdYzOK0EnRlc3RlckBleGFtcGxlLmNvbYiQBBMWCAA4FiEEm4jU7Ygz3aNoKZz1
dPMYsem5Oy4FAmsBF6ECGwEFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQdPMY
sem5Oy5oSgEAnfqjOgLFGOnkx4eXlfW3Q4pK/zs7l35TrMacu5dEE7ABAI4GcHNu
/nnJPKKXWVtzlsJkmGmSCblG5CSsbt7PyckOuDMEawEXoRYJKwYBBAHaRw8BAQdA
STRazWKKHl3jTKX4FSXg/t97EN95CTL+c2r8wwtAgymI7wQYFggAIBYhBJuI1O2I
M92jaCmc9XTzGLHpuTsuBQJrARehAhsCAIEJEHTzGLHpuTsudiAEGRYIAB0WIQQG
J0ydVc1NHz2YXMTyPqGQIHHm5QUCawEXoQAKCRDyPqGQIHHm5Rz2AP4vzDvlElUB
4TYmhqb2mYrjjYpWnew0WSU9hz/qqcczCAEAq4mk3c9qhHfYujwy63v/yR9mbaF2
EFGbrvTbTAipGQyuLwD/fyHFKf4QnxhYYDCg7qLQNxXwVHyrdag5K9a7XgMjcAkA
/1GXn+xQd3UBeU9SPPJ3RZEIsHzQgizgUDLBAYSgwIAD
=Trir
-----END PGP PUBLIC KEY BLOCK-----
";

const REVOKED: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawEXoRYJKwYBBAHaRw8BAQdADXgXi6LYNwGfXXFkvN2jCmI52wZrv+HTPlna
EpdYzOKIeAQgFggAIBYhBJuI1O2IM92jaCmc9XTzGLHpuTsuBQJrARehAh0AAAoJ
EHTzGLHpuTsudlcBAI/iIZkXLnLqjcGQ4/AhyaXmL44fIImagnQrclTP+ALmAPwL
x0sxXbOXkxAJqzhle/uK+0OCydV9hUz+sRnRr1qWCrQSdGVzdGVyQGV4YW1wbGUu
Y29tiJAEExYIADgWIQSbiNTtiDPdo2gpnPV08xix6bk7LgUCawEXoQIbAQULCQgH
AgYVCgkICwIEFgIDAQIeAQIXgAAKCRB08xix6bk7LmhKAQCd+qM6AsUY6eTHh5eV
9bdDikr/OzuXflOsxpy7l0QTsAEAjgZwc27+eck8opdZW3OWwmSYaZIJuUbkJKxu
3s/JyQ64MwRrARehFgkrBgEEAdpHDwEBB0BJNFrNYooeXeNMpfgVJeD+33sQ33kJ
Mv5zavzDC0CDKYjvBBgWCAAgFiEEm4jU7Ygz3aNoKZz1dPMYsem5Oy4FAmsBF6EC
GwIAgQkQdPMYsem5Oy52IAQZFggAHRYhBAYnTJ1VzU0fPZhcxPI+oZAgceblBQJr
ARehAAoJEPI+oZAgceblHPYA/i/MO+USVQHhNiaGpvaZiuONilad7DRZJT2HP+qp
xzMIAQCriaTdz2qEd9i6PDLre//JH2ZtoXYQUZuu9NtMCKkZDK4vAP9/IcUp/hCf
GFhgMKDuotA3FfBUfKt1qDkr1rteAyNwCQD/UZef7FB3dQF5T1I88ndFkQiwfNCC
LOBQMsEBhKDAgAM=
=Mo5N
-----END PGP PUBLIC KEY BLOCK-----
";

const FINGERPRINT: &str = "9B88D4ED8833DDA368299CF574F318B1E9B93B2E";
/// Compressed, as gpg does it unless told otherwise.
const MESSAGE: &str = "owGbwMvMwCH2yW7hBIXCZ08Z1zIqJbEXJFbm5CemZDOKL6xWSi7KLMlMTsxRsqpWykxJzSvJLKkEsVPyk7NTi3SLUtNSi1Lz\
     klOVrJSKUtMzi0uKKvVSKxJzC3JS9ZLzc/VLUhNz9RMLCqwMlWp1lDJzE9NTkbTnJuZlpqUWl+imZKYDKaAhxRmJRqZmVkmJ\
     aalJKcZmhhaWiUDKwiLJPMnY0tA0NdHUNMXEzDDVICktOS0pJSXV0DDV1CTJINHQyNjS0jItySwp1dQgDWRZSWUByFmJJfm5\
     mckKyfl5JYmZealFCsWZ6XmJJaVFqSBF+QUlmfl5EP8lF6UCFRcB9aQXpCsBDcjMBToK6BclK0NzE0tLCwsLA4Pa2o5SFgYx\
     DgZZMUUWNnWfuaFnfeVtZ8QcgQUiKxMo5Bi4OAVgIuFLGP4H/Q2cM9XLLkXq9skXiW9Ma98sbU5ulEnoM23POZDQdy2akeH7\
     zZbzhtxntr5KzvCfN43BbqXw3mntB4T0/2q8UFVvf8UOAA==";
const PLAIN: &str = "kA0DAAgW8j6hkCBx5uUBrQEiYgdwYXlsb2FkawEXoXsiY3JpdGljYWwiOnsiaWRlbnRpdHkiOnsiZG9ja2VyLXJlZmVyZW5j\
     ZSI6InJlZ2lzdHJ5LmV4YW1wbGUuY29tL3RlYW0vYXBwOjEifSwiaW1hZ2UiOnsiZG9ja2VyLW1hbmlmZXN0LWRpZ2VzdCI6\
     InNoYTI1NjpiYWZlYmQzNjE4OWFkMzY4OGI3YjM5MTVlYTU1ZDQ2MWUwYmZjZmJkZGUxMWU1NGIwYTEyMzk5OWZiNmJlNTBm\
     In0sInR5cGUiOiJhdG9taWMgY29udGFpbmVyIHNpZ25hdHVyZSJ9LCJvcHRpb25hbCI6eyJjcmVhdG9yIjoiZ3BnIiwidGlt\
     ZXN0YW1wIjoxNzQ5OTg4ODAwfX2IdQQAFggAHRYhBAYnTJ1VzU0fPZhcxPI+oZAgceblBQJrARehAAoJEPI+oZAgceblV6QA\
     /1L9UZyVSj5kGtvJ6GHsNX3spYNjgRxgjjWHbMBgjtZbAQD32YTPMQvMtepjaE+elgA+qRO9lofAEi/9KOglJ4fqBw==";
/// 2028-01-01
const NOW: i64 = 1_830_297_600;

fn check(message: &[u8], key: &[u8]) -> Checked<Verified> {
    verify(message, &[key.to_vec()], NOW)
}

fn message(text: &str) -> Vec<u8> {
    json::base64(text).unwrap()
}

#[test]
fn a_message_signed_by_a_subkey() {
    for text in [MESSAGE, PLAIN] {
        let verified = check(&message(text), KEY.as_bytes()).unwrap();
        assert_eq!(verified.fingerprint, FINGERPRINT);
        assert!(verified.content.starts_with(b"{\"critical\":"));
        assert_eq!(verified.expires, None);
    }
    let binary = packet::dearmor(KEY.as_bytes(), "PUBLIC KEY BLOCK").unwrap();
    assert!(check(&message(PLAIN), &binary).is_ok());
    assert!(check(&message(PLAIN), &[binary.clone(), binary].concat()).is_ok());
}

#[test]
fn keys_that_do_not_count() {
    let refused = |key: &[u8], reason: &str| {
        let error = check(&message(PLAIN), key).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    };
    refused(REVOKED.as_bytes(), "is revoked");
    refused(b"", "no public key");
    refused(b"\0\0\0\x20\x01\x01\0\x02KBXf\0\0", "keybox");
    refused(b"hello", "not an OpenPGP packet");
    let error = verify(&message(PLAIN), &[], NOW).unwrap_err();
    assert!(error.contains("not in the keyring"), "{error}");
    // Without the subkey, and without what binds it.
    let binary = packet::dearmor(KEY.as_bytes(), "PUBLIC KEY BLOCK").unwrap();
    let mut sizes = Vec::new();
    for packet in packet::Packets::new(&binary) {
        sizes.push(packet.unwrap().body.len() + 2);
    }
    let upto = |count: usize| &binary[..sizes[..count].iter().sum::<usize>()];
    refused(upto(3), "not in the keyring");
    refused(upto(4), "does not belong to its primary key");
    refused(&[upto(2), &binary[upto(3).len()..]].concat(), "no valid name");
    // A primary key that claims the subkey of another.
    refused(&binary[upto(1).len()..], "does not begin with a public key");
}

#[test]
fn every_spoilt_byte_is_noticed() {
    let good = message(PLAIN);
    for at in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            if let Ok(verified) = check(&bad, KEY.as_bytes()) {
                // Headers that are not part of what is signed: the one-pass packet, the name of the file, hints.
                assert_eq!(verified.content, check(&good, KEY.as_bytes()).unwrap().content, "byte {at}");
            }
        }
    }
    for cut in 0..good.len() {
        assert!(check(&good[..cut], KEY.as_bytes()).is_err(), "{cut}");
    }
    let binary = packet::dearmor(KEY.as_bytes(), "PUBLIC KEY BLOCK").unwrap();
    for at in 0..binary.len() {
        let mut bad = binary.clone();
        bad[at] ^= 0x10;
        drop(check(&good, &bad));
    }
}

#[test]
fn odd_messages_are_refused() {
    let good = message(PLAIN);
    let refused = |bytes: &[u8], reason: &str| {
        let error = check(bytes, KEY.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    };
    refused(&[good.as_slice(), &good].concat(), "more than one document");
    refused(b"", "no document");
    refused(&vec![0; MAX_MESSAGE + 1], "larger than 2 MiB");
    refused(&[0xc8, 0x02, 0x09, 0x00], "compression 9");
    refused(&[0xd2, 0x01, 0x01], "has no place");
    // A small packet of very many zeros.
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
    encoder.write_all(&vec![0; 50 << 20]).unwrap();
    let body = encoder.finish().unwrap();
    let mut bomb = vec![0xc8, 0xff];
    bomb.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bomb.extend(body);
    refused(&bomb, "larger than 2 MiB");
    // Compression in compression in compression.
    let mut nested = good;
    for _ in 0..4 {
        let mut outer = vec![0xc8, 0xff];
        outer.extend(u32::try_from(nested.len() + 1).unwrap().to_be_bytes());
        outer.push(0);
        outer.extend(nested);
        nested = outer;
    }
    refused(&nested, "has no place");
}
