//! The Docker engine's own interface, for what tests ask again and again. To start `docker` takes many times as long as
//! the answer.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::docker::Answer;

/// A request to the engine with what it answers: the status of HTTP, and the content.
///
/// HTTP/1.0 has the engine end the connection after its answer, which then comes in one piece.
fn request(method: &str, path: &str, kind: &str, content: &[u8]) -> (u16, Vec<u8>) {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
    let head = format!(
        "{method} /v1.40{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    let mut answer = Vec::new();
    UnixStream::connect(socket)
        .and_then(|mut stream| {
            stream.write_all(&[head.as_bytes(), content].concat())?;
            stream.read_to_end(&mut answer)
        })
        .unwrap_or_else(|error| panic!("{socket}: {error}: these tests need the Docker engine"));
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer of HTTP") + 4;
    let status =
        String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status of HTTP"), answer.split_off(end))
}

/// Sends a request that has an empty answer, or an error.
fn command(method: &str, path: &str, kind: &str, content: &[u8]) -> Answer {
    let (status, said) = request(method, path, kind, content);
    let is_good = (200..400).contains(&status);
    let stderr = if is_good { String::new() } else { String::from_utf8_lossy(&said).into_owned() };
    Answer { status: i32::from(!is_good), stdout: String::new(), stderr }
}

/// Splits what a process wrote: each piece has a header with the stream, 1 or 2, and its length. A process on a terminal
/// has one stream, without headers.
fn streams(mut said: &[u8]) -> [String; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    while let [stream @ 0..=2, 0, 0, 0, a, b, c, d, rest @ ..] = said {
        let (piece, after) = rest.split_at(rest.len().min(u32::from_be_bytes([*a, *b, *c, *d]) as usize));
        streams[usize::from(*stream == 2)].extend_from_slice(piece);
        said = after;
    }
    streams[0].extend_from_slice(said);
    streams.map(|stream| String::from_utf8_lossy(&stream).into_owned())
}

/// What a container wrote.
pub fn logs(container: &str) -> Answer {
    read_logs(container, "")
}

/// What a container wrote, from a time in seconds on, and at most the last lines: the engine would read all from the
/// beginning, each time.
pub fn logs_since(container: &str, time: &str) -> Answer {
    read_logs(container, &format!("&tail=10000&since={time}"))
}

fn read_logs(container: &str, options: &str) -> Answer {
    let path = format!("/containers/{container}/logs?stdout=1&stderr=1{options}");
    let (status, said) = request("GET", &path, "", b"");
    if status != 200 {
        return Answer {
            status: 1,
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&said).into_owned(),
        };
    }
    let [stdout, stderr] = streams(&said);
    Answer { status: 0, stdout, stderr }
}

/// What the engine knows of a container; `null` if there is none.
pub fn inspect(container: &str) -> Value {
    let (status, said) = request("GET", &format!("/containers/{container}/json"), "", b"");
    if status == 200 { serde_json::from_slice(&said).expect("JSON") } else { Value::Null }
}

/// Whether a container runs, and its addresses.
pub fn state(container: &str) -> (bool, Vec<String>) {
    let known = inspect(container);
    let networks = known["NetworkSettings"]["Networks"].as_object();
    let addresses = networks.into_iter().flatten().filter_map(|(_, network)| network["IPAddress"].as_str());
    let addresses = addresses.filter(|address| !address.is_empty()).map(str::to_owned).collect();
    (known["State"]["Running"] == true, addresses)
}

pub fn start(container: &str) -> Answer {
    command("POST", &format!("/containers/{container}/start"), "", b"")
}

pub fn kill(container: &str, signal: &str) -> Answer {
    command("POST", &format!("/containers/{container}/kill?signal={signal}"), "", b"")
}

/// Unpacks a tar archive at the root of a container.
pub fn put(container: &str, archive: &[u8]) -> Answer {
    command("PUT", &format!("/containers/{container}/archive?path=/"), "application/x-tar", archive)
}

/// Runs a command in a container, as this user or as the container's.
pub fn exec(container: &str, user: &str, arguments: &[&str]) -> Answer {
    let process = json!({ "AttachStdout": true, "AttachStderr": true, "User": user, "Cmd": arguments });
    let path = format!("/containers/{container}/exec");
    let (_, said) = request("POST", &path, "application/json", process.to_string().as_bytes());
    let made: Value = serde_json::from_slice(&said).unwrap_or_default();
    let Some(id) = made["Id"].as_str() else {
        return Answer {
            status: 1,
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&said).into_owned(),
        };
    };
    let (begun, said) = request("POST", &format!("/exec/{id}/start"), "application/json", b"{}");
    let (_, known) = request("GET", &format!("/exec/{id}/json"), "", b"");
    let known: Value = serde_json::from_slice(&known).expect("JSON");
    let [stdout, stderr] = streams(&said);
    // A program that cannot be run is the engine's error.
    let (stdout, stderr) = if begun == 200 { (stdout, stderr) } else { (stderr, stdout) };
    Answer { status: known["ExitCode"].as_i64().unwrap_or(-1) as i32, stdout, stderr }
}
