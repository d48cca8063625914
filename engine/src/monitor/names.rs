//! The server of names of one container, in its monitor's loop: it answers from the [`Directory`], and passes every
//! other question on to the servers that this host asks, from this host's network.
//!
//! Who asks is the container, so everything is bounded: how many questions are on their way, how many connections, how
//! long each lasts. Nothing here waits.

mod ask;
mod call;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use rustix::event::{PollFd, PollFlags};

use super::pump::push;
use crate::network::dns::{self, Code, Kind, UDP_MAX};
use crate::network::{Directory, Found, Realm, Sockets};
use ask::Ask;
use call::Call;

/// The most questions that are on their way to others; more are refused.
const ASKS_MAX: usize = 128;
/// The most connections of the container; more wait in the kernel.
const CALLS_MAX: usize = 16;
/// How long a server has to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what this host's `resolv.conf` says is believed without a look.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Datagrams that are read before others get their turn.
const AT_ONCE: usize = 32;
/// The largest question that is read.
const QUESTION_MAX: usize = 4096;

/// The server of a container.
#[derive(Debug)]
pub(crate) struct Names {
    /// The container's network, and whose root may enter it.
    namespace: (OwnedFd, Option<Arc<Realm>>),
    directory: Directory,
    /// `None` while the container is in no network with names.
    sockets: Option<Sockets>,
    servers: Servers,
    asks: Vec<Ask>,
    calls: Vec<Call>,
}

/// Whom to ask for what is not known here.
#[derive(Debug)]
struct Servers {
    /// By `--dns`; else the host's.
    given: Vec<SocketAddr>,
    of_host: Vec<SocketAddr>,
    looked: Option<(Instant, Option<SystemTime>)>,
}

/// What is said to a question.
enum Reply {
    Now(Vec<u8>),
    /// Others are to be asked.
    Elsewhere(dns::Question),
    Nothing,
}

impl Names {
    /// A server for the container that has this network namespace. It starts to listen where there are names.
    pub(crate) fn new(
        namespace: (OwnedFd, Option<Arc<Realm>>),
        directory: Directory,
        given: Vec<SocketAddr>,
    ) -> Self {
        let servers = Servers { given, of_host: Vec::new(), looked: None };
        Self { namespace, directory, sockets: None, servers, asks: Vec::new(), calls: Vec::new() }
    }

    /// Begins to serve, if it does not yet.
    pub(crate) fn serve(&mut self) -> std::io::Result<()> {
        if self.sockets.is_none() {
            let (namespace, realm) = &self.namespace;
            self.sockets = Some(Sockets::open(namespace.as_fd(), realm.as_deref())?);
        }
        Ok(())
    }

    /// The container's networks have changed.
    pub(super) fn look_again(&mut self) -> std::io::Result<()> {
        if self.directory.has_names() { self.serve() } else { Ok(()) }
    }

    /// The address that the container's published ports lead to now.
    pub(super) fn published(&self) -> Option<Ipv4Addr> {
        self.directory.published()
    }

