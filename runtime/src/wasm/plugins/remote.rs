//! A plugin in another process, called as one in this process is: by values that are checked against its types on their way
//! there and back, with the same errors. What it is, Wasm or a native program, its host does not see.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fmt, io};

use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Type, Val};

use super::call::Plugin;
use super::entry::{by_name, json_arguments, lines, may_fail, word_arguments};
use super::options::CallOptions;
use super::stats::Counters;
use super::wire::{Details, Failure, Remote};
use super::{Error, Function, Limits, Stats, json, signature, values};

/// Something whose functions are called by JSON: what [`super::wire::serve`] serves.
pub trait Callee: Sync {
    /// As [`Plugin::call_json`].
    ///
    /// # Errors
    /// As [`Plugin::call`].
    fn call_json(&self, options: &CallOptions, name: &str, args: &str) -> Result<String, Error>;
    /// Its functions with their types.
    fn functions(&self) -> Vec<Function>;
    /// What has happened to it.
    fn stats(&self) -> Stats;
}

impl Callee for Plugin {
    fn call_json(&self, options: &CallOptions, name: &str, args: &str) -> Result<String, Error> {
        Self::call_json(self, options, name, args)
    }

    fn functions(&self) -> Vec<Function> {
        Self::functions(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

impl Callee for RemotePlugin {
    fn call_json(&self, options: &CallOptions, name: &str, args: &str) -> Result<String, Error> {
        Self::call_json(self, options, name, args)
    }

    fn functions(&self) -> Vec<Function> {
        self.functions.clone()
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}

/// A new way to the other side.
type Again = Box<dyn Fn() -> io::Result<Remote> + Send + Sync>;

/// A plugin at the other end of a stream.
pub struct RemotePlugin {
    remote: RwLock<Arc<Remote>>,
    again: Option<Again>,
    deadline: Option<Duration>,
    functions: Vec<Function>,
    types: Vec<ComponentFunc>,
    by_name: HashMap<String, usize>,
    counters: Counters,
}

impl RemotePlugin {
    /// Asks the other side what it has. Of the limits the deadline holds; the others are for whoever runs it.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when it says something that is no type; what the stream fails with.
    pub fn new(remote: Remote, limits: &Limits) -> Result<Self, Error> {
        let told = remote.ask("functions").map_err(|failure| error(failure, None))?;
        Self::with(remote, functions(&told)?, limits)
    }

    /// One whose functions are known.
    ///
    /// # Errors
    /// As [`RemotePlugin::new`].
    pub fn with(remote: Remote, functions: Vec<Function>, limits: &Limits) -> Result<Self, Error> {
        let types = signature::types(&functions)?;
        let by_name = by_name(functions.iter().map(|function| function.name.as_str()));
        let counters = Counters::default();
        let remote = RwLock::new(Arc::new(remote));
        Ok(Self { remote, again: None, deadline: limits.deadline, functions, types, by_name, counters })
    }

    /// Connects anew before a call when the stream has ended.
    #[must_use]
    pub fn reconnecting(mut self, again: impl Fn() -> io::Result<Remote> + Send + Sync + 'static) -> Self {
        self.again = Some(Box::new(again));
        self
    }

    fn remote(&self) -> Arc<Remote> {
        let remote = Arc::clone(&self.remote.read().unwrap_or_else(PoisonError::into_inner));
        let Some(again) = self.again.as_ref().filter(|_| remote.is_over()) else { return remote };
        let mut place = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been here.
        if place.is_over()
            && let Ok(new) = again()
        {
            *place = Arc::new(new);
        }
        Arc::clone(&place)
    }

    /// The functions it says it has.
    pub fn functions(&self) -> Vec<Function> {
        self.functions.clone()
    }

    /// What has happened to it by calls of this one.
    pub fn stats(&self) -> Stats {
        self.counters.read(0)
    }

    /// Whether its process has ended, or has closed the stream: no call will be answered any more.
    pub fn is_over(&self) -> bool {
        self.remote.read().unwrap_or_else(PoisonError::into_inner).is_over()
    }

    /// As [`Plugin::call_with`].
    ///
    /// # Errors
    /// As [`Plugin::call`]; [`Error::Incompatible`] also for an answer that is not of the function's type, and
    /// [`Error::Trap`] when the process has ended.
    pub fn call(&self, options: &CallOptions, name: &str, args: &[Val]) -> Result<Vec<Val>, Error> {
        let (name, ty) = self.find(name)?;
        if args.len() != ty.params().len()
            || !args.iter().zip(ty.params()).all(|(value, (_, ty))| values::fits(value, &ty))
        {
            self.counters.refused();
            let found: Vec<_> = args.iter().map(values::kind).collect();
            return Err(Error::Incompatible {
                what: name.to_owned(),
                expected: values::function(ty),
                found: format!("({})", found.join(", ")),
            });
        }
        let started = Instant::now();
        let answered = self.exchange(options, name, ty, args);
        self.counters.ended(started.elapsed(), answered.as_ref().err());
        answered
    }

    /// As [`Plugin::call_json`].
    ///
    /// # Errors
    /// As [`RemotePlugin::call`].
    pub fn call_json(&self, options: &CallOptions, name: &str, args: &str) -> Result<String, Error> {
        let (full, ty) = self.find(name)?;
        let values = json_arguments(full, ty, args).inspect_err(|_| self.counters.refused())?;
        let answer = self.call(options, full, &values)?;
        Ok(answer.first().map_or("null".to_owned(), |value| json::write(value).to_string()))
    }

    /// As [`Plugin::call_text`].
    ///
    /// # Errors
    /// As [`RemotePlugin::call`].
    pub fn call_text(&self, options: &CallOptions, name: &str, words: &[String]) -> Result<String, Error> {
        let (full, ty) = self.find(name)?;
        let values = word_arguments(full, ty, words).inspect_err(|_| self.counters.refused())?;
        Ok(lines(&self.call(options, full, &values)?))
    }

    fn find(&self, name: &str) -> Result<(&str, &ComponentFunc), Error> {
        let found =
            self.by_name.get(name).and_then(|at| Some((self.functions.get(*at)?, self.types.get(*at)?)));
        let Some((function, ty)) = found else {
            self.counters.refused();
            let has = self.functions.iter().map(|function| function.name.clone()).collect();
            return Err(Error::NoFunction { name: name.to_owned(), has });
        };
        Ok((&function.name, ty))
    }

    fn exchange(
        &self,
        options: &CallOptions,
        name: &str,
        ty: &ComponentFunc,
        args: &[Val],
    ) -> Result<Vec<Val>, Error> {
        let limit = options.deadline.or(self.deadline);
        let options = CallOptions { deadline: limit, ..options.clone() };
        let args: Vec<_> = args.iter().map(json::write).collect();
        let mut answer = self.remote().call(&options, name, args.clone());
        // It has ended just now, and has heard nothing of the call.
        if self.again.is_some() && answer.as_ref().is_err_and(|failure| failure.kind == "unsent") {
            answer = self.remote().call(&options, name, args);
        }
        let (good, bad) = match ty.results().next() {
            Some(Type::Result(result)) if may_fail(ty) => (result.ok(), result.err()),
            other => (other, None),
        };
        let typed = |json: serde_json::Value, ty: Option<Type>, place: &str| {
            let Some(ty) = ty else { return Ok(None) };
            let read = json::read(json, &ty, place).map_err(|wrong| Error::Incompatible {
                what: format!("{name}, {}", wrong.place),
                expected: wrong.expected,
                found: wrong.found,
            });
            read.map(Some)
        };
        match answer {
            Ok(json) => Ok(typed(json, good, "its answer")?.into_iter().collect()),
            Err(failure) if failure.kind == "guest" => {
                let value = typed(failure.details.value.unwrap_or_default(), bad, "its error")?;
                Err(Error::Guest(value.map(Box::new)))
            }
            Err(failure) => Err(error(failure, limit)),
        }
    }
}

impl fmt::Debug for RemotePlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemotePlugin").field("functions", &self.functions).finish_non_exhaustive()
    }
}

/// What a server answers when it is asked for its functions.
///
/// # Errors
/// [`Error::Incompatible`] when that is something else, or has what is no type.
pub fn functions(told: &serde_json::Value) -> Result<Vec<Function>, Error> {
    let text = |one: &serde_json::Value, name: &str| Some(one.get(name)?.as_str()?.to_owned());
    let one = |one| Some(Function { name: text(one, "name")?, ty: text(one, "type")? });
    let all = told.as_array().and_then(|all| all.iter().map(one).collect::<Option<Vec<_>>>());
    let all = all.ok_or_else(|| Error::Incompatible {
        what: "the plugin's functions".to_owned(),
        expected: "a list of names and types".to_owned(),
        found: told.to_string().chars().take(60).collect(),
    })?;
    signature::check(&all)?;
    Ok(all)
}

/// What the other side's failure is called here. `limit` is the call's own deadline.
fn error(failure: Failure, limit: Option<Duration>) -> Error {
    let Failure { kind, message, details, .. } = failure;
    let Details { capability, backtrace, limit: most, has, .. } = *details;
    match kind.as_str() {
        "deadline" => Error::Deadline { limit: limit.unwrap_or_default() },
        "cancelled" => Error::Cancelled,
        "out-of-memory" => Error::OutOfMemory { limit: most.unwrap_or_default() },
        "out-of-fuel" => Error::OutOfFuel { limit: most.unwrap_or_default() },
        "trap" | "ended" | "unsent" => Error::Trap { message, backtrace },
        "denied" => Error::Denied { capability: capability.unwrap_or(message) },
        "no-function" => Error::NoFunction { name: message, has },
        "incompatible" => Error::Incompatible {
            what: "the other side".to_owned(),
            expected: message,
            found: "these".to_owned(),
        },
        "busy" => Error::Busy(message),
        "resting" => Error::Resting { left: Duration::from_millis(most.unwrap_or_default()) },
        _ => Error::Host(message),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::wire::{self, Answer, Question};
    use super::*;

    /// A native plugin that answers as it is told to; the last answer is its end.
    fn plugin(says: &str, answers: Vec<serde_json::Value>) -> Result<RemotePlugin, Error> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let says: serde_json::Value = serde_json::from_str(says).expect("JSON");
        std::thread::spawn(move || {
            let (mut from, mut to) = (&theirs, &theirs);
            let mut answers = std::iter::once(serde_json::json!({ "ok": says })).chain(answers);
            while let Ok(Some(Question { id, .. })) = wire::receive(&mut from) {
                let Some(answer) = answers.next() else { return };
                let answer: Answer = serde_json::from_value(answer).expect("an answer");
                wire::send(&mut to, &Answer { id, ..answer }).expect("sent");
            }
        });
        RemotePlugin::new(Remote::over(ours).expect("a client"), &Limits::default())
    }

    #[test]
    fn answers_are_of_their_types_or_errors() {
        use serde_json::json;
        let functions = r#"[{"name": "a:b/c#add", "type": "func(a: u32, b: u32) -> u32"},
            {"name": "greet", "type": "func(record {name: string}) -> result<string, u8>"}]"#;
        let plugin = plugin(
            functions,
            vec![
                json!({ "ok": 5 }),
                json!({ "ok": "five" }),
                json!({ "ok": "hello" }),
                json!({ "error": { "kind": "guest", "value": 7 } }),
                json!({ "error": { "kind": "guest", "value": "seven" } }),
                json!({ "error": { "kind": "trap", "message": "bang", "backtrace": ["here"] } }),
                json!({ "error": { "kind": "denied", "capability": "net" } }),
                json!({ "error": { "kind": "of its own", "message": "what" } }),
            ],
        );
        let plugin = plugin.expect("its types");
        let options = CallOptions::default();
        let add = |a| plugin.call(&options, "add", &[Val::U32(a), Val::U32(3)]);
        assert_eq!(add(2).expect("added"), [Val::U32(5)]);
        assert!(matches!(add(2), Err(Error::Incompatible { what, .. }) if what == "a:b/c#add, its answer"));
        let greet = || plugin.call_json(&options, "greet", r#"[{"name": "x"}]"#);
        assert_eq!(greet().expect("greeted"), "\"hello\"");
        assert!(matches!(greet(), Err(Error::Guest(Some(value))) if *value == Val::U8(7)));
        assert!(matches!(greet(), Err(Error::Incompatible { what, .. }) if what == "greet, its error"));
        assert!(matches!(greet(), Err(Error::Trap { backtrace, .. }) if backtrace == ["here"]));
        assert!(matches!(greet(), Err(Error::Denied { capability }) if capability == "net"));
        assert!(matches!(greet(), Err(Error::Host(why)) if why == "what"));
        // Not sent at all.
        assert!(matches!(plugin.call(&options, "add", &[Val::U32(1)]), Err(Error::Incompatible { .. })));
        assert!(matches!(plugin.call_json(&options, "greet", "[{}]"), Err(Error::Incompatible { .. })));
        assert!(
            matches!(plugin.call(&options, "sub", &[]), Err(Error::NoFunction { has, .. }) if has.len() == 2)
        );
        // And its end.
        let ended = plugin.call_text(&options, "add", &["1".to_owned(), "2".to_owned()]);
        assert!(
            matches!(&ended, Err(Error::Trap { message, .. }) if message.contains("has ended")),
            "{ended:?}"
        );
        assert!(plugin.is_over());
        let stats = plugin.stats();
        assert_eq!((stats.calls, stats.errors, stats.traps, stats.denied), (9, 1, 2, 1));
    }

    #[test]
    fn who_lies_about_its_functions_is_no_plugin() {
        for says in ["7", "{}", r#"[{"name": "x"}]"#, r#"[{"name": "x", "type": "func(u9)"}]"#, "[[]]"] {
            let made = plugin(says, Vec::new());
            assert!(matches!(&made, Err(Error::Incompatible { .. })), "{says}: {made:?}");
        }
    }
}
