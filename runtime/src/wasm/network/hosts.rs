//! `wasi:sockets` of both component versions: wasmtime's own host, with the policy asked for every address, published
//! ports in the place of those that a program binds, and names resolved by our resolver.
//!
//! Functions are put over wasmtime's one by one, under the version that its bindings have; a program may import any.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::JoinHandle;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets as v2;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpSocketAddress};
use wasmtime_wasi::p2::{
    DynPollable, Network as Handle, Pollable, SocketError, TcpSocket, UdpSocket, subscribe,
};
use wasmtime_wasi::p3::bindings::sockets as v3;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsCtxView, WasiSocketsView as _};

use super::{Failure, NoAddress, Policy, Protocol};
use crate::wasm::p2::State;

/// The versions of wasmtime's bindings.
const V2: &str = "0.2.12";
const V3: &str = "0.3.0";

/// Lets a program create sockets, and asks `policy` for every address they are used with.
pub(in crate::wasm) fn govern(builder: &mut WasiCtxBuilder, policy: &Arc<Policy>) {
    builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
    if policy.is_open() {
        builder.inherit_network();
        return;
    }
    let policy = Arc::clone(policy);
    builder.socket_addr_check(move |address, purpose| {
        let allowed = match purpose {
            SocketAddrUse::TcpBind => policy.may_bind(Protocol::Tcp, address),
            SocketAddrUse::UdpBind => policy.may_bind(Protocol::Udp, address),
            SocketAddrUse::TcpListen => policy.may_listen(address),
            // Whoever reaches a published port may.
            SocketAddrUse::TcpAccept => true,
            SocketAddrUse::TcpConnect => policy.may_reach(address),
            SocketAddrUse::UdpSend => policy.may_send(address),
            SocketAddrUse::UdpReceive => policy.may_hear(address),
        };
        Box::pin(std::future::ready(allowed))
    });
}

type Outcome<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;
type OutcomeV3<T> = wasmtime::Result<(Result<T, v3::types::ErrorCode>,)>;

/// An error as a program gets it, or the trap that it is.
fn coded<T>(state: &mut State, result: Result<T, SocketError>) -> Outcome<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(network::Host::convert_error_code(&mut state.sockets(), error)?),
    },))
}

fn coded_v3<T>(state: &mut State, result: wasmtime_wasi::p3::sockets::SocketResult<T>) -> OutcomeV3<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(v3::types::Host::convert_error_code(&mut state.sockets(), error)?),
    },))
}

/// `wasi:sockets/tcp@0.2`.
pub(in crate::wasm) fn tcp(l: &mut Linker<State>) -> wasmtime::Result<()> {
    use v2::tcp::HostTcpSocket;
    v2::tcp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    let mut l = shadowing(l, &format!("wasi:sockets/tcp@{V2}"))?;
    type Bind = (Resource<TcpSocket>, Resource<Handle>, IpSocketAddress);
    l.func_wrap_async("[method]tcp-socket.start-bind", |mut store, (this, network, address): Bind| {
        Box::new(async move {
            let state = store.data_mut();
            let address = state.policy().bound_to(Protocol::Tcp, address.into());
            let result = HostTcpSocket::start_bind(&mut state.sockets(), this, network, address.into()).await;
            coded(state, result)
        })
    })?;
    l.func_wrap("[method]tcp-socket.local-address", |mut store, (this,): (Resource<TcpSocket>,)| {
        let state = store.data_mut();
        let result = HostTcpSocket::local_address(&mut state.sockets(), this);
        let seen = result.map(|address| state.policy().seen_as(Protocol::Tcp, address.into()).into());
        coded::<IpSocketAddress>(state, seen)
    })
}

