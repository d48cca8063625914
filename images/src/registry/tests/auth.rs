//! Who asks: credentials, tokens, and where they must not go.

use super::*;

#[test]
fn tokens_are_fetched_and_loops_end() {
    let content = content();
    let port = Arc::new(Mutex::new(0));
    let handler = {
        let port = port.clone();
        move |r: &Request| {
            if r.path.starts_with("/token") {
                assert!(r.path.starts_with("/token?service=srv&scope=repository%3Aapp%3Apull"), "{}", r.path);
                let basic = r.headers.get("authorization").map(String::as_str);
                return match basic {
                    Some("Basic dTpw") => Reply::new(200).body(r#"{"token":"good"}"#),
                    Some(_) => Reply::new(401),
                    None => Reply::new(200).body(r#"{"token":"anonymous"}"#),
                };
            }
            if r.headers.get("authorization").is_some_and(|a| a == "Bearer good") {
                return content.get(r);
            }
            let port = *port.lock().unwrap();
            Reply::new(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"srv\""),
            )
        }
    };
    let server = Server::start(handler);
    *port.lock().unwrap() = server.port;
    let (_dir, store) = store();
    let with = |password: &str| {
        let credentials = Some(Credentials::Basic { user: "u".into(), password: password.into() });
        PullOptions { access: Access { credentials, ..options().access }, ..options() }
    };
    for refused in [options(), with("wrong")] {
        let before = server.requests().len();
        let error = pull(&store, &server.name(), &refused, &NoProgress).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(server.requests().len() - before < 6, "a loop");
        assert_clean(&store);
    }
    pull(&store, &server.name(), &with("p"), &NoProgress).unwrap();
}

#[test]
fn basic_credentials_are_sent_only_when_asked_for() {
    let content = content();
    let server = Server::start(move |r| match r.headers.get("authorization").map(String::as_str) {
        Some("Basic dTpw") => content.get(r),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let (_dir, store) = store();
    let error = pull(&store, &server.name(), &options(), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("authentication required"), "{error}");
    let credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    pull(
        &store,
        &server.name(),
        &PullOptions { access: Access { credentials, ..options().access }, ..options() },
        &NoProgress,
    )
    .unwrap();
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let content = content();
    let path = content.layer_path();
    let elsewhere = Server::start({
        let content = content.clone();
        move |r| content.get(r)
    });
    let port = elsewhere.port;
    let server = Server::start({
        let path = path.clone();
        move |r| match r.headers.get("authorization").map(String::as_str) {
            Some("Basic dTpw") if r.path == path => {
                Reply::new(307).header("Location", format!("http://127.0.0.1:{port}{path}"))
            }
            Some("Basic dTpw") => content.get(r),
            _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        }
    });
    let (_dir, store) = store();
    let credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    let options = PullOptions {
        access: Access { credentials, ..options().access },
        platforms: Platforms::All,
        ..options()
    };
    pull(&store, &server.name(), &options, &NoProgress).unwrap();
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].headers.contains_key("authorization"));
}

/// A registry that wants a token for everything, and its token service; `give` answers requests for tokens.
fn token_registry(give: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Server, Content) {
    let content = content();
    let port = Arc::new(Mutex::new(0));
    let server = Server::start({
        let (content, port) = (content.clone(), port.clone());
        move |r| {
            if r.path.starts_with("/token") {
                return give(r);
            }
            if r.headers.get("authorization").is_some_and(|a| a.starts_with("Bearer good")) {
                return content.get(r);
            }
            let port = *port.lock().unwrap();
            let challenge =
                format!("Basic realm=\"x\", Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"srv\"");
            Reply::new(401).header("WWW-Authenticate", challenge)
        }
    });
    *port.lock().unwrap() = server.port;
    (server, content)
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let (server, _) = token_registry(|r| {
        let right = r.method == "POST"
            && r.body.contains("grant_type=refresh_token")
            && r.body.contains("refresh_token=my%2Ftoken")
            && r.body.contains("service=srv")
            && r.body.contains("scope=repository%3Aapp%3Apull")
            && !r.headers.contains_key("authorization");
        if right { Reply::new(200).body(r#"{"access_token":"good"}"#) } else { Reply::new(401) }
    });
    let (_dir, store) = store();
    let options = as_user(Credentials::IdentityToken("my/token".into()));
    pull(&store, &server.name(), &options, &NoProgress).unwrap();
    let wrong = as_user(Credentials::IdentityToken("other".into()));
    let error = pull(&store, &server.name(), &wrong, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
}

#[test]
fn a_registry_token_is_used_as_it_is() {
    let (server, _) = token_registry(|_| Reply::new(500));
    let (_dir, store) = store();
    pull(&store, &server.name(), &as_user(Credentials::RegistryToken("good".into())), &NoProgress).unwrap();
}

#[test]
fn a_token_is_fetched_once_and_again_when_it_expires() {
    for (life, expected) in [(300, 1), (0, 2)] {
        let (server, _) = token_registry(move |_| {
            Reply::new(200).body(format!(r#"{{"token":"good","expires_in":{life}}}"#))
        });
        let (_dir, store) = store();
        pull(&store, &server.name(), &options(), &NoProgress).unwrap();
        let tokens = server.requests().iter().filter(|r| r.path.starts_with("/token")).count();
        assert!(if life == 0 { tokens >= expected } else { tokens == expected }, "{life}: {tokens}");
    }
}

#[test]
fn a_token_that_is_refused_early_is_renewed() {
    let content = content();
    let port = Arc::new(Mutex::new(0));
    let uses = Mutex::new(0);
    let server = Server::start({
        let port = port.clone();
        move |r| {
            if r.path.starts_with("/token") {
                *uses.lock().unwrap() = 0;
                return Reply::new(200).body(r#"{"token":"good","expires_in":3600}"#);
            }
            let mut uses = uses.lock().unwrap();
            *uses += 1;
            if r.headers.contains_key("authorization") && *uses < 3 {
                return content.get(r);
            }
            let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", port.lock().unwrap());
            Reply::new(401).header("WWW-Authenticate", realm)
        }
    });
    *port.lock().unwrap() = server.port;
    let (_dir, store) = store();
    pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert!(server.requests().iter().filter(|r| r.path.starts_with("/token")).count() > 1);
}

#[test]
fn logging_in() {
    let (server, _) = token_registry(|r| {
        assert!(r.path.contains("account=u") && !r.path.contains("scope="), "{}", r.path);
        match r.headers.get("authorization").map(String::as_str) {
            Some("Basic dTpw") if r.path.contains("offline_token=true") => {
                Reply::new(200).body(r#"{"token":"good","refresh_token":"keep"}"#)
            }
            _ => Reply::new(401).body(r#"{"details":"incorrect username or password"}"#),
        }
    });
    let registry = format!("127.0.0.1:{}", server.port);
    let login = |credentials| {
        let access = as_user(credentials).access;
        Client::connect_registry(&registry, &access).unwrap().login()
    };
    assert_eq!(login(basic("u", "p")).unwrap().as_deref(), Some("keep"));
    let error = login(basic("u", "x")).unwrap_err().to_string();
    assert_eq!(error, format!("registry access denied for {registry}: incorrect username or password"));

    let plain = Server::start(|r| match r.headers.get("authorization").map(String::as_str) {
        Some("Basic dTpw") => Reply::new(200),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let registry = format!("127.0.0.1:{}", plain.port);
    let login = |credentials| {
        let access = as_user(credentials).access;
        Client::connect_registry(&registry, &access).unwrap().login()
    };
    assert_eq!(login(basic("u", "p")).unwrap(), None);
    assert!(matches!(login(basic("u", "x")), Err(Error::Denied { .. })));
}

#[test]
fn token_services_that_misbehave() {
    let cases: [(&str, Reply); 7] = [
        ("holds no token", Reply::new(200).body("{}")),
        ("holds no token", Reply::new(200).body("<html>")),
        ("holds no token", Reply::new(200).body(vec![b' '; 100_000])),
        ("token service answered 307", Reply::new(307).header("Location", "http://127.0.0.1/")),
        ("token service answered 500", Reply::new(500)),
        ("too many requests: slow down", Reply::new(429).body(r#"{"details":"slow down"}"#)),
        ("access denied", Reply::new(403)),
    ];
    for (expected, reply) in cases {
        let (server, _) = token_registry(move |_| reply.clone());
        let (_dir, store) = store();
        let error = pull(&store, &server.name(), &options(), &NoProgress).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_clean(&store);
    }
}

/// A registry on the network may not have credentials sent in clear, or to this machine.
#[test]
fn realms_that_are_refused() {
    for realm in ["ftp://a/token", "http://169.254.169.254/token", "file:///etc/passwd", "token", ""] {
        let error = fails_with(&as_user(basic("u", "p")), move |_| {
            Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        });
        assert!(matches!(error, Error::Registry { .. }), "{realm}: {error}");
    }
}
