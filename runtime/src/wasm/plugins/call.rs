//! Calling a plugin: by values or by Rust's types, blocking or async, with a deadline and a way to give up.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::Instrument as _;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Func, Instance, Lift, Lower, Val};

use super::builder::Recipe;
use super::clock::Watched;
use super::entry::{Entry, lines};
use super::error::Ended;
use super::options::{CallOptions, Cancel};
use super::rest::Rest;
use super::stats::Counters;
use super::version::{Live, Version};
use super::{Error, Function, Host, Kv, Source, Stats, json, values};
use crate::wasm::limits::Limited;
use crate::wasm::p2::{State, driver};

/// A loaded plugin; clones are the same one.
#[derive(Debug, Clone)]
pub struct Plugin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host,
    recipe: Recipe,
    current: RwLock<Arc<Version>>,
    counters: Counters,
    rest: Rest,
}

/// What is done with an instance.
pub(super) trait Work {
    type Answer;
    /// The function, for spans.
    fn name(&self) -> &str {
        ""
    }
    fn direct(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Self::Answer>;
    fn waiting(
        self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>>;
}

/// A call by values.
struct Dynamic<'a> {
    name: &'a str,
    index: ComponentExportIndex,
    args: &'a [Val],
    results: usize,
}

impl Work for Dynamic<'_> {
    type Answer = Vec<Val>;

    fn name(&self) -> &str {
        self.name
    }

    fn direct(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Vec<Val>> {
        let mut results = vec![Val::Bool(false); self.results];
        function(store, instance, &self.index)?.call(store, self.args, &mut results)?;
        Ok(results)
    }

    async fn waiting(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Vec<Val>> {
        let mut results = vec![Val::Bool(false); self.results];
        function(store, instance, &self.index)?.call_async(store, self.args, &mut results).await?;
        Ok(results)
    }
}

/// A call by Rust's types.
struct Static<'a, P, R> {
    name: &'a str,
    index: ComponentExportIndex,
    params: P,
    answer: PhantomData<fn() -> R>,
}

impl<P, R> Work for Static<'_, P, R>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift + 'static,
{
    type Answer = R;

    fn name(&self) -> &str {
        self.name
    }

    fn direct(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<R> {
        function(store, instance, &self.index)?.typed::<P, R>(&*store)?.call(store, self.params)
    }

    async fn waiting(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<R> {
        function(store, instance, &self.index)?.typed::<P, R>(&*store)?.call_async(store, self.params).await
    }
}

/// Whatever the host does with an instance.
struct Own<F>(F);

impl<F, R> Work for Own<F>
where
    F: AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R>,
{
    type Answer = R;

    fn direct(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<R> {
        // Nothing it can call waits.
        driver::block_on(self.0(store, instance), false)?
    }

    fn waiting(
        self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> impl Future<Output = wasmtime::Result<R>> {
        self.0(store, instance)
    }
}

pub(super) fn function(
    store: &mut Store<State>,
    instance: &Instance,
    index: &ComponentExportIndex,
) -> wasmtime::Result<Func> {
    // It was found in the component.
    instance.get_func(store, index).ok_or_else(|| wasmtime::format_err!("the function is gone"))
}

impl Plugin {
    pub(super) fn new(host: Host, recipe: Recipe, version: Version) -> Self {
        let current = RwLock::new(Arc::new(version));
        let rest = Rest::new(recipe.rest);
        Self(Arc::new(Inner { host, recipe, current, counters: Counters::default(), rest }))
    }

    /// Calls a function, `name` or `interface#name`, and waits for its answer. Of a `result` the answer is what is `ok`.
    ///
    /// # Errors
    /// All of [`Error`]; [`Error::Guest`] for the error of a `result`.
    pub fn call(&self, name: &str, args: &[Val]) -> Result<Vec<Val>, Error> {
        self.call_with(&CallOptions::default(), name, args)
    }

    /// As [`Plugin::call`].
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_with(&self, options: &CallOptions, name: &str, args: &[Val]) -> Result<Vec<Val>, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        let work = Dynamic { name, index: entry.index, args, results: entry.ty.results().len() };
        self.blocking(&version, options, work, |values| entry.answer(values))
            .map_err(|error| entry.blame(args, error))
    }

    /// As [`Plugin::call_with`], with arguments and answer as texts in WAVE: `[1, 2]`, `{name: "x"}`. A text needs no quotes
    /// where it is an argument; answers are a line each.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_text(&self, options: &CallOptions, name: &str, args: &[String]) -> Result<String, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        let values = entry.words(args).inspect_err(|_| self.0.counters.refused())?;
        let answer = self.call_with(options, name, &values)?;
        Ok(lines(&answer))
    }

    /// As [`Plugin::call_with`], with the arguments as a JSON array and the answer as JSON, `null` for none; which JSON stands
    /// for which type is in docs/plugins.md.
    ///
    /// # Errors
    /// As [`Plugin::call`]; [`Error::Incompatible`] says where in the text something else was expected.
    pub fn call_json(&self, options: &CallOptions, name: &str, args: &str) -> Result<String, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        let values = entry.json(args).inspect_err(|_| self.0.counters.refused())?;
        let answer = self.call_with(options, name, &values)?;
        Ok(answer.first().map_or("null".to_owned(), |value| json::write(value).to_string()))
    }

    /// As [`Plugin::call_with`], without blocking: a plugin that computes lets others have the thread every millisecond.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub async fn call_async(
        &self,
        options: &CallOptions,
        name: &str,
        args: &[Val],
    ) -> Result<Vec<Val>, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        let work = Dynamic { name, index: entry.index, args, results: entry.ty.results().len() };
        let called = self.waiting(&version, options, work, true, |values| entry.answer(values)).await;
        called.map_err(|error| entry.blame(args, error))
    }

