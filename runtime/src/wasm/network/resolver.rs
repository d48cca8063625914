//! Names to addresses, without the system's library: `/etc/hosts` and `--add-host` of the container, then servers of
//! the domain name system.
//!
//! The command is a static executable: the C library's resolver would load parts of another one into it, reads the
//! files of this process and not of the container, and takes a thread for each question. The crates there are bring a
//! cache, a pool and a configuration of their own that every start would link and most never use; what is needed is two
//! datagrams.
//!
//! Everything is bounded: the size of what is read, the number of names kept, and the time for one name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{self, Answer, Kind};
use super::rule::normal;
use crate::wasm::random;

/// No name takes longer.
const LONGEST: Duration = Duration::from_secs(20);
/// The longest that an answer is kept, whatever its server says.
const KEPT_MAX: Duration = Duration::from_secs(300);
/// How long it is known that there is nothing.
const KEPT_NOTHING: Duration = Duration::from_secs(2);
/// The most names that are kept.
const NAMES_MAX: usize = 512;
/// The most of `/etc/hosts` that is read.
const HOSTS_MAX: usize = 1 << 20;
/// How often one alias may lead to another server's.
const ALIASES_MAX: usize = 8;

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::wasm) enum Failure {
    #[error("this is no name")]
    Invalid,
    #[error("no such name, or it has no address")]
    NoName,
    #[error("no server answered")]
    NoAnswer,
    #[error("the servers refuse to answer")]
    Refused,
}

/// Who said which addresses a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Who runs the container, or nobody needs to say it.
    User,
    /// The image or a server.
    Others,
}

/// Addresses and where they are from.
pub(super) type Found = (Arc<[IpAddr]>, Source);

/// Where questions go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Servers {
    addresses: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    wait: Duration,
    attempts: usize,
}

/// What is known of a name, and until when.
type Kept = (Instant, Result<Arc<[IpAddr]>, Failure>);

/// Reads the container's `/etc/hosts`, if it has one.
pub(in crate::wasm) type HostsFile = Box<dyn Fn() -> Option<Vec<u8>> + Send + Sync>;

/// A container's resolver.
pub(super) struct Resolver {
    given: Vec<(String, IpAddr)>,
    hosts_file: HostsFile,
    hosts: OnceLock<HashMap<String, Vec<IpAddr>>>,
    dns: Vec<SocketAddr>,
    search: Vec<String>,
    servers: OnceLock<Servers>,
    kept: Mutex<HashMap<String, Kept>>,
}

impl Resolver {
    /// What is not given here is the host's, which is read with the first name.
    pub(super) fn new(
        given: Vec<(String, IpAddr)>,
        dns: Vec<SocketAddr>,
        search: Vec<String>,
        hosts_file: HostsFile,
    ) -> Self {
        let given = given.into_iter().filter_map(|(name, ip)| Some((normal(&name)?, ip))).collect();
        let (hosts, servers) = (OnceLock::new(), OnceLock::new());
        Self { given, hosts_file, hosts, dns, search, servers, kept: Mutex::default() }
    }

    /// The names that `name` may stand for, in the order they are asked for; the first is the one as it is.
    pub(super) fn candidates(&self, name: &str) -> Option<Vec<String>> {
        let plain = normal(name)?;
        let servers = self.servers();
        if name.ends_with('.') {
            return Some(vec![plain]);
        }
        let longer = servers.search.iter().filter_map(|domain| normal(&format!("{plain}.{domain}")));
        let mut all: Vec<String> = longer.collect();
        let first = plain.bytes().filter(|byte| *byte == b'.').count() >= servers.dots;
        all.insert(if first { 0 } else { all.len() }, plain);
        Some(all)
    }

    /// Addresses of the first of these names that has any. IPv4 first: it works everywhere.
    pub(super) async fn lookup(&self, candidates: &[String]) -> Result<Found, Failure> {
        let mut failure = Failure::NoName;
        for name in candidates {
            if let Some(found) = self.known(name) {
                return Ok(found);
            }
            match self.kept(name) {
                Some(Ok(addresses)) => return Ok((addresses, Source::Others)),
                Some(Err(known)) => failure = known,
                None => match timeout(LONGEST, self.ask_all(name)).await.unwrap_or(Err(Failure::NoAnswer)) {
                    Ok(addresses) => return Ok((addresses, Source::Others)),
                    Err(Failure::NoName) => {}
                    // A server that does not answer one will not answer the next.
                    Err(failure) => return Err(failure),
                },
            }
        }
        Err(failure)
    }

    /// What needs no server.
    fn known(&self, name: &str) -> Option<Found> {
        let given: Vec<IpAddr> =
            self.given.iter().filter(|(known, _)| known == name).map(|(_, ip)| *ip).collect();
        if !given.is_empty() {
            return Some((given.into(), Source::User));
        }
        if name == "localhost" || name.ends_with(".localhost") {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Some((both.into(), Source::User));
        }
        let hosts = self.hosts.get_or_init(|| {
            let bytes = (self.hosts_file)().unwrap_or_default();
            parse_hosts(&String::from_utf8_lossy(&bytes[..bytes.len().min(HOSTS_MAX)]))
        });
        hosts.get(name).map(|found| (found.as_slice().into(), Source::Others))
    }

