//! Spans of the crate `tracing` for hosts that are not in Rust: what loads and calls plugins, how long it took, how it failed.
#![expect(unsafe_code, reason = "exported names")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::error::Error;
use crate::loader::Data;
use crate::pointer;

/// Is told of each span that has ended, from the thread in which it did, by a JSON object: `span` is `plugin.load` or `plugin.call`,
/// `plugin` and `function` say whose, `nanoseconds` how long it took, `error` how it failed, and `within` is the span around it.
pub type Trace = Option<extern "C" fn(data: *mut c_void, span: *const c_char)>;

/// From now on `trace` is told of what all hosts of this process do with their plugins. It can be said once; until then
/// spans cost nothing.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_trace(trace: Trace, data: *mut c_void, error: *mut *mut Error) -> bool {
    let done = pointer::attempt(error, || {
        let trace = trace.ok_or_else(|| Error::usage("trace is null".to_owned()))?;
        let data = Data { data, release: None };
        let tell = move |span: Value| {
            let data = &data;
            if let Ok(text) = CString::new(span.to_string()) {
                trace(data.data, text.as_ptr());
            }
        };
        let collector = Collector { tell: Box::new(tell), last: AtomicU64::new(0), open: Mutex::default() };
        tracing::subscriber::set_global_default(collector)
            .map_err(|_| Error::usage("somebody collects spans already".to_owned()))
    });
    done.is_some()
}

struct Collector {
    tell: Box<dyn Fn(Value) + Send + Sync>,
    last: AtomicU64,
    open: Mutex<HashMap<u64, Span>>,
}

struct Span {
    fields: Fields,
    since: Instant,
    users: usize,
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

thread_local! {
    /// The spans that this thread is in.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Collector {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Collector {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.target().starts_with("dhow_runtime::wasm::plugins")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        fields.0.insert("span".to_owned(), span.metadata().name().into());
        span.record(&mut fields);
        let mut open = self.open();
        let around = INSIDE.with_borrow(|inside| inside.last().copied());
        if let Some(around) = around.and_then(|id| open.get(&id)) {
            fields.0.insert("within".to_owned(), around.fields.0.clone().into());
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        open.insert(id, Span { fields, since: Instant::now(), users: 1 });
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(span) = self.open().get_mut(&span.into_u64()) {
            values.record(&mut span.fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(id) = INSIDE.with_borrow(|inside| inside.last().copied()) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        // How long it took is told in numbers.
        if let (Some(span), Some(error)) = (self.open().get_mut(&id), fields.0.remove("error")) {
            span.fields.0.insert("error".to_owned(), error);
        }
    }

    fn enter(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| {
            if let Some(at) = inside.iter().rposition(|id| *id == span.into_u64()) {
                inside.remove(at);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some(span) = self.open().get_mut(&span.into_u64()) {
            span.users += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut open = self.open();
        let Some(found) = open.get_mut(&span.into_u64()) else { return false };
        found.users -= 1;
        if found.users > 0 {
            return false;
        }
        let ended = open.remove(&span.into_u64());
        // Who is told may call plugins.
        drop(open);
        if let Some(Span { mut fields, since, .. }) = ended {
            let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            fields.0.insert("nanoseconds".to_owned(), nanoseconds.into());
            (self.tell)(Value::Object(fields.0));
        }
        true
    }
}