    /// As [`Plugin::call_async`], with texts as [`Plugin::call_json`].
    ///
    /// # Errors
    /// As [`Plugin::call_json`].
    pub async fn call_json_async(
        &self,
        options: &CallOptions,
        name: &str,
        args: &str,
    ) -> Result<String, Error> {
        let values =
            self.entry(&self.current(), name)?.json(args).inspect_err(|_| self.0.counters.refused())?;
        let answer = self.call_async(options, name, &values).await?;
        Ok(answer.first().map_or("null".to_owned(), |value| json::write(value).to_string()))
    }

    /// A function with its types, which are checked here.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when the plugin's function has others; all of [`Plugin::call`], since that takes an
    /// instance.
    pub fn typed<P, R>(&self, name: &str) -> Result<Typed<P, R>, Error>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        let index = entry.index;
        let differs = async |store: &mut Store<State>, instance: &Instance| {
            Ok(function(store, instance, &index)?.typed::<P, R>(&*store).is_err())
        };
        if self.blocking(&version, &CallOptions::default(), Own(differs), Ok)? {
            return Err(Error::Incompatible {
                what: entry.name.clone(),
                expected: format!("{} -> {}", std::any::type_name::<P>(), std::any::type_name::<R>()),
                found: values::function(&entry.ty),
            });
        }
        Ok(Typed { plugin: self.clone(), name: name.to_owned(), types: PhantomData })
    }

    /// Does something with an instance, as one call: for worlds of `bindgen!`.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn with<R>(
        &self,
        options: &CallOptions,
        work: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        self.blocking(&self.current(), options, Own(work), Ok)
    }

    /// The functions it exports.
    pub fn functions(&self) -> Vec<Function> {
        self.current().functions()
    }

    /// Replaces its code. Calls that are under way end with the old one, and no call fails for it; what it remembers
    /// ([`Plugin::kv`]) stays.
    ///
    /// # Errors
    /// As [`super::Builder::load`]; the old code stays then.
    pub fn reload(&self, source: Source) -> Result<(), Error> {
        let version = Arc::new(self.0.recipe.version(&self.0.host, source)?);
        let old =
            std::mem::replace(&mut *self.0.current.write().unwrap_or_else(PoisonError::into_inner), version);
        self.0.counters.reloads.fetch_add(1, Ordering::Relaxed);
        self.0.rest.over();
        drop(old);
        Ok(())
    }

    /// What has happened to it.
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.current().waiting())
    }

    /// What it remembers, if it was granted to.
    pub fn kv(&self) -> Option<&Kv> {
        self.0.recipe.kv().map(|kv| &**kv)
    }

    pub(super) fn current(&self) -> Arc<Version> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn entry<'v>(&self, version: &'v Version, name: &str) -> Result<&'v Entry, Error> {
        version.entry(name).inspect_err(|_| self.0.counters.refused())
    }

    /// A call that this thread waits for.
    pub(super) fn blocking<W: Work, R>(
        &self,
        version: &Version,
        options: &CallOptions,
        work: W,
        answer: impl FnOnce(W::Answer) -> Result<R, Error>,
    ) -> Result<R, Error> {
        if version.needs.waits {
            let calling = self.waiting(version, options, work, false, answer);
            return driver::block_on(calling, version.needs.runtime)?;
        }
        let _inside = self.span(work.name()).entered();
        let started = self.begin(version, options)?;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let (mut live, _watched) = match version.take(options.memory) {
                Some(mut live) => {
                    let watched = self.arm(version, options, &mut live.store, started, false);
                    (live, watched)
                }
                None => {
                    let mut store = version.store(&self.0.counters);
                    let watched = self.arm(version, options, &mut store, started, false);
                    (version.make(store, &self.0.counters)?, watched)
                }
            };
            let answer = work.direct(&mut live.store, &live.instance)?;
            Ok((live, answer))
        }));
        let done = done.unwrap_or_else(|panic| Err(Ended::Panic(panic_text(&*panic)).into()));
        self.end(version, options, started, done, answer)
    }

    /// A call that others need not wait for.
    pub(super) async fn waiting<W: Work, R>(
        &self,
        version: &Version,
        options: &CallOptions,
        work: W,
        yields: bool,
        answer: impl FnOnce(W::Answer) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let span = self.span(work.name());
        self.inside(version, options, work, yields, answer).instrument(span).await
    }

    async fn inside<W: Work, R>(
        &self,
        version: &Version,
        options: &CallOptions,
        work: W,
        yields: bool,
        answer: impl FnOnce(W::Answer) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let started = self.begin(version, options)?;
        let limit = options.deadline.or(version.limits.deadline);
        let calling = async {
            let (mut live, _watched) = match version.take(options.memory) {
                Some(mut live) => {
                    let watched = self.arm(version, options, &mut live.store, started, yields);
                    (live, watched)
                }
                None => {
                    let mut store = version.store(&self.0.counters);
                    let watched = self.arm(version, options, &mut store, started, yields);
                    (version.make_waiting(store, &self.0.counters).await?, watched)
                }
            };
            let answer = work.waiting(&mut live.store, &live.instance).await?;
            Ok((live, answer))
        };
        let until = limit.and_then(|limit| Some((started.checked_add(limit)?, limit)));
        let done = guarded(until, options.cancel.as_ref(), calling).await;
        self.end(version, options, started, done, answer)
    }

    /// What a call and everything in it is seen in, by who collects spans.
    fn span(&self, function: &str) -> tracing::Span {
        tracing::debug_span!("plugin.call", plugin = self.0.recipe.shown(), function)
    }

    /// Whether a call may begin, and when it did.
    fn begin(&self, version: &Version, options: &CallOptions) -> Result<Instant, Error> {
        if options.fuel.is_some() && version.limits.fuel.is_none() {
            self.0.counters.refused();
            return Err(Error::Incompatible {
                what: "the fuel of a call".to_owned(),
                expected: "a plugin that was loaded with a limit of fuel".to_owned(),
                found: "one without".to_owned(),
            });
        }
        let now = Instant::now();
        match self.0.rest.left(now) {
            None => Ok(now),
            Some(left) => {
                self.0.counters.refused();
                Err(Error::Resting { left })
            }
        }
    }

    /// Puts an instance under the limits of a call.
    fn arm(
        &self,
        version: &Version,
        options: &CallOptions,
        store: &mut Store<State>,
        started: Instant,
        yields: bool,
    ) -> Option<Watched> {
        let limit = options.deadline.or(version.limits.deadline);
        let inside = store.data_mut().inside();
        inside.until = limit.and_then(|limit| Some((started.checked_add(limit)?, limit)));
        inside.cancel.clone_from(&options.cancel);
        inside.yields = yields;
        let watch = yields || inside.until.is_some() || inside.cancel.is_some();
        store.set_epoch_deadline(1);
        Limited::limiter(store.data_mut()).set_most(options.memory.unwrap_or(u64::MAX));
        let most = options.output.or(version.limits.output);
        let before = store.data_mut().inside().output;
        if before.map(|(most, _)| most) != most {
            let usual = before.map_or_else(|| store.hostcall_fuel(), |(_, usual)| usual);
            store.set_hostcall_fuel(most.unwrap_or(usual));
            store.data_mut().inside().output = most.map(|most| (most, usual));
        }
        if let Some(fuel) = options.fuel.or(version.limits.fuel) {
            // Fails only for code that does not count.
            store.set_fuel(fuel).ok();
        }
        watch.then(|| self.0.host.0.ticker.watch())
    }

    /// Counts a call that has ended, and keeps its instance if it may be used again.
    fn end<A, R>(
        &self,
        version: &Version,
        options: &CallOptions,
        started: Instant,
        done: wasmtime::Result<(Live, A)>,
        answer: impl FnOnce(A) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let now = Instant::now();
        let ended = done.and_then(|(mut live, answer)| {
            // It may have spent its time in a function of the host.
            live.store.data_mut().inside().check()?;
            self.0.counters.held(Limited::limiter(live.store.data_mut()).held());
            Ok((live, answer))
        });
        let (ended, live) = match ended {
            Ok((live, value)) => (answer(value), Some(live)),
            Err(error) => (Err(Error::of(&error, options.fuel.or(version.limits.fuel))), None),
        };
        self.0.counters.ended(now.duration_since(started), ended.as_ref().err());
        match &ended {
            Ok(_) => tracing::debug!(took = ?now.duration_since(started), "answered"),
            Err(error) => tracing::debug!(took = ?now.duration_since(started), %error, "failed"),
        }
        match &ended {
            Err(error) if !error.is_harmless() => self.0.rest.failed(now),
            _ => self.0.rest.over(),
        }
        if let Some(live) = live {
            version.give_back(live, now);
        }
        ended
    }
}

