//! Mirrors, in order, and the registry itself; and proxies on the way there.

use super::*;

fn with_mirrors(mirrors: &[String]) -> PullOptions {
    let mirrors = mirrors.iter().map(|url| Mirror { url: url.clone(), ..Mirror::default() }).collect();
    let options = as_user(basic("u", "origin-secret"));
    PullOptions { access: Access { mirrors, ..options.access }, ..options }
}

fn honest(content: &Content) -> Server {
    let content = content.clone();
    Server::start(move |r| content.get(r))
}

#[test]
fn a_mirror_is_enough() {
    let content = content();
    let mirror = Server::start({
        let content = content.clone();
        move |r| {
            let inner = r.path.replacen("/v2/hub/", "/v2/", 1);
            content.get(&Request { path: inner, ..r.clone() })
        }
    });
    let (_dir, store) = store();
    let name: Reference = "registry.invalid/app:1".parse().unwrap();
    pull(&store, &name, &with_mirrors(&[format!("{}/hub/", mirror.url())]), &NoProgress).unwrap();
    let asked = mirror.requests();
    assert!(asked.iter().any(|r| r.path == "/v2/hub/app/manifests/1?ns=registry.invalid"));
    assert!(asked.iter().all(|r| !r.headers.contains_key("authorization")), "the origin's secret");
}

#[test]
fn what_a_mirror_cannot_give_comes_from_the_next() {
    type Break = fn(&Content, &Request) -> Reply;
    let closed = format!(
        "http://127.0.0.1:{}",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    let cases: Vec<(&str, Break)> = vec![
        ("all of it is missing", |_, r| Reply::new(if r.path == "/v2/" { 200 } else { 404 })),
        ("it is ill", |_, _| Reply::new(503)),
        ("it wants a login", |_, _| Reply::new(401).header("WWW-Authenticate", "Basic realm=\"m\"")),
        ("it forbids", |_, r| Reply::new(if r.path == "/v2/" { 200 } else { 403 })),
        ("wrong bytes of the same length", |c, r| {
            let mut reply = c.get(r);
            if r.path.contains("/blobs/") {
                reply.body[0] ^= 1;
            }
            reply
        }),
        ("a longer layer, in chunks", |c, r| {
            let mut reply = c.get(r);
            if r.path.starts_with(&c.layer_path()) {
                reply.body.push(1);
                reply.chunked = true;
            }
            reply
        }),
        ("cut off in the middle", |c, r| {
            let reply = c.get(r);
            let cut = r.path.starts_with(&c.layer_path()).then_some(70_000);
            Reply { cut, ..reply }
        }),
        ("other manifests than were asked for", |c, r| {
            let digest = r.path.contains("/manifests/sha256");
            let mut reply = c.get(r);
            if digest {
                reply.body.push(b' ');
            }
            reply
        }),
        ("no manifests at all", |_, r| {
            Reply::new(200).header("Content-Type", "text/html").body(r.path.clone())
        }),
        ("redirects without end", |_, r| Reply::new(307).header("Location", r.path.clone())),
        ("redirects to the metadata service", |_, r| {
            if r.path == "/v2/" {
                Reply::new(200)
            } else {
                Reply::new(307).header("Location", "http://169.254.169.254/")
            }
        }),
    ];
    let content = content();
    for (what, damage) in cases {
        let mirror = Server::start({
            let content = content.clone();
            move |r| damage(&content, r)
        });
        let origin = honest(&content);
        let (_dir, store) = store();
        let options = PullOptions {
            platforms: Platforms::All,
            ..with_mirrors(&[closed.clone(), "nonsense".into(), mirror.url()])
        };
        pull(&store, &origin.name(), &options, &NoProgress).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(store.check(false).unwrap(), [], "{what}");
        assert!(store.variants(&content.top).unwrap().iter().all(|v| v.present), "{what}");
        let secret = |r: &Request| r.headers.get("authorization").is_some_and(|a| a.contains("origin"));
        assert!(!mirror.requests().iter().any(secret));
    }
}

#[test]
fn a_mirror_that_is_cut_off_is_continued_elsewhere() {
    let content = content();
    let path = content.layer_path();
    let mirror = Server::start({
        let content = content.clone();
        let path = path.clone();
        move |r| {
            let reply = content.get(r);
            if r.path.starts_with(&path) {
                Reply { cut: Some(r.from().map_or(70_000, |_| 0)), ..reply.ranged(r) }
            } else {
                reply
            }
        }
    });
    let origin = Server::start({
        let content = content.clone();
        move |r| content.get(r).ranged(r)
    });
    let (_dir, store) = store();
    let options = PullOptions { platforms: Platforms::All, ..with_mirrors(&[mirror.url()]) };
    pull(&store, &origin.name(), &options, &NoProgress).unwrap();
    let rest: Vec<_> = origin.requests().iter().filter(|r| r.path == path).map(Request::from).collect();
    assert_eq!(rest, [Some(70_000)], "only what is missing");
}

#[test]
fn the_origins_word_is_the_last() {
    let content = content();
    let mirror = Server::start(|_| Reply::new(404));
    let origin =
        Server::start(move |r| if r.path.contains("manifests") { Reply::new(404) } else { content.get(r) });
    let (_dir, store) = store();
    let error = pull(&store, &origin.name(), &with_mirrors(&[mirror.url()]), &NoProgress).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: manifest unknown", origin.name()));
}

#[test]
fn mirrors_have_credentials_of_their_own() {
    let content = content();
    let mirror = Server::start(move |r| match r.headers.get("authorization").map(String::as_str) {
        Some("Basic bTpt") => content.get(r),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"m\""),
    });
    let mut options = with_mirrors(&[mirror.url()]);
    options.access.mirrors[0].credentials = Some(basic("m", "m"));
    let (_dir, store) = store();
    pull(&store, &"registry.invalid/app:1".parse().unwrap(), &options, &NoProgress).unwrap();
}

/// The proxy looks the registry's name up, and lies on this machine, which is fine for a proxy.
#[test]
fn through_a_proxy() {
    let content = content();
    let proxy = honest(&content);
    let mut options = options();
    options.access.insecure = true;
    options.access.proxies = Proxies { http: Some(proxy.url()), ..Proxies::default() };
    let (_dir, store) = store();
    // TLS to a server that speaks plain HTTP fails at once, then plain HTTP is tried.
    let name: Reference = "registry.invalid/app:1".parse().unwrap();
    pull(&store, &name, &options, &NoProgress).unwrap();
    assert!(proxy.requests().iter().any(|r| r.method == "CONNECT" && r.path == "registry.invalid:80"));
    options.access.proxies.none_for = "invalid".into();
    let error = pull(&store, &name, &options, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    options.access.proxies = Proxies::only("gopher://x");
    let error = pull(&store, &name, &options, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("proxy's address is not valid"), "{error}");
}
