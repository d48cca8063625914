//! Requests that programs send, of `wasi:http` of both versions: names by our resolver, addresses by the container's
//! policy at the moment of connecting, TLS by rustls with this system's certificates.
//!
//! Redirects are the program's business, and connections are not kept: a program has its own instance for each request
//! it answers, and what it sends belongs to that.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, pki_types::ServerName};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::wasm::network::{Failure, NoAddress, Policy};

/// What a program waits at most when it does not say.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest that one of several addresses is tried.
const ONE_ADDRESS: Duration = Duration::from_secs(10);

/// Sends what one container's program asks for.
pub(in crate::wasm) struct Hooks(pub(in crate::wasm) Arc<Policy>);

type Ended = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Ended), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Ended,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let policy = Arc::clone(&self.0);
        Box::new(async move { send(&policy, request, options.unwrap_or_default()).await })
    }
}

async fn send(policy: &Policy, mut request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let tls = request.uri().scheme() == Some(&Scheme::HTTPS);
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?.clone();
    let host = authority.host().to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    // What goes over the connection is the path alone.
    *request.uri_mut() = Uri::from(path_of(request.uri())?);
    let connecting = async {
        let stream = connect(policy, &host, port).await?;
        if !tls {
            return Ok::<_, Error>(Box::new(stream) as Box<dyn Stream>);
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let stream = TlsConnector::from(tls_settings()?).connect(name, stream).await.map_err(tls_error)?;
        Ok(Box::new(stream) as Box<dyn Stream>)
    };
    let stream = timeout(options.connect_timeout.unwrap_or(PATIENCE), connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Whoever waits for the answer drives the connection until it comes.
    let mut connection = Some(Box::pin(connection));
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        if let Some(driven) = &mut connection
            && let Poll::Ready(ended) = driven.as_mut().poll(cx)
        {
            connection = None;
            return match ended {
                Ok(()) => answer.as_mut().poll(cx),
                Err(error) => Poll::Ready(Err(error)),
            };
        }
        Poll::Pending
    });
    let response = timeout(options.first_byte_timeout.unwrap_or(PATIENCE), answered)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let patience = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response = response.map(|body| Received { body, patience, alarm: None }.boxed_unsync());
    let ended = async move {
        match connection {
            Some(connection) => connection.await.map_err(Error::from),
            None => Ok(()),
        }
    };
    Ok((response, Box::new(ended)))
}

/// A path is never empty on the wire.
fn path_of(uri: &Uri) -> Result<PathAndQuery, Error> {
    let text = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let path = match text.bytes().next() {
        Some(b'/' | b'*') => PathAndQuery::try_from(text),
        _ => PathAndQuery::try_from(format!("/{text}")),
    };
    path.map_err(|_| Error::HttpRequestUriInvalid)
}

/// Connects to the first address of a host that is allowed and answers.
async fn connect(policy: &Policy, host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = policy.resolve(host).await.map_err(|reason| match reason {
        NoAddress::Denied => Error::HttpRequestDenied,
        NoAddress::Failed(Failure::NoAnswer) => Error::DnsTimeout,
        NoAddress::Failed(Failure::Invalid) => Error::HttpRequestUriInvalid,
        NoAddress::Failed(failure @ (Failure::NoName | Failure::Refused)) => {
            Error::DnsError { rcode: Some(failure.to_string()), info_code: None }
        }
    })?;
    let mut failure = Error::DestinationIpProhibited;
    for ip in addresses.iter().take(8) {
        let address = SocketAddr::new(*ip, port);
        if !policy.may_reach(address) {
            continue;
        }
        match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request goes out whole; fails for a connection that is gone already.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Ok(Err(error)) => failure = Error::Connect(error),
            Err(_) => failure = Error::ConnectionTimeout,
        }
    }
    Err(failure)
}

/// What a program is told about a handshake that failed.
fn tls_error(error: std::io::Error) -> Error {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match reason {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            let id = Some(u8::from(*alert));
            Error::TlsAlertReceived { alert_id: id, alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::Tls(error),
    }
}

/// Read once, when somebody needs it: this system's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn tls_settings() -> Result<Arc<ClientConfig>, Error> {
    static SETTINGS: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let make = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    };
    SETTINGS.get_or_init(make).clone().ok_or(Error::ConfigurationError)
}

/// A connection, encrypted or not.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// An answer's body that does not wait for ever for its next part.
struct Received {
    body: Incoming,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let part = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(part) = part {
            self.alarm = None;
            return Poll::Ready(part.map(|part| part.map_err(Error::from)));
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