/// A function of a plugin, with its parameters and its answer as tuples of Rust's types.
pub struct Typed<P, R> {
    plugin: Plugin,
    name: String,
    types: PhantomData<fn(P) -> R>,
}

impl<P, R> Typed<P, R>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift + 'static,
{
    /// Calls it and waits for its answer. A `result` is answered as it is.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call(&self, params: P) -> Result<R, Error> {
        self.call_with(&CallOptions::default(), params)
    }

    /// As [`Typed::call`].
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_with(&self, options: &CallOptions, params: P) -> Result<R, Error> {
        let version = self.plugin.current();
        let index = self.plugin.entry(&version, &self.name)?.index;
        self.plugin.blocking(
            &version,
            options,
            Static { name: &self.name, index, params, answer: PhantomData },
            Ok,
        )
    }

    /// As [`Typed::call_with`], without blocking.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub async fn call_async(&self, options: &CallOptions, params: P) -> Result<R, Error> {
        let version = self.plugin.current();
        let index = self.plugin.entry(&version, &self.name)?.index;
        let work = Static { name: &self.name, index, params, answer: PhantomData };
        self.plugin.waiting(&version, options, work, true, Ok).await
    }
}

impl<P, R> fmt::Debug for Typed<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs a call's future, which may panic, until it is done, its time is over or it is given up.
pub(super) async fn guarded<T>(
    until: Option<(Instant, Duration)>,
    cancel: Option<&Cancel>,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let mut work = pin!(work);
    let work = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(polled) => polled,
        Err(panic) => Poll::Ready(Err(Ended::Panic(panic_text(&*panic)).into())),
    });
    let over = async {
        match until {
            Some((end, limit)) => {
                driver::runtime().await;
                tokio::time::sleep_until(end.into()).await;
                Ended::Deadline(limit)
            }
            None => std::future::pending().await,
        }
    };
    let given_up = async {
        match cancel {
            Some(cancel) => cancel.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        ended = over => Err(ended.into()),
        () = given_up => Err(Ended::Cancelled.into()),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