    fn kept(&self, name: &str) -> Option<Result<Arc<[IpAddr]>, Failure>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).filter(|(until, _)| *until > Instant::now()).map(|(_, found)| found.clone())
    }

    fn keep(&self, name: &str, found: Result<Arc<[IpAddr]>, Failure>, lasting: Duration) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= NAMES_MAX {
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() >= NAMES_MAX {
            kept.clear();
        }
        kept.insert(name.to_owned(), (now + lasting, found));
    }

    async fn ask_all(&self, name: &str) -> Result<Arc<[IpAddr]>, Failure> {
        let (v4, v6) = tokio::join!(self.ask(name, Kind::A), self.ask(name, Kind::Aaaa));
        let (mut all, mut lasting, mut failure) = (Vec::new(), KEPT_MAX, None);
        for answer in [v4, v6] {
            match answer {
                Ok((addresses, seconds)) => {
                    if !addresses.is_empty() {
                        lasting = lasting.min(seconds);
                    }
                    all.extend(addresses);
                }
                Err(found) => failure = failure.or(Some(found)),
            }
        }
        if all.is_empty() {
            let failure = failure.unwrap_or(Failure::NoName);
            if failure == Failure::NoName {
                self.keep(name, Err(failure), KEPT_NOTHING);
            }
            return Err(failure);
        }
        let all: Arc<[IpAddr]> = all.into();
        self.keep(name, Ok(Arc::clone(&all)), lasting);
        Ok(all)
    }

    /// One kind of addresses, wherever aliases lead.
    async fn ask(&self, name: &str, kind: Kind) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let mut name = name.to_owned();
        for _ in 0..ALIASES_MAX {
            match self.ask_servers(&name, kind).await? {
                Answer::Addresses(addresses, seconds) => {
                    return Ok((addresses, Duration::from_secs(seconds.into())));
                }
                Answer::Alias(next) => name = normal(&next).ok_or(Failure::Refused)?,
                Answer::NoName => return Err(Failure::NoName),
                Answer::Refused | Answer::Truncated => return Err(Failure::Refused),
            }
        }
        Err(Failure::Refused)
    }

    async fn ask_servers(&self, name: &str, kind: Kind) -> Result<Answer, Failure> {
        let servers = self.servers();
        let mut failure = Failure::NoAnswer;
        for _ in 0..servers.attempts {
            for server in &servers.addresses {
                match timeout(servers.wait, ask_one(*server, name, kind)).await {
                    Ok(Ok(Answer::Refused)) => failure = Failure::Refused,
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    fn servers(&self) -> &Servers {
        self.servers.get_or_init(|| {
            let text = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let mut servers = parse_resolv_conf(&text);
            if !self.dns.is_empty() {
                servers.addresses.clone_from(&self.dns);
            }
            if !self.search.is_empty() {
                servers.search.clone_from(&self.search);
            }
            servers
        })
    }
}

/// One question to one server, by datagrams, and again by a connection if the answer is too long for them.
async fn ask_one(server: SocketAddr, name: &str, kind: Kind) -> std::io::Result<Answer> {
    let mut id = [0; 2];
    random::fill(&mut id)?;
    let id = u16::from_be_bytes(id);
    let question = dns::question(id, name, kind);
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Only this server's datagrams are let in.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = [0; UDP_BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match dns::answer(&buffer[..length], id, name, kind) {
            Some(Answer::Truncated) => break,
            Some(answer) => return Ok(answer),
            // Late, forged or torn: the right one may still come.
            None => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(dns::answer(&message, id, name, kind).unwrap_or(Answer::Refused))
}

/// Some servers send more than they should.
const UDP_BUFFER: usize = 8 * dns::UDP_MAX;

/// `address name name...`, as hosts(5).
fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words.filter_map(normal) {
            hosts.entry(name).or_default().push(ip);
        }
    }
    hosts
}

/// As resolv.conf(5), with its limits.
fn parse_resolv_conf(text: &str) -> Servers {
    let mut servers = Servers {
        addresses: Vec::new(),
        search: Vec::new(),
        dots: 1,
        wait: Duration::from_secs(5),
        attempts: 2,
    };
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_ascii_whitespace();
        match words.next() {
            Some("nameserver") if servers.addresses.len() < 3 => {
                // An address may name an interface, which is of no use here.
                let ip = words.next().and_then(|word| word.split('%').next()?.parse().ok());
                servers.addresses.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
            }
            Some("search" | "domain") => servers.search = words.take(6).map(str::to_owned).collect(),
            Some("options") => {
                for (name, value) in words.filter_map(|word| word.split_once(':')) {
                    let Ok(value) = value.parse::<u8>() else { continue };
                    match name {
                        "ndots" => servers.dots = usize::from(value.min(15)),
                        "timeout" => servers.wait = Duration::from_secs(value.clamp(1, 10).into()),
                        "attempts" => servers.attempts = usize::from(value.clamp(1, 5)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if servers.addresses.is_empty() {
        servers.addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}

#[cfg(test)]
mod tests;