/// `wasi:sockets/udp@0.2`.
pub(in crate::wasm) fn udp(l: &mut Linker<State>) -> wasmtime::Result<()> {
    use v2::udp::HostUdpSocket;
    v2::udp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    let mut l = shadowing(l, &format!("wasi:sockets/udp@{V2}"))?;
    type Bind = (Resource<UdpSocket>, Resource<Handle>, IpSocketAddress);
    l.func_wrap_async("[method]udp-socket.start-bind", |mut store, (this, network, address): Bind| {
        Box::new(async move {
            let state = store.data_mut();
            let address = state.policy().bound_to(Protocol::Udp, address.into());
            let result = HostUdpSocket::start_bind(&mut state.sockets(), this, network, address.into()).await;
            coded(state, result)
        })
    })?;
    l.func_wrap("[method]udp-socket.local-address", |mut store, (this,): (Resource<UdpSocket>,)| {
        let state = store.data_mut();
        let result = HostUdpSocket::local_address(&mut state.sockets(), this);
        let seen = result.map(|address| state.policy().seen_as(Protocol::Udp, address.into()).into());
        coded::<IpSocketAddress>(state, seen)
    })
}

/// `wasi:sockets/types@0.3`.
pub(in crate::wasm) fn types(l: &mut Linker<State>) -> wasmtime::Result<()> {
    use v3::types::{HostTcpSocket, HostUdpSocket, IpSocketAddress};
    v3::types::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    type Tcp = Resource<v3::types::TcpSocket>;
    type Udp = Resource<v3::types::UdpSocket>;
    let mut l = shadowing(l, &format!("wasi:sockets/types@{V3}"))?;
    l.func_wrap_async("[method]tcp-socket.bind", |mut store, (this, address): (Tcp, IpSocketAddress)| {
        Box::new(async move {
            let state = store.data_mut();
            let address = state.policy().bound_to(Protocol::Tcp, address.into());
            let result = HostTcpSocket::bind(&mut state.sockets(), this, address.into()).await;
            coded_v3(state, result)
        })
    })?;
    l.func_wrap("[method]tcp-socket.get-local-address", |mut store, (this,): (Tcp,)| {
        let state = store.data_mut();
        let result = HostTcpSocket::get_local_address(&mut state.sockets(), this);
        let seen = result.map(|address| state.policy().seen_as(Protocol::Tcp, address.into()).into());
        coded_v3::<IpSocketAddress>(state, seen)
    })?;
    l.func_wrap_async("[method]udp-socket.bind", |mut store, (this, address): (Udp, IpSocketAddress)| {
        Box::new(async move {
            let state = store.data_mut();
            let address = state.policy().bound_to(Protocol::Udp, address.into());
            let result = HostUdpSocket::bind(&mut state.sockets(), this, address.into()).await;
            coded_v3(state, result)
        })
    })?;
    l.func_wrap("[method]udp-socket.get-local-address", |mut store, (this,): (Udp,)| {
        let state = store.data_mut();
        let result = HostUdpSocket::get_local_address(&mut state.sockets(), this);
        let seen = result.map(|address| state.policy().seen_as(Protocol::Udp, address.into()).into());
        coded_v3::<IpSocketAddress>(state, seen)
    })
}

/// `wasi:sockets/ip-name-lookup@0.3`.
pub(in crate::wasm) fn lookup_v3(l: &mut Linker<State>) -> wasmtime::Result<()> {
    use v3::ip_name_lookup::ErrorCode;
    v3::ip_name_lookup::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    let mut l = shadowing(l, &format!("wasi:sockets/ip-name-lookup@{V3}"))?;
    l.func_wrap_concurrent("resolve-addresses", |store, (name,): (String,)| {
        let policy = store.with(|mut access| Arc::clone(access.data_mut().policy()));
        Box::pin(async move {
            let found: Result<Vec<v3::types::IpAddress>, _> = match policy.resolve(&name).await {
                Ok(addresses) => Ok(addresses.iter().map(|ip| (*ip).into()).collect()),
                Err(NoAddress::Denied) => Err(ErrorCode::AccessDenied),
                Err(NoAddress::Failed(Failure::Invalid)) => Err(ErrorCode::InvalidArgument),
                Err(NoAddress::Failed(Failure::NoName)) => Err(ErrorCode::NameUnresolvable),
                Err(NoAddress::Failed(Failure::NoAnswer)) => Err(ErrorCode::TemporaryResolverFailure),
                Err(NoAddress::Failed(Failure::Refused)) => Err(ErrorCode::PermanentResolverFailure),
            };
            Ok((found,))
        })
    })
}