    /// Adds what is waited for.
    pub(crate) fn wait_for<'fd>(&'fd self, fds: &mut Vec<PollFd<'fd>>) {
        let Some(sockets) = &self.sockets else { return };
        push(fds, sockets.udp.as_fd(), PollFlags::IN);
        let room = self.calls.len() < CALLS_MAX;
        push(fds, sockets.tcp.as_fd(), if room { PollFlags::IN } else { PollFlags::empty() });
        for ask in &self.asks {
            push(fds, ask.socket.as_fd(), PollFlags::IN);
        }
        for call in &self.calls {
            call.wait_for(fds);
        }
    }

    /// How long nothing has to be done if nothing happens.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let ends = self.asks.iter().map(|ask| ask.until).chain(self.calls.iter().map(Call::due));
        ends.min().map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Does everything that can be done without waiting. Failures are the container's own: who asks gets no answer.
    pub(crate) fn step(&mut self) {
        if self.sockets.is_none() {
            return;
        }
        self.finish_asks();
        self.hear();
        self.welcome();
        for index in (0..self.calls.len()).rev() {
            let mut call = self.calls.swap_remove(index);
            let keeps = call.step(|message| {
                let reply = self.reply(message, usize::from(u16::MAX));
                match reply {
                    Reply::Now(answer) => call::Next::Answer(answer),
                    Reply::Elsewhere(_) => call::Next::Ask(self.servers.all().to_vec()),
                    Reply::Nothing => call::Next::End,
                }
            });
            if keeps && Instant::now() < call.until {
                self.calls.push(call);
            }
        }
    }

    /// Answers that have come, and servers that do not answer.
    fn finish_asks(&mut self) {
        let Some(sockets) = &self.sockets else { return };
        let now = Instant::now();
        self.asks.retain_mut(|ask| {
            let answer = match ask.answer() {
                Some(answer) => answer,
                None if now < ask.until => return true,
                None if ask.ask_next() => return true,
                None => ask.question.refusal(&ask.message, Code::Failed),
            };
            sockets.udp.send_to(&answer, ask.client).ok();
            false
        });
    }

    /// Questions that have come.
    fn hear(&mut self) {
        let mut message = [0; QUESTION_MAX];
        for _ in 0..AT_ONCE {
            let Some(sockets) = &self.sockets else { return };
            let Ok((length, client)) = sockets.udp.recv_from(&mut message) else { return };
            let message = &message[..length];
            let answer = match self.reply(message, UDP_MAX) {
                Reply::Nothing => continue,
                Reply::Now(answer) => answer,
                Reply::Elsewhere(question) => {
                    let refusal = question.refusal(message, Code::Failed);
                    let servers = self.servers.all();
                    match Ask::new(question, message, client, servers) {
                        Some(ask) if self.asks.len() < ASKS_MAX => {
                            self.asks.push(ask);
                            continue;
                        }
                        _ => refusal,
                    }
                }
            };
            if let Some(sockets) = &self.sockets {
                // A container that does not read its answers has none.
                sockets.udp.send_to(&answer, client).ok();
            }
        }
    }

    fn welcome(&mut self) {
        while self.calls.len() < CALLS_MAX
            && let Some(sockets) = &self.sockets
            && let Ok((stream, _)) = sockets.tcp.accept()
        {
            self.calls.extend(Call::new(stream));
        }
    }

    fn reply(&mut self, message: &[u8], most: usize) -> Reply {
        let question = match dns::read(message) {
            Ok(question) => question,
            Err(Some(code)) => return Reply::Now(dns::refusal(message, code)),
            Err(None) => return Reply::Nothing,
        };
        let found = match question.kind {
            Kind::Pointer => match question.address().and_then(|address| self.directory.name_of(address)) {
                Some(name) => return Reply::Now(question.pointer(message, &name, most)),
                None => self.directory.find(""),
            },
            _ => self.directory.find(&question.name),
        };
        match found {
            // No addresses of that family, or other records: the name exists.
            Found::Addresses(mut addresses) => {
                let turn = usize::from(question.id) % addresses.len().max(1);
                addresses.rotate_left(turn);
                Reply::Now(question.addresses(message, &addresses, most))
            }
            Found::Nothing => Reply::Elsewhere(question),
            Found::Alone => Reply::Now(question.refusal(message, Code::Failed)),
        }
    }
}

impl Servers {
    /// As this host's `resolv.conf` says now.
    fn all(&mut self) -> &[SocketAddr] {
        if !self.given.is_empty() {
            return &self.given;
        }
        if self.looked.is_none_or(|(when, _)| when.elapsed() > LOOK_AGAIN) {
            let changed = fs::metadata("/etc/resolv.conf").and_then(|found| found.modified()).ok();
            if self.looked.is_none_or(|(_, before)| before != changed || changed.is_none()) {
                let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
                self.of_host = servers(&text);
            }
            self.looked = Some((Instant::now(), changed));
        }
        &self.of_host
    }
}

/// The servers of a `resolv.conf`, as many as others take.
fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|line| line.trim().parse::<IpAddr>().ok());
    let mut servers: Vec<_> = addresses.map(|ip| SocketAddr::new(ip, 53)).take(3).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}
