//! `WWW-Authenticate`: what a registry asks for, RFC 9110 section 11.
//!
//! One header may hold several challenges, and the commas between them are those between parameters too. A header
//! that does not follow the grammar is not used at all: half a challenge would lead credentials astray.

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the service at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Chooses among the challenges of an answer. Tokens are preferred, as they say less.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, mut parameters) in headers.filter_map(parse).flatten() {
        let mut take = |name: &str| {
            let at = parameters.iter().position(|(n, _)| n == name)?;
            Some(parameters.swap_remove(at).1)
        };
        match scheme.as_str() {
            "bearer" => {
                if let Some(realm) = take("realm") {
                    return Some(Challenge::Bearer { realm, service: take("service"), scope: take("scope") });
                }
            }
            "basic" => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

/// A scheme in lower case and its parameters, names in lower case.
type Raw = (String, Vec<(String, String)>);

/// Every challenge of one header, or `None` if it does not follow the grammar.
fn parse(header: &str) -> Option<Vec<Raw>> {
    let mut text = Text { rest: header };
    let mut all: Vec<Raw> = Vec::new();
    text.skip(", \t");
    while !text.rest.is_empty() {
        let word = text.token()?;
        let spaces = text.skip(" \t");
        if let Some(value) = text.value_after_equals()? {
            // A parameter of the challenge before.
            let (_, parameters) = all.last_mut()?;
            let name = word.to_ascii_lowercase();
            if parameters.iter().any(|(known, _)| *known == name) {
                return None;
            }
            parameters.push((name, value));
        } else {
            all.push((word.to_ascii_lowercase(), Vec::new()));
            if spaces && !text.rest.is_empty() && !text.rest.starts_with(',') {
                if text.token68() {
                    // Its end is looked at below.
                } else {
                    // The first parameter follows without a comma.
                    continue;
                }
            }
        }
        text.skip(" \t");
        if !text.rest.is_empty() && !text.rest.starts_with(',') {
            return None;
        }
        text.skip(", \t");
    }
    Some(all)
}

struct Text<'a> {
    rest: &'a str,
}

impl<'a> Text<'a> {
    /// Whether anything was skipped.
    fn skip(&mut self, what: &str) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(|c| what.contains(c));
        self.rest.len() < before
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|b| !fits(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn token(&mut self) -> Option<&'a str> {
        let token = self.take_while(is_token);
        (!token.is_empty()).then_some(token)
    }

    /// `= value`, a token or a quoted string; inner `None` when there is no `=`, outer when it is malformed.
    #[expect(clippy::option_option, reason = "an absent value and a broken one are different")]
    fn value_after_equals(&mut self) -> Option<Option<String>> {
        let Some(rest) = self.rest.strip_prefix('=') else { return Some(None) };
        self.rest = rest;
        self.skip(" \t");
        let Some(rest) = self.rest.strip_prefix('"') else {
            return self.token().map(|token| Some(token.to_owned()));
        };
        let mut value = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(chars.next().filter(|c| !c.is_control())?),
                c if c.is_control() && c != '\t' => return None,
                c => value.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(Some(value))
    }

    /// Skips the other form of data after a scheme, if that is what follows: base64 to the next comma.
    fn token68(&mut self) -> bool {
        let start = self.rest;
        self.take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.take_while(|b| b == b'=');
        let after = self.rest.trim_start_matches([' ', '\t']);
        let is_it = self.rest.len() < start.len() && (after.is_empty() || after.starts_with(','));
        if !is_it {
            self.rest = start;
        }
        is_it
    }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let simple = bearer("https://a", None, None);
        let cases = [
            (
                vec![r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#],
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (vec![r#"bearer  realm = "https://a" , SCOPE="a\"b""#], bearer("https://a", None, Some("a\"b"))),
            (vec!["Basic realm=\"x\"", "Bearer realm=\"https://a\""], simple.clone()),
            (vec!["Basic realm=\"x\", Bearer realm=\"https://a\""], simple.clone()),
            (vec!["Bearer realm=\"https://a\", Basic realm=\"x\""], simple.clone()),
            (vec![r#"Negotiate, NTLM TlRMTVNTUAAB==, ,Bearer realm="https://a",x=y,Basic realm=x"#], simple),
            (vec!["Basic"], Some(Challenge::Basic)),
            (vec!["Basic,"], Some(Challenge::Basic)),
            (vec!["Basic dGVzdA=="], Some(Challenge::Basic)),
            (vec!["Bearer realm=token"], bearer("token", None, None)),
            (vec!["Bearer service=\"s\""], None),
            // No challenge at all, and what breaks the grammar.
            (vec!["Negotiate", ""], None),
            (vec!["Bearer realm=\"unterminated"], None),
            (vec!["Bearer realm=\"a\\"], None),
            (vec!["Bearer realm=\"a\" service=\"s\""], None),
            (vec!["Bearer realm=\"a\",realm=\"b\""], None),
            (vec!["Bearer realm=https://a"], None),
            (vec!["Bearer realm="], None),
            (vec!["realm=\"x\""], None),
            (vec!["\"Bearer\" realm=\"x\""], None),
            (vec!["Bearer realm=\"a\u{7}b\""], None),
            (vec!["Bearer realm=\"a\"\u{e9}"], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(choose(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    fn quoted(value: &str) -> String {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC*") {
            drop(choose(std::iter::once(text.as_str())));
        }

        #[test]
        fn pieces_of_the_grammar_do_not_either(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["Bearer", "Basic", " ", ",", "=", "\"", "\\", "realm", "x", "\t", "==", "é"]),
                0..12,
            )
        ) {
            drop(choose(std::iter::once(pieces.concat().as_str())));
        }

        #[test]
        fn what_is_written_is_read(
            all in prop::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,8}", prop::collection::btree_map("[a-z]{1,6}", "[ -~]{0,20}", 0..4)),
                1..4,
            ),
            space in "[ \t]{0,2}",
        ) {
            let written: Vec<String> = all.iter().map(|(scheme, parameters)| {
                let parameters: Vec<String> =
                    parameters.iter().map(|(n, v)| format!("{n}{space}={space}{}", quoted(v))).collect();
                format!("{scheme} {}", parameters.join(&format!("{space},{space}")))
            }).collect();
            let expected: Vec<Raw> = all.into_iter()
                .map(|(scheme, parameters)| (scheme.to_ascii_lowercase(), parameters.into_iter().collect()))
                .collect();
            prop_assert_eq!(parse(&written.join(&format!("{space},{space}"))), Some(expected));
        }
    }
}