fn shadowing<'a>(
    l: &'a mut Linker<State>,
    interface: &str,
) -> wasmtime::Result<wasmtime::component::LinkerInstance<'a, State>> {
    l.allow_shadowing(true);
    l.instance(interface)
}

/// `wasi:sockets/ip-name-lookup@0.2`.
pub(in crate::wasm) fn lookup(l: &mut Linker<State>) -> wasmtime::Result<()> {
    v2::ip_name_lookup::add_to_linker::<State, Names>(l, |state| {
        let policy = Arc::clone(state.policy());
        View { policy, stock: state.sockets() }
    })
}

/// Names this host to the linker.
struct Names;

impl HasData for Names {
    type Data<'a> = View<'a>;
}

struct View<'a> {
    policy: Arc<Policy>,
    stock: WasiSocketsCtxView<'a>,
}

type Stream = Resource<v2::ip_name_lookup::ResolveAddressStream>;

/// An entry of the table behind a [`Stream`], whatever the bindings call its type.
enum Lookup {
    Asking(JoinHandle<Result<Arc<[IpAddr]>, NoAddress>>),
    Known(Arc<[IpAddr]>, usize),
    Failed(ErrorCode),
}

impl Lookup {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let Self::Asking(task) = self else { return Poll::Ready(()) };
        let Poll::Ready(joined) = Pin::new(task).poll(cx) else { return Poll::Pending };
        *self = match joined {
            Ok(Ok(addresses)) => Self::Known(addresses, 0),
            Ok(Err(reason)) => Self::Failed(code_of(reason)),
            Err(_) => Self::Failed(ErrorCode::Unknown),
        };
        Poll::Ready(())
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Self::Asking(task) = self {
            task.abort();
        }
    }
}

fn code_of(reason: NoAddress) -> ErrorCode {
    match reason {
        NoAddress::Denied => ErrorCode::AccessDenied,
        NoAddress::Failed(Failure::Invalid) => ErrorCode::InvalidArgument,
        NoAddress::Failed(Failure::NoName) => ErrorCode::NameUnresolvable,
        NoAddress::Failed(Failure::NoAnswer) => ErrorCode::TemporaryResolverFailure,
        NoAddress::Failed(Failure::Refused) => ErrorCode::PermanentResolverFailure,
    }
}

impl Pollable for Lookup {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::poll_fn(|cx| self.poll(cx)))
    }
}

fn own(stream: &Stream) -> Resource<Lookup> {
    Resource::new_borrow(stream.rep())
}

impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.stock, error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.stock, error)
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.stock, this)
    }
}

impl v2::ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(&mut self, network: Resource<Handle>, name: String) -> Result<Stream, SocketError> {
        self.stock.table.get(&network)?;
        let policy = Arc::clone(&self.policy);
        // Whatever imports names runs inside of a runtime.
        let task = tokio::runtime::Handle::try_current()
            .map_err(|_| ErrorCode::TemporaryResolverFailure)?
            .spawn(async move { policy.resolve(&name).await });
        let lookup = self.stock.table.push(Lookup::Asking(task))?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl v2::ip_name_lookup::HostResolveAddressStream for View<'_> {
    fn resolve_next_address(&mut self, this: Stream) -> Result<Option<IpAddress>, SocketError> {
        let lookup = self.stock.table.get_mut(&own(&this))?;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match lookup.poll(&mut cx) {
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(()) => match lookup {
                Lookup::Known(addresses, next) => {
                    let ip = addresses.get(*next).copied();
                    *next += 1;
                    Ok(ip.map(Into::into))
                }
                Lookup::Failed(code) => Err((*code).into()),
                Lookup::Asking(_) => Err(ErrorCode::WouldBlock.into()),
            },
        }
    }

    fn subscribe(&mut self, this: Stream) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.stock.table, own(&this))
    }

    fn drop(&mut self, this: Stream) -> wasmtime::Result<()> {
        self.stock.table.delete(Resource::<Lookup>::new_own(this.rep()))?;
        Ok(())
    }
}
