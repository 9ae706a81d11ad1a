//! Our own login to PostgreSQL, after Prosody's driver has failed, because that driver loses the server's message.
//!
//! The terms are from PostgreSQL's manual (54.2, "Message Flow") and from RFC 5802, with SHA-256 (RFC 7677).

use std::io::{self, Read, Write};
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::Database;

/// The longest message that is accepted, and the maximum iteration count. PostgreSQL's default is 4,096.
const LONGEST: usize = 16 * 1024;
const MOST_ROUNDS: u32 = 1_000_000;

/// Replaces the SQLSTATE if the server requires an authentication method that is not implemented here.
pub const UNDETERMINED: &str = "undetermined";

/// A server's reason for a refused login.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The SQLSTATE: `28P01`.
    pub code: String,
    /// The message, in the server's language.
    pub message: String,
}

/// Logs in on a connection after the startup message. `None` if the login succeeds, or if the server requires another
/// SASL mechanism than SCRAM-SHA-256.
pub fn log_in(
    connection: &mut (impl Read + Write + ?Sized),
    database: &Database,
) -> io::Result<Option<Refusal>> {
    let mut exchange: Option<Exchange> = None;
    loop {
        let (kind, content) = receive(connection)?;
        match (kind, &content[..]) {
            (b'E', _) => return Ok(Some(refusal(&content))),
            // Passwords in plain text, by MD5, and by SASL.
            (b'R', [0, 0, 0, 3 | 5 | 10, ..]) if database.password.is_none() => {
                let message = "no password supplied".to_owned();
                return Ok(Some(Refusal { code: "28P01".to_owned(), message }));
            }
            (b'R', [0, 0, 0, 10, mechanisms @ ..]) => {
                let Some(password) = database.password.as_ref().filter(|_| offers(mechanisms)) else {
                    return Ok(None);
                };
                let new = Exchange::new(password.expose())?;
                let first = format!("n,,{}", new.first);
                let mut message = b"SCRAM-SHA-256\0".to_vec();
                message.extend(length(first.len()));
                message.extend(first.bytes());
                send(connection, &message)?;
                exchange = Some(new);
            }
            (b'R', [0, 0, 0, 11, challenge @ ..]) => {
                let answer = exchange.as_ref().and_then(|exchange| exchange.answer(challenge));
                send(connection, answer.ok_or(io::ErrorKind::InvalidData)?.as_bytes())?;
            }
            (b'R', [0, 0, 0, 0 | 12, ..]) | (b'S' | b'K' | b'N' | b'v', _) => {}
            // Passwords in plain text and by MD5 are not implemented.
            (b'R', [0, 0, 0, 3 | 5, ..]) => {
                return Ok(Some(Refusal { code: UNDETERMINED.into(), message: String::new() }));
            }
            // Ready for a query, or another authentication method.
            _ => return Ok(None),
        }
    }
}

fn offers(mechanisms: &[u8]) -> bool {
    mechanisms.split(|byte| *byte == 0).any(|mechanism| mechanism == b"SCRAM-SHA-256")
}

/// The client's state of a SCRAM exchange.
struct Exchange {
    password: String,
    nonce: String,
    /// The first message without its GS2 header: client-first-message-bare (RFC 5802, section 7).
    first: String,
}

impl Exchange {
    fn new(password: &str) -> io::Result<Self> {
        let mut random = [0; 18];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Self::with_nonce(password, "", BASE64.encode(random)))
    }

    fn with_nonce(password: &str, user: &str, nonce: String) -> Self {
        // Like PostgreSQL, use a password unchanged if SASLprep does not accept it.
        let password =
            stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |text| text.into_owned());
        let first = format!("n={user},r={nonce}");
        Self { password, nonce, first }
    }

    /// The client's final message, in answer to the server's first. `None` if that is invalid.
    fn answer(&self, challenge: &[u8]) -> Option<String> {
        let challenge = std::str::from_utf8(challenge).ok()?;
        let field =
            |name: &str| challenge.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let nonce = field("r").filter(|nonce| nonce.starts_with(&self.nonce))?;
        let salt = BASE64.decode(field("s")?).ok()?;
        let rounds: NonZeroU32 =
            field("i")?.parse().ok().filter(|rounds: &NonZeroU32| rounds.get() <= MOST_ROUNDS)?;

        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{challenge},{without_proof}", self.first);
        let signature = sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        Some(format!("{without_proof},p={}", BASE64.encode(proof)))
    }
}

/// Parses the fields of an ErrorResponse (PostgreSQL's manual, 54.8).
pub fn refusal(content: &[u8]) -> Refusal {
    let field = |kind: u8| {
        let field = content.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[kind]));
        String::from_utf8_lossy(field.unwrap_or_default()).into_owned()
    };
    Refusal { code: field(b'C'), message: field(b'M') }
}

/// Reads one message: its type and its content.
fn receive(connection: &mut (impl Read + ?Sized)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    connection.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=LONGEST).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = vec![0; length - 4];
    connection.read_exact(&mut content)?;
    Ok((kind, content))
}

/// Sends a message of the type `p`, as all password and SASL messages are.
fn send(connection: &mut (impl Write + ?Sized), content: &[u8]) -> io::Result<()> {
    let mut message = vec![b'p'];
    message.extend(length(content.len() + 4));
    message.extend(content);
    connection.write_all(&message)
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_is_that_of_the_rfc() {
        let exchange = Exchange::with_nonce("pencil", "user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(exchange.first, "n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.answer(challenge).as_deref(), Some(expected));
        for nonsense in [&b""[..], b"r=other,s=AAAA,i=1", b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=0", b"\xff"] {
            assert_eq!(exchange.answer(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(exchange.answer(b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4000000000"), None);
    }
}
